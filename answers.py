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
import io
import json
import os
import sys
from pathlib import Path

import torch

from errors import UserError, make_parser, run_command
from folder import read_json, write_whole
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
    """Write how a model was made (run.json, without the loss of every step) and how it did."""
    history = [
        {key: value for key, value in record.items() if key != "step_losses"}
        for record in run["history"]
    ]
    # Whoever reads it elsewhere has other folders: paths are written as seen from here.
    arguments = {
        name: os.path.relpath(value) if isinstance(value, str) and os.path.isabs(value) else value
        for name, value in run["arguments"].items()
    }
    run = run | {"history": history, "arguments": arguments}
    record = {"run": run, "evaluated": evaluated}
    write_whole(path, json.dumps(record, indent=1) + "\n")


def surest_mistakes(logits, labels):
    """Row numbers of the wrong answers, the surest first. logits: [N, C]; labels: N numbers."""
    scores, predicted = logits.softmax(dim=-1).max(dim=-1)  # [N], [N]
    wrong = (predicted != torch.as_tensor(labels)).nonzero()[:, 0]
    return wrong[scores[wrong].argsort(descending=True, stable=True)].tolist()


def keep_answers(folder, split, logits, labels, lengths, texts, how):
    """Write answers-<split>.json into a model's folder, if it does not know of more reviews.

    logits: [N, C]. lengths: tokens of each whole review, before truncation. how: a dict of what
    else a reader has to know: subset, windows, precision.
    """
    with contextlib.suppress(UserError):  # damaged: write it anew
        before = read_answers(folder, split)
        if before and len(before["labels"]) > len(labels):
            return
    record = how | {
        # A folder may get another model. Answers that are not its own must not speak for it.
        "weights": file_digest(Path(folder, "model.safetensors")),
        "labels": list(labels),
        "lengths": list(lengths),
        "logits": [[round(value, 4) for value in row] for row in logits.tolist()],
        "mistakes": {row: texts[row] for row in surest_mistakes(logits, labels)[:MISTAKES]},
    }
    try:
        write_whole(Path(folder, f"answers-{split}.json"), json.dumps(record) + "\n")
    except UserError as error:  # somebody else's folder: no reason to lose the evaluation
        print(f"(not kept for report.py: {error})", file=sys.stderr)


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
        record["logits"] = torch.tensor(record["logits"])  # [N, C]
        record["labels"] = torch.tensor(record["labels"])  # [N]
        record["lengths"] = torch.tensor(record["lengths"])  # [N]
        record["mistakes"] = {int(row): text for row, text in record["mistakes"].items()}
        if not len(record["logits"]) == len(record["labels"]) == len(record["lengths"]) > 0:
            raise ValueError("its lists are not equally long")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and evaluate again") from error
    return record


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
