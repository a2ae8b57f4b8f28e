"""Appendix R: what a model answered, kept.

Teaches   to keep each answer and not only the share that was right: whoever asks the next question
          (is it worse on long reviews? how sure is it when it is wrong?) need not wait again.
Order     beside evaluate.py and finetune.py, which write these files; report.py reads them.
Run       python answers.py model
Expect    which splits have been answered, how many reviews of each, and the accuracy.
Shows     $ python answers.py demo
          validation 290 of 300 right, 96.67%
          test       389 of 400 right, 97.25%

Files     answers-validation.json, answers-test.json in a model's folder: logits, labels, lengths
          predictions.csv      of --save: text, label, predicted, score, for people and --compare
          results.json         of --results: how the model was made, and its figures, for programs
"""

import contextlib
import csv
import hashlib
import io
import json
import os
from pathlib import Path

import torch

from errors import UserError, make_parser, run_command
from folder import read_json, seen_from_here, write_whole
from rows import file_digest

MISTAKES = 20  # so many of the surest are kept with their texts


def save_predictions(path, rows):
    """Write rows of (text, label, predicted, score) as CSV, whole or not at all."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["text", "label", "predicted", "score"])
    writer.writerows(rows)
    write_whole(path, buffer.getvalue())


def save_results(path, run, evaluated):
    """Write how a model was made (run.json) and how it did."""
    # Whoever reads it elsewhere has other folders: paths are written as seen from here.
    arguments = {
        name: seen_from_here(value) if isinstance(value, str) and os.path.isabs(value) else value
        for name, value in run["arguments"].items()
    }
    record = {"run": run | {"arguments": arguments}, "evaluated": evaluated}
    write_whole(path, json.dumps(record, indent=1) + "\n")


def surest_mistakes(logits, labels):
    """Row numbers of the wrong answers, the surest first. logits: [N, C]; labels: N numbers."""
    scores, predicted = logits.softmax(dim=-1).max(dim=-1)  # [N], [N]
    wrong = (predicted != torch.as_tensor(labels)).nonzero()[:, 0]
    return wrong[scores[wrong].argsort(descending=True, stable=True)].tolist()


def keep_answers(folder, split, logits, labels, lengths, texts, how):
    """Write answers-<split>.json into a model's folder, if it does not know of more reviews.

    logits: [N, C]. lengths: tokens of each whole review, before truncation. how: a dict of what
    else a reader has to know: subset, windows, precision. Returns why they were not kept, or None.
    """
    with contextlib.suppress(UserError):  # damaged: write it anew
        before = read_answers(folder, split)
        if before and len(before["labels"]) > len(labels):
            return "answers not kept for report.py: it has those of more reviews"
    reviews = json.dumps([list(texts), list(labels)]).encode()
    record = (
        how
        | {
            # A folder may get another model. Answers that are not its own must not speak for it.
            "weights": file_digest(Path(folder, "model.safetensors")),
            "reviews": hashlib.sha256(reviews).hexdigest()[:16],  # two models' answers to the same?
            "labels": list(labels),
            "lengths": list(lengths),
            "logits": [[round(value, 4) for value in row] for row in logits.tolist()],
            "mistakes": {row: texts[row] for row in surest_mistakes(logits, labels)[:MISTAKES]},
        }
    )
    try:
        write_whole(Path(folder, f"answers-{split}.json"), json.dumps(record) + "\n")
    except UserError as error:  # somebody else's folder: no reason to lose the evaluation
        return f"answers not kept for report.py: {error}"
    return None


def read_answers(folder, split):
    """What keep_answers() wrote, logits as a tensor [N, C], labels and lengths as tensors [N].

    Returns None if there is nothing, or nothing of the model that the folder holds now. Raises
    UserError if the file is damaged.
    """
    path = Path(folder, f"answers-{split}.json")
    try:
        record = read_json(path)
        if record["weights"] != file_digest(Path(folder, "model.safetensors")):
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

    path: of evaluate.py --results or baseline.py --results. Raises UserError.
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


def main():
    parser = make_parser(__doc__)
    parser.add_argument("folder", nargs="?", default="model", help="of a model (default: model)")
    folder = parser.parse_args().folder
    for split in ("validation", "test"):
        found = read_answers(folder, split)
        if found is None:
            print(f"{split:10} not answered: python evaluate.py --model {folder} --split {split}")
        else:
            right = (found["logits"].argmax(dim=-1) == found["labels"]).sum().item()
            n = len(found["labels"])
            print(f"{split:10} {right:,} of {n:,} right, {right / n:.2%}")


if __name__ == "__main__":
    run_command(main)
