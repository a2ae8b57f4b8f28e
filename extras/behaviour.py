"""Does the model understand, or does it count words?

Teaches   that a high accuracy can rest on words alone. So ask sentences in families, each of which
          needs one skill (behavioural tests: Ribeiro et al. 2020, "Beyond Accuracy"). Sixty
          sentences are few: a row tells where to look, and measures little.
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

from dataset import clean, load_splits
from model import choose_hardware
from support.devices import join, rank
from support.files import check_target, write_whole
from support.reading import read_rows
from support.hub import connect_to_hub
from support.tables import how_to_read, label_indices
from predict import Classifier
from support.errors import UserError, check_counts, make_parser, plain, run_command

# "+" in front of a positive sentence, "-" of a negative one. One family, one skill.
FAMILIES = {
    "plain words": """
        + A wonderful film from start to finish.
        - A dreadful film from start to finish.
        + I loved every minute of it.
        - I hated every minute of it.
        + The acting is superb and the story is moving.
        - The acting is wooden and the story is dull.""",
    "negation": """
        - The plot is not good.
        + The plot is not bad at all.
        - I can't say that I enjoyed it.
        + I can't find anything wrong with it.
        - Nobody in this cast can act.
        + There is never a dull moment.
        - It isn't funny, and it isn't clever.
        + You won't regret seeing it.""",
    "but-clauses": """
        - The pictures are lovely, but the film is a bore.
        + The beginning is slow, but then it becomes a masterpiece.
        - I wanted to like it, but it is simply bad.
        + It has its flaws, but I would watch it again tomorrow.
        - Although the cast is great, I was glad when it ended.
        + Although the budget was tiny, the result is brilliant.""",
    "swapped names": """
        + Anna Miller is brilliant as the detective.
        + Kofi Mensah is brilliant as the detective.
        + Yuki Tanaka is brilliant as the detective.
        - Anna Miller is terrible as the detective.
        - Kofi Mensah is terrible as the detective.
        - Yuki Tanaka is terrible as the detective.""",
    "typing errors": """
        + An absolutly wonderfull movie.
        - An absolutly terible movie.
        + i lovd it so much
        - such a borring waste of tiem
        + GREAT film!!! reccomend it to evryone
        - woorst thing i hav ever seen""",
    "ratings": """
        + 9/10
        - 2/10
        + I give it 10 out of 10.
        - I give it 1 out of 10.
        + Five stars.
        - One star, and only because zero is not possible.""",
    "comparisons": """
        - The book is so much better than this.
        + So much better than the book.
        - Compared with the first part, this one is a disappointment.
        + Compared with this one, all other thrillers are a disappointment.
        - I have seen home videos with better acting.
        + I have never seen better acting.""",
    "expectations": """
        + I expected nothing and got more than that.
        - I expected a comedy and got two hours of silence.
        + I thought it would be terrible, and I was wrong.
        - I thought it would be great, and I was wrong.
        + After all the bad reviews this was a pleasant surprise.
        - After all the good reviews this was a letdown.""",
    "sarcasm": """
        - Oh great, another two hours of my life that I will never get back.
        - What a triumph: I only fell asleep twice.
        - If you enjoy watching paint dry, this is your film.
        - The best part was when the lights came on again.
        - A real achievement, to make dinosaurs boring.""",
    "who says so": """
        - My friends adore it; I do not.
        + My friends hate it; I do not.
        - The critics praise it, and I have no idea why.
        + The critics tore it apart, and I have no idea why: it is lovely.
        - The hero is a good man in a bad film.
        + The villain is a horrible man in a marvellous film.""",
}


def sentences():
    """[(family, sentence, 0 for negative or 1 for positive), ...]"""
    rows = []
    for family, text in FAMILIES.items():
        for line in text.strip().splitlines():
            sign, _, sentence = line.strip().partition(" ")
            rows.append((family, sentence, int(sign == "+")))
    return rows


def print_behaviour(classify, names):
    """Ask all sentences, print a row for each family. classify: of a predict.Classifier.

    Returns {family: {"right": ..., "n": ...}}.
    """
    if names != ["negative", "positive"]:
        known = ", ".join(names)
        raise UserError(f"the sentences are negative or positive, and the model knows {known}")
    rows = sentences()
    answers = classify([sentence for _, sentence, _ in rows])
    print(f"\n{'family':15} {'right':>8}   the surest mistake")
    found = {}
    for family in FAMILIES:
        asked = [
            (names[truth] == label, score, sentence)
            for (own, sentence, truth), (label, score) in zip(rows, answers)
            if own == family
        ]
        wrong = [(score, sentence) for well, score, sentence in asked if not well]
        n, right = len(asked), len(asked) - len(wrong)
        found[family] = {"right": right, "n": n}
        shown = "{:.3f}  {}".format(*max(wrong)) if wrong else "-"
        print(f"{family:15} {right:>3} of {n:<2}   {shown}")
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
    how = how_to_read(made, {}, same=True) | {"keep_shares": made.get("keep_shares", False)}
    known = run["labels"], run.get("numbers")
    splits, *_ = load_splits(made["data"], made["seed"], made["subset"], *known, **how)
    return {text for role in ("train", "validation") for text in splits[role]["texts"]}


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
    if args.results is not None:
        check_target(args.results, args.model, args.pairs or args.model)
    device, precision, _ = choose_hardware(args.device, args.precision)
    join(device)
    classifier = Classifier(args.model, device, precision, args.batch_size)
    record = {key: classifier.run[key] for key in ("arguments", "versions")}
    record["precision"] = precision
    if args.pairs is not None:
        known = texts_of_training(classifier.run)
        asked = classifier.classify, classifier.names, args.pairs, known
        record["pairs"] = print_pairs(*asked)
    else:
        record["families"] = print_behaviour(classifier.classify, classifier.names)
    if args.results is not None and rank() == 0:
        write_whole(args.results, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
