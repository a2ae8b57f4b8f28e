"""Learn from unlabelled reviews: a first model answers them, a second one learns from its answers.

Run       python -m docs.results.unlabelled 250 --seed 42
          (after pip install -r requirements-dev.txt)
Expect    a first model, trained on so many labelled reviews; its answers to unlabelled ones, of
          which IMDB brings 50,000; a second model, trained on the same labelled reviews and on the
          answers that the first one was sure of; its test accuracy. All lies in the folder
          recorded/, and goes on there. With --results FILE the figures as a file.

This is self-training (pseudo-labels: Lee 2013), with the commands that anybody can type: predict.py
--file, and finetune.py.
"""

import argparse
import csv
import json
import random
from pathlib import Path

from datasets import load_dataset

from dataset import clean, draw, draw_rules, load_splits, take
from docs.results.record import FEW, MINILM, MODELS, RUNS, UNLABELLED
from docs.results.record import forget_folders, module, rights_of
from extras.trial import train
from support.files import read_json, write_whole

DATA = "stanfordnlp/imdb"
OFFERED = 4000  # unlabelled reviews for the first model to answer
SURE = 0.95  # the probability of an answer that is kept, at least


def write_table(path, texts, labels=None):
    """A CSV file with a row for each text, as finetune.py and predict.py read it."""
    rows = zip(texts, labels) if labels else zip(texts)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"] if labels else ["text"])
        writer.writerows(rows)


def write_tables(folder, size, seed):
    """Write down validation and test reviews in the folder, and the unlabelled ones beside it.

    Returns the labelled train reviews as (texts, names of their labels).
    """
    splits, names, _, _ = load_splits(DATA, seed=seed)
    known = {text for split in splits.values() for text in split["texts"]}
    drawn = {}
    for role, many in (("train", size), ("validation", size), ("test", FEW)):  # as --subset draws
        rows = draw(splits[role]["labels"], many, *draw_rules(role, seed))
        some = take(splits[role], rows)
        drawn[role] = some["texts"], [names[label] for label in some["labels"]]
    for role in ("validation", "test"):
        write_table(folder / f"{role}.csv", *drawn[role])
    # Some films have several reviews with the same words. A copy of a test review would be learned
    # from, a copy of a labelled one would only be read twice.
    texts = dict.fromkeys(map(clean, load_dataset(DATA, split="unsupervised")["text"]))
    new = [text for text in texts if text and text not in known]
    write_table(f"{folder}.csv", random.Random(seed).sample(new, OFFERED))
    return drawn["train"]


def keep_sure(answers):
    """(texts, labels) of the sure ones among the answers, a file of predict.py."""
    with open(answers, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["error"]]
    kept = [row for row in rows if float(row["score"]) >= SURE]
    return [row["text"] for row in kept], [row["predicted"] for row in kept]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", type=int, choices=UNLABELLED, help="labelled reviews")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()

    name = UNLABELLED[args.size]
    first = MODELS / f"{name}-{args.seed}"
    train([*RUNS[name].split(), f"--seed={args.seed}"], first, lambda epoch, figures: None)
    folder = MODELS / f"unlabelled-{args.size}-{args.seed}-data"
    folder.mkdir(exist_ok=True)
    texts, labels = write_tables(folder, args.size, args.seed)
    answers = Path(f"{folder}-answers.csv")
    if not answers.exists():  # or it is still unfinished
        words = ["--file", f"{folder}.csv", "--out", answers, "--resume"]
        module("predict.py", "--model", first, *words)
    more_texts, more_labels = keep_sure(answers)
    write_table(folder / "train.csv", texts + more_texts, labels + more_labels)

    second = MODELS / f"unlabelled-{args.size}-{args.seed}"
    words = [*MINILM.split(), "--data", str(folder), "--epochs=3", f"--seed={args.seed}"]
    train(words, second, lambda epoch, figures: None)
    kept = [Path(f"{second}.{kind}") for kind in ("json", "csv")]
    asked = ["--data", DATA, "--subset", FEW, "--results", kept[0], "--save", kept[1]]
    module("evaluate.py", "--model", second, *asked)
    found = read_json(kept[0])
    found["evaluated"]["right"] = rights_of(kept[1])
    forget_folders(found["run"]["arguments"])
    found["unlabelled"] = {
        "labelled": len(texts),
        "answered": OFFERED,
        "kept": len(more_texts),
        "kept_by_label": {label: more_labels.count(label) for label in sorted(set(more_labels))},
        "sure": SURE,
    }
    print(json.dumps(found["unlabelled"] | found["evaluated"]["figures"]))
    if args.results:
        write_whole(args.results, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
