"""Appendix B: a folder that is the model, whole or not at all.

Teaches   what has to be saved so that a model gives the same answer next year, in another program,
          on another machine: weights, tokenizer, and the way texts were prepared.
Order     after the chapters.
Run       python checkpoint.py demo        what a saved folder holds
Expect    the run's arguments, versions and results, as training wrote them.

A saved folder
    model.safetensors, config.json             weights and architecture, label names included
    tokenizer.json, tokenizer_config.json      the tokenizer
    run.json                                   how it was made, and how to prepare texts for it
    README.md                                  the same for people: a model card
"""

import hashlib
import json
import os
import platform
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

from dataset import LINE_BREAK, TRUNCATIONS
from errors import UserError, make_parser, run_command
from folder import flush_to_disk, write_whole
from hardware import hardware_name
from model import class_names, load_config, max_positions

# A folder that lacks one of these is no saved model; run.json is written last.
FILES = ("run.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


# ------------------------------------------------------------------------------ describe
def describe_run(args, names, splits, notes, device, precision, reasons):
    """The dict that becomes run.json; its history and results fill as the run goes on."""
    packages = ("torch", "transformers", "datasets", "tokenizers")
    return {
        "arguments": vars(args),
        "labels": names,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "device": {
            "type": device.type,
            "name": hardware_name(device),
            "threads": torch.get_num_threads(),
            "precision": precision,
            "reasons": reasons,
        },
        "splits": {
            role: {
                "reviews": len(split["labels"]),
                "classes": {name: split["labels"].count(c) for c, name in enumerate(names)},
            }
            for role, split in splits.items()
        },
        "notes": notes,
        "history": [],
        "results": {},
    }


def weights_fingerprint(model):
    """16 letters of the encoder's weights: which pretrained ones did a run begin with?

    Without the head, and without BERT's pooler, which can be new as well: a seed draws them.
    """
    found = hashlib.sha256()
    for name, tensor in sorted(model.base_model.state_dict().items()):
        if name.startswith("pooler."):
            continue
        found.update(name.encode())
        found.update(tensor.cpu().contiguous().numpy())
    return found.hexdigest()[:16]


# ------------------------------------------------------------------------------ save
def save_model(folder, model, tokenizer, run):
    """Write the folder described above. run: the dict that becomes run.json.

    All files are written into a .saving- folder first, so a full disk leaves the model before this
    one as it was. Then the old run.json goes, the files are renamed into their places, and the new
    run.json comes last: killed in between, the folder is refused, and never taken for a model.
    """
    folder = Path(folder)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".saving-"))
    try:
        model.save_pretrained(temporary)  # as safetensors: numbers only, nothing that could run
        with_cleaning(tokenizer, max_positions(model)).save_pretrained(temporary)
        write_run(temporary, run)
        for path in temporary.iterdir():
            flush_to_disk(path)  # a checkpoint may soon refer to this model
    except Exception as error:  # OSError, and the safetensors library's own for a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        reason = " ".join(str(error).split())
        raise UserError(f"{folder}: cannot be saved ({reason}); is the disk full?") from error
    (folder / "run.json").unlink(missing_ok=True)
    for path in sorted(temporary.iterdir(), key=lambda path: path.name == "run.json"):
        os.replace(path, folder / path.name)
    flush_to_disk(folder)
    for left_over in folder.glob(".saving-*"):  # this one, and those of runs that were killed
        shutil.rmtree(left_over, ignore_errors=True)


def with_cleaning(tokenizer, model_max_length):
    """A copy of the tokenizer that does the cleaning of dataset.clean() by itself.

    transformers.pipeline() and other programs know nothing of our clean(). Without this they would
    feed the model `<br />`, which it has not seen in training, and get other probabilities.
    """
    from tokenizers import Regex, normalizers
    from transformers import PreTrainedTokenizerFast

    copy = PreTrainedTokenizerFast(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(
            tokenizer.backend_tokenizer.to_str()
        ),
        model_max_length=model_max_length,
        split_special_tokens=True,
        model_input_names=["input_ids", "attention_mask"],
        **tokenizer.special_tokens_map,
    )
    steps = [normalizers.Replace(Regex(LINE_BREAK), " ")]
    # ModernBERT has tokens that are white space. Folded, they would be "", which fits everywhere.
    if not any(token.content.isspace() for token in tokenizer.added_tokens_decoder.values()):
        steps += [normalizers.Replace(Regex(r"[\s\x1c-\x1f]+"), " "), normalizers.Strip()]
    own = copy.backend_tokenizer.normalizer  # lower-casing and such, for models that do it
    copy.backend_tokenizer.normalizer = normalizers.Sequence(steps + ([own] if own else []))
    return copy


