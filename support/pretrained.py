"""Pretrained models of many families: loaded safely, and told apart by what they call things."""

import json
import os
import re
from inspect import signature
from pathlib import Path

import torch
from torch import nn

from support.errors import UserError, show
from support.hub import TOKENIZER_FILES, WEIGHT_FILES, fetch_model, hub_error, is_there, without

# The tokenizer uses all cores; said aloud, or it prints a warning if your own code forks a process.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

# Only files that are here already (fetch_model() brings them), and none of them run as a program.
SAFELY = {"local_files_only": True, "trust_remote_code": False}


# ------------------------------------------------------------------------------ 1. load
def load_tokenizer(name):
    """The tokenizer of a hub name or folder. Raises UserError where there is none that can pad."""
    try:
        fetch_model(name, TOKENIZER_FILES)
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            name,
            **SAFELY,
            split_special_tokens=True,  # "[SEP]" in a review is text, and does not end the review
            # Not token_type_ids: they tell the first of two texts from the second, we have one.
            model_input_names=["input_ids", "attention_mask"],
        )
    except Exception as error:  # the library has no common type: OSError, ValueError, KeyError, ...
        raise hub_error("model", name, error) from error
    if tokenizer.pad_token_id is None or not tokenizer.is_fast:
        raise UserError(f"{name}: its tokenizer cannot pad, or is no fast one; try another model")
    if tokenizer.padding_side != "right":
        raise UserError(f"{name}: wants its padding on the left, as XLNet does; try another model")
    return tokenizer


def load_config(name):
    """A model's config. Raises ValueError if it asks for attention code from somewhere else."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(name, **SAFELY)
    for key, value in vars(config).items():  # the package kernels, if it is there, runs such code
        if "attn_implementation" in key and "/" in str(value):
            raise ValueError(f"its config.json asks for the code of {value}, which is not run here")
    return config


def load_classifier(name, config, **options):
    """(model, what was found of it) of a hub name or folder, in 32 bits, with `config`'s head."""
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()  # for reading and writing weights; downloads keep theirs
    # The report is a table of what is missing and what is left over. It looks like an alarm, and
    # the caller looks at the same: see drawn_at_random() and saved.check_loaded().
    with without("transformers", "LOAD REPORT"):
        loaded = AutoModelForSequenceClassification.from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,  # the other format, pickle, can run code when it is opened
            output_loading_info=True,
            **SAFELY,
            **options,
        )
    if "attention_mask" not in signature(loaded[0].forward).parameters:  # as FNet's
        raise ValueError("it knows no attention mask, and would read padding as if it were text")
    return loaded


def class_names(config):
    """The names of a model's classes, in the order of its logits (a file may have another)."""
    return [config.id2label[number] for number in sorted(config.id2label)]


# ------------------------------------------------------------------------------ 2. of others
def find_model(name):
    """The folder of a model: it may be a name on the hub, owner/name, whose files are fetched."""
    if Path(name).exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        return Path(name)
    try:
        fetch_model(name, TOKENIZER_FILES + WEIGHT_FILES)
        return Path(is_there(name, "config.json")).parent
    except Exception as error:  # the library has no common type: OSError, ValueError, KeyError, ...
        raise hub_error("model", name, error) from error


def as_typed(folder):
    """The name of a model whose folder is in the hub's cache, else the folder."""
    cached = [part for part in Path(folder).parts if part.startswith("models--")]
    return cached[-1].removeprefix("models--").replace("--", "/") if cached else str(folder)


def describe_other(folder, max_length=None):
    """What run.json would say of a classifier that somebody else has saved, as far as it shows.

    What had to be assumed stands in "assumed". Raises UserError for what is no such classifier.
    """
    name = as_typed(folder)
    how = f"fine-tune it: python finetune.py --model {name}"
    if not any(folder.glob("*.safetensors")):
        what = "no weights as .safetensors (other formats can run code when they are opened)"
        raise UserError(f"--model {name}: has {what}")
    tokenizer = load_tokenizer(str(folder))
    try:
        config = load_config(str(folder))
        names = list(map(str, class_names(config)))
        if not "".join(names).isprintable():
            raise ValueError("the name of a class has a line break or another invisible sign")
    except Exception as error:
        raise hub_error("model", str(folder), error) from error
    if config.problem_type == "multi_label_classification" or len(names) < 2:
        what = "its classes do not exclude each other" if len(names) > 1 else "it has no classes"
        raise UserError(f"--model {name}: {what}, so it cannot be asked for one; {how}")
    most = getattr(config, "max_position_embeddings", 512) or 512
    most = min(tokenizer.model_max_length, most, 512)
    arguments = dict.fromkeys(("data", "subset", "text_column", "label_column"))
    arguments |= {"model": name, "demo": False, "seed": 42}
    arguments |= {"max_length": max_length or most, "truncation": "head"}
    return {
        "arguments": arguments,
        "labels": names,
        "versions": {},
        "splits": {},
        "results": {},
        "notes": [],
        "history": [],
        "assumed": f"no run.json in {name}, so: classes {', '.join(names[:8])} (config.json), "
        f"texts cut after {arguments['max_length']} tokens (--max-length), white space folded",
    }


