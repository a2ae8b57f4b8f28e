"""What finetune.py and evaluate.py have left behind, read again for the commands of extras.

A model's folder holds history.jsonl (each step and epoch) and answers-*.json (each answer to a
split); --results is a file of figures. Nothing here believes a file because of its name.
"""

import json
import math
import os
import shlex
from pathlib import Path

import torch

from support.errors import UserError
from support.files import model_digest, read_json
from support.options import USUAL_RATE, parse_arguments


def read_history(out):
    """Returns (steps, epochs), the two kinds of lines of history.jsonl, without a torn last one."""
    path = Path(out, "history.jsonl")
    try:
        text = path.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        for line in lines:
            numbers = [line["step"], line["loss"] if "loss" in line else line["train_loss"]]
            if not all(type(x) in (int, float) and math.isfinite(x) for x in numbers):
                raise ValueError(f"{numbers} are no numbers")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    return [x for x in lines if "loss" in x], [x for x in lines if "train_loss" in x]


def read_answers(folder, role):
    """What keep_answers() wrote, logits as a tensor [N, C], labels and lengths as tensors [N].

    Returns None if there is nothing, or nothing of the model that the folder holds now. Raises
    UserError if the file is damaged.
    """
    path = Path(folder, f"answers-{role}.json")
    try:
        record = read_json(path)
        if record["weights"] != model_digest(folder):
            return None
        logits = torch.tensor(record["logits"], dtype=torch.float32)  # [N, C]
        labels, lengths = (torch.tensor(record[name]) for name in ("labels", "lengths"))  # [N]
        n, classes = logits.shape
        mistakes = {int(row): str(text) for row, text in record["mistakes"].items()}
        fits = n > 0 and classes > 1 and bool(logits.isfinite().all())
        fits &= labels.shape == lengths.shape == (n,)
        fits &= labels.dtype == lengths.dtype == torch.int64
        fits &= 0 <= labels.min() <= labels.max() < classes and lengths.min() > 0
        fits &= set(mistakes) <= set(range(n)) and {"subset", "windows"} <= set(record)
        fits &= type(record.setdefault("max_length", None)) in (int, type(None))
        if not fits or not all(isinstance(record[key], str) for key in ("reviews", "precision")):
            raise ValueError("its lists do not fit together")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{path} is damaged ({reason}): delete it and evaluate again") from error
    return record | {"logits": logits, "labels": labels, "lengths": lengths, "mistakes": mistakes}


def read_figures(path, *names):
    """[correct, n] out of a file of figures, at record[name][name]...: whole numbers that fit.

    path: of evaluate.py --results or extras.baseline --results. Raises UserError.
    """
    try:
        found = read_json(path)
        for name in names:
            found = found[name]
        correct, n = found["correct"], found["n"]
        if not (type(correct) is type(n) is int and 0 <= correct <= n > 0):
            raise ValueError(f"{correct} of {n}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} holds no figures of --results ({error})") from error
    return correct, n


def command_line(run):
    """The command that makes a run again, but for --out. run: its run.json."""
    arguments = run["arguments"]
    usual = vars(parse_arguments("", ["--demo"] if arguments["demo"] else []))
    # What is found without being typed. (Runs of before noted no recipe: it was this rate.)
    usual |= {"text_column": "text", "label_column": "label"}
    usual |= run.get("recipe", {} if arguments["demo"] else {"lr": USUAL_RATE})
    words = ["python", "finetune.py"] + ["--demo"] * arguments["demo"]
    for name, value in arguments.items():
        # The rehearsal makes its own model, in --out, and has its own reviews, wherever they lie.
        made = arguments["demo"] and os.path.basename(str(value)) in ("untrained", "demo_reviews")
        same = value is None or value == usual.get(name)
        if name in usual and not same and name not in ("out", "resume") and not made:
            option = f"--{name.replace('_', '-')}"
            given = [f"{option}={value}"] if str(value)[:1] == "-" else [option, str(value)]
            words += [option] if value is True else given
    return shlex.join(words)