def check_tokenizer(tokenizer, texts, count=500):
    """Raise UserError, before the training, if the saved tokenizer would read texts differently."""
    saved = with_cleaning(tokenizer, model_max_length=512)
    for text in texts[:count]:
        if saved(text)["input_ids"] != tokenizer(text)["input_ids"]:
            raise UserError(f"this model's tokenizer cannot be saved faithfully: {text[:60]!r}")


def write_run(folder, run):
    """Write run.json and the model card."""
    for name, text in (
        ("README.md", model_card(run)),
        ("run.json", json.dumps(run, indent=2) + "\n"),
    ):
        write_whole(Path(folder) / name, text)


def model_card(run):
    """The README.md of a saved model, made from its run.json: what it is, how good, how to use."""
    arguments, results = run["arguments"], run["results"]
    lines = [
        "---",
        "pipeline_tag: text-classification",
        "library_name: transformers",
        f"base_model: {json.dumps(arguments['model'])}",
        "---",
        "",
        f"# {arguments['model']}, fine-tuned on {Path(arguments['data']).name}",
        "",
        f"Tells {' / '.join(run['labels'])}. "
        f"Trained on {run['splits']['train']['reviews']:,} texts.",
    ]
    if arguments["demo"]:
        lines += [
            "",
            "**A rehearsal: a tiny model with random weights, trained on made-up reviews.**",
        ]
    for role in ("validation", "test"):
        if role in results:
            low, high = results[role]["accuracy_interval"]
            lines += [
                "",
                f"{role}: accuracy {results[role]['accuracy']:.2%} (95 % interval {low:.2%} to "
                f"{high:.2%}, n = {results[role]['n']:,}), "
                f"macro F1 {results[role]['macro_f1']:.2%}",
            ]
    lines += [
        "",
        f"Texts are cut to {arguments['max_length']} tokens ({arguments['truncation']}); the "
        "validation split chose the epoch, the test split was read once. How it was made, to the "
        "last argument, is in run.json.",
        "",
        "```python",
        "from transformers import pipeline",
        "",
        "classify = pipeline('text-classification', model='this folder', truncation=True)",
        "print(classify('I regret watching this film'))",
        "```",
        "",
        "Longer texts are cut by `truncation=True` at the model's limit and from the end only; "
        "`predict.py` cuts them as in training.",
        "",
    ]
    return "\n".join(lines)


# ------------------------------------------------------------------------------ load
def read_run(folder):
    """run.json of a saved folder, as a dict. Raises UserError where the folder holds no model."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"--model {folder}: there is no such folder; python finetune.py --demo makes one"
        )
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(
                f"--model {folder}: no {name} in it, so it is not a model finetune.py saved"
            )
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        arguments = run["arguments"]
        whole = {"data", "text_column", "label_column", "seed", "demo"} <= set(arguments)
        whole &= {"versions", "splits", "results"} <= set(run) and len(run["labels"]) >= 2
        whole &= isinstance(arguments["max_length"], int) and arguments["max_length"] >= 3
        whole &= all(isinstance(arguments[k], str) for k in ("data", "text_column", "label_column"))
        # A name with a line break or a color in it could pretend to be another answer.
        whole &= all(isinstance(name, str) and name.isprintable() for name in run["labels"])
        whole &= arguments["truncation"] in TRUNCATIONS
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise UserError(f"{folder / 'run.json'} is damaged: train again, or use another folder")
    return run


def load_model(folder, device=torch.device("cpu")):
    """Load what save_model wrote. Returns (model in eval mode, tokenizer, run).

    The logits are those of the model that was saved, bit for bit on the same CPU.
    """
    run = read_run(folder)
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # loading takes less than a second
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=load_config(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # a damaged file: each library in the chain has errors of its own
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--model {folder}: cannot be loaded, a file is damaged or strange ({reason})"
        ) from error
    # The library fills what is missing with random numbers, and goes on. Here that is an error.
    if info["missing_keys"] or info["mismatched_keys"]:
        raise UserError(
            f"--model {folder}: model.safetensors is not the whole model of config.json"
        )
    if class_names(model.config) != run["labels"]:
        raise UserError(f"--model {folder}: config.json and run.json name different classes")
    if run["arguments"]["max_length"] > max_positions(model):
        raise UserError(f"--model {folder}: run.json has a max_length that the model cannot read")
    most = max(tokenizer.get_vocab().values())
    if tokenizer.pad_token_id is None or most >= model.config.vocab_size:
        raise UserError(f"--model {folder}: the tokenizer does not belong to the model")
    return model.to(device).eval(), tokenizer, run


def main():
    parser = make_parser(__doc__)
    parser.add_argument("model", help="a folder that finetune.py saved")
    run = read_run(parser.parse_args().model)
    print(
        json.dumps(
            {key: run[key] for key in ("arguments", "versions", "splits", "results")}, indent=2
        )
    )


if __name__ == "__main__":
    run_command(main)
