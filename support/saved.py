"""What stands beside the weights in a model's folder: run.json, the model card, kept answers.

run.json tells how the model was made and how to prepare texts for it. answers-validation.json and
answers-test.json hold each answer and not only the share that was right: whoever asks the next
question (is it worse on long reviews? how sure is it when it is wrong?) need not wait again.
"""

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from support.errors import TRUNCATIONS, WIDTH, UserError, plain, show
from support.files import digest, file_digest, read_json, seen_from_here, write_whole
from support.devices import hardware_name
from support.pretrained import class_names, max_positions

# A folder that lacks one of these is no saved model; run.json is written last.
FILES = ("run.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
MISTAKES = 20  # so many of the surest are kept with their texts


# ------------------------------------------------------------------------------ 1. run.json
def describe_run(args, names, splits, notes, device, precision, reasons):
    """The dict that becomes run.json; its history and results fill as the run goes on."""
    packages, counts = ("torch", "transformers", "datasets", "tokenizers"), {}
    for role, split in splits.items():
        classes = {name: split["labels"].count(c) for c, name in enumerate(names)}
        counts[role] = {"reviews": len(split["labels"]), "classes": classes}
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
        "splits": counts,
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
        if not name.startswith("pooler."):
            found.update(name.encode())
            found.update(tensor.cpu().contiguous().numpy())
    return found.hexdigest()[:16]


def example(arguments):
    """What a user may ask a model first: about a film, where films are what it knows."""
    films = arguments["demo"] or arguments["data"] == "stanfordnlp/imdb"
    return "I regret watching this film" if films else "a text of your own"


def write_run(folder, run):
    """Write the model card and run.json."""
    write_whole(Path(folder, "README.md"), model_card(run))
    write_whole(Path(folder, "run.json"), json.dumps(run, indent=2) + "\n")


def model_card(run):
    """The README.md of a saved model, made from its run.json: what it is, how good, how to use."""
    arguments, results = run["arguments"], run["results"]
    rehearsal = "**A rehearsal: a tiny model with random weights, trained on made-up reviews.**\n\n"
    figures = ""
    for role in ("validation", "test"):
        if found := results.get(role):
            interval = "{:.2%} to {:.2%}".format(*found["accuracy_interval"])
            figures += f"{role}: accuracy {found['accuracy']:.2%} (95 % interval {interval}, "
            figures += f"n = {found['n']:,}), macro F1 {found['macro_f1']:.2%}\n\n"
    return f"""---
pipeline_tag: text-classification
library_name: transformers
base_model: {json.dumps(arguments["model"])}
---

# {arguments["model"]}, fine-tuned on {Path(arguments["data"]).name}

Tells {" / ".join(run["labels"])}. Trained on {run["splits"]["train"]["reviews"]:,} texts.

{rehearsal * arguments["demo"]}{figures}Texts are cut to {arguments["max_length"]} tokens \
({arguments["truncation"]}); the validation split chose the epoch, the test split was read once. \
How it was made, to the last argument, is in run.json.

```python
from transformers import pipeline

classify = pipeline('text-classification', model='this folder', truncation=True)
print(classify({example(arguments)!r}))
```

Longer texts are cut by `truncation=True` at the model's limit and from the end only; \
`predict.py` cuts them as in training.
"""


def read_run(folder):
    """run.json of a saved folder, as a dict. Raises UserError where the folder holds no model."""
    folder = Path(folder)
    if not folder.is_dir():
        make = "python finetune.py --demo makes one"
        raise UserError(f"--model {folder}: there is no such folder; {make}")
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"--model {folder}: no {name} in it, so no model finetune.py saved")
    try:
        run = read_json(folder / "run.json")
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


def warn_of_change(run, now, role, same_columns, notes):
    """Add a warning to `notes` if the data is divided otherwise than in training.

    now: its fingerprint. Other columns divide a file otherwise, unless it brings its own splits.
    """
    divided = same_columns or any("held out" in note for note in notes)
    if divided and now != run.get("data_fingerprint", now):
        notes.append(
            f"warning: the {'data has' if same_columns else 'columns have'} changed since "
            "training, and with it the division: reviews that were trained on may stand in "
            f"{role} now"
        )


