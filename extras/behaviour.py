"""Does the model understand, or does it count words?

Teaches   that a high accuracy can rest on words alone. So ask sentences in families, each of which
          needs one skill (behavioural tests: Ribeiro et al. 2020, "Beyond Accuracy"). The sixty of
          behaviour.tsv are few: a row tells where to look, and measures little.
After     evaluate.py.
Run       python -m extras.behaviour --model model
          python -m extras.behaviour --pairs pairs.tsv      a review and a changed one, in pairs
Expect    a row for each family: how many are right, and the surest mistake. With --pairs, a file
          of the columns original, original_label, changed, changed_label: how many originals,
          changed ones, and whole pairs are right.
Shows     $ python -m extras.behaviour --model demo
          family             right   the surest mistake
          ...
          all              41 of 61
"""

import json
from pathlib import Path

from dataset import clean, load_split
from model import choose_hardware
from support.devices import join, rank
from support.files import check_target, write_whole
from support.reading import read_rows
from support.hub import connect_to_hub
from support.tables import label_indices
from predict import Classifier
from support.errors import UserError, check_counts, make_parser, plain, run_command

SENTENCES = Path(__file__).with_suffix(".tsv")  # one family, one skill
NAMES = ["negative", "positive"]


def sentences():
    """[(family, sentence, 0 for negative or 1 for positive), ...]"""
    rows = read_rows(SENTENCES, ("family", "label", "sentence"))
    return [(row["family"], row["sentence"], NAMES.index(row["label"])) for row in rows]


def print_behaviour(classify, names):
    """Ask all sentences, print a row for each family. classify: of a predict.Classifier.

    Returns {family: {"right": ..., "n": ...}}.
    """
    if names != NAMES:
        known = ", ".join(names)
        raise UserError(f"the sentences are negative or positive, and the model knows {known}")
    rows = sentences()
    answers = classify([sentence for _, sentence, _ in rows])
    found, wrong = {}, {}
    for (family, sentence, truth), (label, score) in zip(rows, answers):
        counts = found.setdefault(family, {"right": 0, "n": 0})
        counts["right"] += names[truth] == label
        counts["n"] += 1
        if names[truth] != label:
            wrong[family] = max(wrong.get(family, (0, "")), (score, sentence))
    print(f"\n{'family':15} {'right':>8}   the surest mistake")
    for family, counts in found.items():
        shown = "{:.3f}  {}".format(*wrong[family]) if family in wrong else "-"
        print(f"{family:15} {counts['right']:>3} of {counts['n']:<2}   {shown}")
    print(f"{'all':15} {sum(row['right'] for row in found.values()):>3} of {len(rows)}")
    return found


def read_pairs(path, names):
    """[(text, class number), ...] of a file of pairs: original, changed, original, changed, ...

    Its columns: original, original_label, changed, changed_label. Raises UserError.
    """
    wanted, texts, labels = ("original", "original_label", "changed", "changed_label"), [], []
    for row in read_rows(path, wanted):
        texts += [row["original"], row["changed"]]
        labels += [row["original_label"], row["changed_label"]]
    notes = []
    found = list(zip(texts, label_indices(labels, names, path, notes)))
    for note in notes:
        print(note)
    for number, (text, label) in enumerate(found):
        if label is None or not isinstance(text, str) or not clean(text):
            raise UserError(f"{path}, row {number // 2 + 1}: needs two texts and two labels")
    return found


def texts_of_training(run):
    """The texts that a model has learned from or that chose its epoch: of train and validation."""
    made = run["arguments"]
    if not made["data"]:
        print("note: this model does not say on what it was trained; it may know the originals")
        return set()
    connect_to_hub(made["data"])
    found = (load_split(run, role, subset=made["subset"])[0] for role in ("train", "validation"))
    return {text for split in found for text in split["texts"]}


def print_pairs(classify, names, path, known=()):
    """Score pairs of an original and a minimally changed review (Gardner et al. 2020).

    A model that reads words alone gets one of the two right; a pair counts when both are. known:
    cleaned texts of its training. It can have learned those by heart, so their pairs are left out.
    """
    asked, pairs = [], read_pairs(path, names)
    for original, changed in zip(pairs[::2], pairs[1::2]):
        asked += [original, changed] if clean(original[0]) not in known else []
    left_out = (len(pairs) - len(asked)) // 2
    if left_out:
        print(f"{left_out:,} pairs left out: their originals stand in train or validation")
    if not asked:
        raise UserError(f"{path}: the model was trained on all originals: nothing is left to ask")
    answers = classify([text for text, _ in asked])
    right = [names[truth] == label for (_, truth), (label, _) in zip(asked, answers)]
    originals, changed, n = right[::2], right[1::2], len(asked) // 2
    counts = {
        "originals right": sum(originals),
        "changed ones right": sum(changed),
        "both right": sum(map(min, originals, changed)),
    }
    print(f"\n{n:,} pairs")
    for title, count in counts.items():
        print(f"{title:20} {count:>6,}   {count / n:.1%}")
    wrong = [one for one, well in zip(asked, right) if not well]
    for text, truth in wrong[:1]:
        print(f"for example, is {names[truth]}: {plain(text)[:200]}")
    return counts | {"n": n, "left out": left_out}


def main():
    parser = make_parser(__doc__, "model results batch-size device precision", precision="fp32")
    parser.add_argument("--pairs", metavar="FILE.tsv", help="ask pairs instead of the sentences")
    args = parser.parse_args()
    check_counts(args, "batch_size")
    check_target(args.results, args.model, args.pairs or args.model)
    device, precision, _ = choose_hardware(args.device, args.precision)
    join(device)
    classifier = Classifier(args.model, device, precision, args.batch_size)
    record = {key: classifier.run[key] for key in ("arguments", "versions")}
    record["precision"], asked = precision, (classifier.classify, classifier.names)
    if args.pairs is not None:
        record["pairs"] = print_pairs(*asked, args.pairs, texts_of_training(classifier.run))
    else:
        record["families"] = print_behaviour(*asked)
    if args.results is not None and rank() == 0:
        write_whole(args.results, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