# ------------------------------------------------------------------------------ 3. told apart
def set_dropout(config, dropout, attention_dropout):
    """Set a model's two kinds of dropout, under whatever names its config has for them.

    They are the shares of a layer's numbers, and of attention weights, that are set to 0 in
    training; None for the checkpoint's own. Why our defaults are what they are: see options.py.
    """
    for name, value in vars(config).items():
        rate = attention_dropout if "att" in name else dropout
        if "dropout" in name and rate is not None and isinstance(value, (int, float)):
            setattr(config, name, rate)


def max_positions(model):
    """The most tokens, special ones included, that the model has positions for.

    RoBERTa starts to count behind its padding id: of its table of 514 positions, 512 can be used.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings"):
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - unused
    # ModernBERT and others compute positions and have no table. T5's distances have no end.
    most = getattr(model.config, "max_position_embeddings", None)
    return most if most and most > 0 else 1_000_000


def drawn_at_random(name, model, info, head):
    """The parameters that the checkpoint did not have. Raises UserError if one is not of the head.

    info: what transformers says of the weights. head: the names of the head's parameters.
    """
    drawn = set(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]}
    if lost := drawn - head:
        what = f"lacks {len(lost)} tensors of its own encoder (such as {min(lost)})"
        raise UserError(f"the model {name!r} {what}: it is no pretrained {type(model).__name__}")
    # What is left over is usually the head of the pretraining. Whole layers should not be.
    if layers := [key for key in info["unexpected_keys"] if re.search(r"layers?\.\d+\.", key)]:
        what = f"{len(layers)} tensors of {name} (such as {min(layers)}) have no place in the model"
        show("warning", f"{what} that its config.json describes, and are left out")
    return drawn


def check_layers(model, parts, train_layers):
    """Raise UserError where so many layers cannot be trained. parts: of model.parameter_parts()."""
    depth, found, kind = model.config.num_hidden_layers, dict(parts).values(), type(model).__name__
    if train_layers is not None and not 0 <= train_layers <= depth:
        raise UserError(f"--train-layers {train_layers}: the model's layers are 0 to {depth}")
    if train_layers and "layer 1" not in found:
        raise UserError(f"--train-layers: the layers of {kind} cannot be told apart")
    if "head" not in found:
        raise UserError(f"{kind} has no head that could be trained")


# ------------------------------------------------------------------------------ 4. saved for others
# White space as Python's str.split() sees it. In each language \s is something else.
SPACE = r"[\t-\r\x1c-\x20\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"


def with_cleaning(tokenizer, line_break, model_max_length):
    """A copy of the tokenizer that cleans as dataset.clean() does; why: see model.save_model()."""
    from tokenizers import Regex, normalizers
    from transformers import PreTrainedTokenizerFast

    backend = tokenizer.backend_tokenizer
    copy = PreTrainedTokenizerFast(
        tokenizer_object=type(backend).from_str(backend.to_str()),
        model_max_length=model_max_length,
        split_special_tokens=True,
        model_input_names=["input_ids", "attention_mask"],
        **tokenizer.special_tokens_map,
    )
    steps = [normalizers.Replace(Regex(line_break.replace(r"\s", SPACE)), " ")]
    # ModernBERT has tokens that are white space. Folded, they would be "", which fits everywhere.
    if not any(token.content.isspace() for token in tokenizer.added_tokens_decoder.values()):
        steps += [normalizers.Replace(Regex(f"{SPACE}+"), " ")]
        steps += [normalizers.Replace(Regex("^ | $"), "")]  # not Strip(): JavaScript's takes more
    own = copy.backend_tokenizer.normalizer  # lower-casing and such, for models that do it
    copy.backend_tokenizer.normalizer = normalizers.Sequence(steps + ([own] if own else []))
    return copy


def save_tokenizer(folder, tokenizer, line_break, model_max_length):
    """Write a tokenizer that cleans texts, for this library, older ones, and transformers.js."""
    with_cleaning(tokenizer, line_break, model_max_length).save_pretrained(folder)
    for name in ("tokenizer_config.json", "tokenizer.json"):
        path = Path(folder, name)
        content = json.loads(path.read_text(encoding="utf-8"))
        if "tokenizer_class" in content:  # version 5 has a name that only it knows
            content["tokenizer_class"] = "PreTrainedTokenizerFast"
        else:
            # Without this list JavaScript takes "[SEP]" in a text for text, as we do. (transformers
            # itself looks the special tokens up in the vocabulary.)
            words, added = content["model"].get("vocab"), content["added_tokens"]
            known = words if isinstance(words, dict) else {}
            content["added_tokens"] = [
                one for one in added
                if not one["special"] or known.get(one["content"]) != one["id"]
            ]
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_tokenizer(tokenizer, line_break, texts, count=500):
    """Raise UserError, before the training, if the saved tokenizer would read texts differently."""
    saved = with_cleaning(tokenizer, line_break, model_max_length=512)
    for text in texts[:count]:
        # verbose=False: no warning of long texts, which are cut later.
        one, other = (which(text, verbose=False)["input_ids"] for which in (saved, tokenizer))
        if one != other:
            raise UserError(f"this model's tokenizer cannot be saved faithfully: {text[:60]!r}")