def check_loaded(folder, model, tokenizer, run, info):
    """Raise UserError unless weights, tokenizer and run.json belong together.

    info: what transformers says about the weights it has found.
    """
    if info["missing_keys"] or info["mismatched_keys"] or info["unexpected_keys"]:
        raise UserError(f"--model {folder}: its weights are not the whole model of config.json")
    if class_names(model.config) != run["labels"]:
        raise UserError(f"--model {folder}: config.json and run.json name different classes")
    if run["arguments"]["max_length"] > max_positions(model):
        raise UserError(f"--model {folder}: run.json has a max_length that the model cannot read")
    most = max(tokenizer.get_vocab().values())
    if tokenizer.pad_token_id is None or most >= model.config.vocab_size:
        raise UserError(f"--model {folder}: the tokenizer does not belong to the model")


# ------------------------------------------------------------------------------ 2. answers
def surest_mistakes(logits, labels):
    """Row numbers of the wrong answers, the surest first. logits: [N, C]; labels: N numbers."""
    scores, predicted = logits.softmax(dim=-1).max(dim=-1)  # [N], [N]
    wrong = (predicted != torch.as_tensor(labels)).nonzero()[:, 0]
    return wrong[scores[wrong].argsort(descending=True, stable=True)].tolist()


def keep_answers(folder, role, logits, split, how):
    """Write answers-<role>.json into a model's folder, if it does not know of more reviews.

    logits: [N, C]. split: a dict of lists: "texts", "labels", and "lengths", the tokens of each
    whole review. how: what else a reader has to know: subset, windows, precision. Returns whether
    they were kept; if not, it has said why.
    """
    labels, texts = split["labels"], split["texts"]
    # A folder may get another model. Answers that are not its own must not speak for it.
    path, weights = Path(folder, f"answers-{role}.json"), file_digest(f"{folder}/model.safetensors")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # damaged: write it anew
        before = read_json(path)
        if before["weights"] == weights and len(before["labels"]) > len(labels):
            print("answers not kept for extras.report: it has those of more reviews")
            return False
    record = how | {
        "weights": weights,
        "reviews": digest(json.dumps([texts, labels]).encode()),  # do two models answer the same?
        "labels": labels,
        "lengths": split["lengths"],
        # Nine digits say exactly which 32-bit number it was; with fewer, two logits could tie.
        "logits": [[float(f"{value:.9g}") for value in row] for row in logits.tolist()],
        "mistakes": {row: texts[row] for row in surest_mistakes(logits, labels)[:MISTAKES]},
    }
    try:
        write_whole(path, json.dumps(record) + "\n")
    except UserError as error:  # somebody else's folder: no reason to lose the evaluation
        print(f"answers not kept for extras.report: {error}", file=sys.stderr)
        return False
    return True


def keep_evaluation(args, run, split, logits, precision, hardware, found):
    """What evaluate.py writes: its --save, its --results, and the answers for extras.report.

    args: its options. logits: [N, C]. found: its figures, a dict for --results.
    """
    how = {"subset": args.subset, "draw_seed": args.draw_seed, "windows": args.windows}
    how["precision"] = precision
    if args.data is args.text_column is args.label_column is None:
        print()
        if keep_answers(args.model, args.split, logits, split, how):
            print("answers kept for extras.report")
    if args.save:
        save_predictions(args.save, logits, split, run["labels"])
        print(f"\n{len(split['texts']):,} predictions in {args.save}")
    if args.results:
        # Whoever reads it elsewhere has other folders: paths are written as seen from here.
        typed = run["arguments"]
        paths = {k: seen_from_here(v) for k, v in typed.items() if os.path.isabs(str(v))}
        how |= {"data": args.data, "split": args.split, "hardware": hardware} | found
        record = {"run": run | {"arguments": typed | paths}, "evaluated": how}
        write_whole(args.results, json.dumps(record, indent=1) + "\n")


def save_predictions(path, logits, split, names):
    """Write text, label, predicted and score of each review as CSV. logits: [N, C]."""
    scores, predicted = logits.softmax(dim=-1).max(dim=-1)  # [N], [N]
    columns = split["texts"], split["labels"], predicted.tolist(), scores.tolist()
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["text", "label", "predicted", "score"])
    writer.writerows((text, names[c], names[p], score) for text, c, p, score in zip(*columns))
    write_whole(path, buffer.getvalue())


# ------------------------------------------------------------------------------ 3. figures, shown
def commonest(figures):
    """(name, share) of the commonest class: the accuracy of a model that always says this one."""
    sizes = {name: one["n"] for name, one in figures["per_class"].items()}
    name = max(sizes, key=sizes.get)
    return name, sizes[name] / figures["n"]


def warnings_for(figures):
    """What looks wrong in the figures themselves: a list of sentences, usually empty."""
    classes, confusion, found = list(figures["per_class"]), figures["confusion"], []
    present = [name for name, row in zip(classes, confusion) if sum(row)]
    if len(present) == 1:
        why = "an accuracy on one class says nothing about the other"
        found.append(f"every review is {present[0]!r}: {why}")
    name, share = commonest(figures)
    if figures["accuracy_interval"][0] <= share < 1:
        what = f"no better than always {name!r}, as far as {figures['n']:,} reviews can tell"
        found.append(f"{what}: more epochs, more reviews, or another --lr?")
    # An accuracy of 80 % where four in five reviews are positive may be a model that says
    # "positive" to everything. Then no negative review stands on the diagonal.
    for c, name in enumerate(classes):
        if name in present and confusion[c][c] == 0:
            found.append(f"not one of the {sum(confusion[c]):,} {name} reviews was recognised")
    return found


def print_scores(figures, title, note=""):
    """Print a split's figures, each beside what to compare it with. figures: of score()."""
    low, high = figures["accuracy_interval"]
    names, (always, common) = list(figures["per_class"]), commonest(figures)
    print()
    show(title, f"{figures['n']:,} reviews{note}")
    interval = f"95 % interval {low:.2%} to {high:.2%}"
    show("accuracy", f"{figures['accuracy']:.2%}   {interval}; always {always!r}: {common:.2%}")
    guess = f"a guess of 1/{len(names)} for each class: {math.log(len(names)):.4f}"
    show("loss", f"{figures['loss']:.4f}   {guess}")
    # Of that class precision is its share and recall 1; all other classes have an F1 of 0.
    one = 2 * common / (1 + common) / len(names)
    show("macro F1", f"{figures['macro_f1']:.2%}   mean F1 of the classes; always one: {one:.2%}")
    wide = max(10, *map(len, names))
    table = [f"{'':{wide}} precision    recall        F1   reviews"]
    for name, found in figures["per_class"].items():
        shares = "  ".join(f"{found[key]:>8.2%}" for key in ("precision", "recall", "f1"))
        table.append(f"{name:{wide}}  {shares}  {found['n']:>8,}")
    # The confusion matrix: beside the classes, where it fits.
    columns = [max(8, len(name)) for name in names]
    matrix = ["called " + "  ".join(f"{name:>{w}}" for name, w in zip(names, columns))]
    for row in figures["confusion"]:
        matrix.append(" " * 7 + "  ".join(f"{n:>{w},}" for n, w in zip(row, columns)))
    if len(table[0]) + 2 + len(matrix[0]) <= WIDTH:
        print("\n".join(f"{left}  {right}" for left, right in zip(table, matrix)))
    else:
        print("\n".join(table) + "\n")
        print("\n".join(f"{left:{wide}} {right}" for left, right in zip(["", *names], matrix)))
    for warning in warnings_for(figures):
        print()
        show("warning:", warning)


def print_mistakes(logits, split, names, count=5):
    """The wrong answers the model was most sure of. Often the label is what is odd: read them."""
    sure, predicted = logits.softmax(dim=-1).max(dim=-1)  # probabilities [N], classes [N]
    wrong = surest_mistakes(logits, split["labels"])
    print(f"\n{len(wrong):,} mistakes; the surest, with the probability given to the answer")
    for i in wrong[:count]:
        text, truth = split["texts"][i], names[split["labels"][i]]
        text = text if len(text) <= 240 else text[:100] + " ... " + text[-130:]
        print(f"  {sure[i]:.3f} {names[predicted[i]]}, but is {truth}: {plain(text)}")
