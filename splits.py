"""Chapter 2: three splits with three roles.

Teaches   how to divide reviews so that a good result is earned: what the model learns from, what
          chooses, what measures; and the two ways in which one of them leaks into another.
Order     after dataset.py; next is hardware.py. (sources.py, which reads the files, can wait.)
Run       python splits.py demo_reviews
          python splits.py stanfordnlp/imdb --subset 2000
Expect    how many reviews play which role, what was held out, dropped or drawn on the way, and two
          reviews of each.
Shows     $ python splits.py demo_reviews
          train: 1,320 negative, 1,320 positive
          ...
          validation: 150 negative, 150 positive
          validation: held out 300 train rows in blocks, 60 beside them unused
"""

import hashlib
import random
from collections import Counter
from pathlib import Path

from dataset import clean
from errors import UserError, make_parser, plain, run_command
from sources import find_label_names, label_index, load_source, load_table

TEST_SEED = 42  # of what is held out and drawn for the test, whatever the seed of the run


def load_splits(data, text_column="text", label_column="label", seed=42, subset=None, names=None):
    """Load a data set and divide it by role. Returns (splits, names, notes, fingerprint).

    splits: {"train": ..., "validation": ..., "test": ...}, each a dict of two equally long lists,
        "texts" (cleaned strings) and "labels" (class numbers).
        train       the model learns from it;
        validation  held out from train, unless the source brings its own; it alone decides which
                    epoch's model is kept;
        test        read at the very end. It chooses nothing, so it cannot flatter.
    names: the class names, found in the labels unless they are given (by a model trained before).
    notes: what was dropped, held out or drawn, one printable line each, opened by the split's name.
    fingerprint: tells evaluate.py whether the data is still what it was in training.
    data: see sources.load_source(). seed: of what is held out and drawn, but for test. subset: so
        many train rows, equal per class, and at most so many of validation and test; None for all.
    Raises UserError where the source cannot be read or its labels cannot be used.
    """
    if subset is not None and subset < 1:
        raise UserError(f"--subset {subset}: the number of reviews has to be 1 or more")
    notes, splits = [], {}
    found = load_source(data, text_column, label_column)
    names = names or find_label_names(found["train"][1])
    for role, (texts, labels) in found.items():
        splits[role] = usable_rows(texts, labels, names, role, notes)

    for role in ("test", "validation"):
        if role not in splits:
            hold_out(splits, role, draw_rules(role, seed)[0], notes)
    drop_copies(splits, notes)

    whole = fingerprint(splits)  # before the draw: the same whatever the subset
    for role in splits if subset is not None else ():
        labels = splits[role]["labels"]
        if role == "train" and subset > len(labels):
            notes.append(f"train: --subset {subset:,} is more than there is, using all")
        splits[role] = take(splits[role], draw(labels, subset, *draw_rules(role, seed)))
    return splits, names, notes, whole


def require_all_classes(splits, names, notes):
    """Raise UserError for a split without one of the classes: it can neither teach nor measure it.

    The classic way to get one is `select(range(1000))`: the first rows of IMDB are all negative.
    """
    for role, split in splits.items():
        absent = [name for c, name in enumerate(names) if c not in set(split["labels"])]
        if absent:
            why = "; ".join(["more data, or a larger --subset"] + [n for n in notes if role in n])
            raise UserError(
                f"the {role} split ({len(split['labels'])} reviews) has no "
                f"{' and no '.join(absent[:3])} review: it takes {why}"
            )


def fingerprint(splits):
    """16 letters that change when a text, a label, or the division of the data changes."""
    digest = hashlib.sha256()
    for role in sorted(splits):
        for text, label in zip(splits[role]["texts"], splits[role]["labels"]):
            digest.update(f"{role}\0{label}\0{text}\0".encode())
    return digest.hexdigest()[:16]


def usable_rows(texts, labels, names, role, notes):
    """Clean the texts, number the labels, and leave out the rows that lack one or the other.

    Raises UserError, with the number of the row, for a text or a label of no use to a classifier.
    """
    kept = {"texts": [], "labels": []}
    for row, (text, label) in enumerate(zip(texts, labels), start=1):
        missing = text is None or text != text  # nan, which tables write for a missing text
        if not missing and not isinstance(text, str):
            raise UserError(
                f"{role}, row {row}: {str(text)[:40]!r} is no text, but {type(text).__name__}"
            )
        try:
            label = label_index(label, names)
        except UserError as error:
            raise UserError(f"{role}, row {row}: {error}") from error
        text = "" if missing else clean(text)
        if text and label is not None:
            kept["texts"].append(text)
            kept["labels"].append(label)
    if len(kept["texts"]) < len(texts):
        dropped = len(texts) - len(kept["texts"])
        notes.append(f"{role}: dropped {dropped:,} rows with an empty or missing text or label")
    return kept


def hold_out(splits, role, seed, notes, share=0.1):
    """Move `share` of the train rows to a new split: one block of rows from each label.

    Why a block, and not the usual random rows? IMDB's rows are ordered by film: up to 30 reviews of
    one, then the next. Draw at random, and nearly all held-out reviews are about a film that is
    also in train. Most reviews of one film have the same label, so who recognises the film, and
    reads no word more, can guess most of them: such a validation split praises a model for knowing
    films (README, "The ideas", says by how much). A block holds whole films. Those at its two ends
    could still be shared, so the rows next to it are left out altogether. One letter a row, the
    letter being the film:

        rows of one label   A A A B B B B C C C D D D D E E E
        role                t t t t t g g v v v v v g g t t t     t train, v validation, g gap

    Film B and film D reach into the gaps, so neither is in both t and v. (A held-out film can still
    be in train under the other label, and then mislead: this validation may err on the low side.)
    Where the rows of a file are in no order, a block is as good as a draw.
    """
    train = splits["train"]
    generator = random.Random(f"{seed} {role}")  # random numbers of its own for each role
    kept, held = [], []
    for label in sorted(set(train["labels"])):
        rows = [i for i, other in enumerate(train["labels"]) if other == label]
        size = max(1, round(share * len(rows)))
        # 30 is the most reviews that IMDB has of one film. A small file cannot spare that many; it
        # gives a tenth of what is held out, and a film at the border may then be shared.
        gap = min(30, size // 10)
        start = generator.randint(0, len(rows) - size)
        held += rows[start : start + size]
        kept += rows[: max(0, start - gap)] + rows[start + size + gap :]
    skipped = len(train["labels"]) - len(kept) - len(held)
    notes.append(
        f"{role}: held out {len(held):,} train rows in blocks, {skipped:,} beside them unused"
    )
    splits[role], splits["train"] = take(train, sorted(held)), take(train, sorted(kept))


def drop_copies(splits, notes):
    """No text may stand on two sides: a copy in test is a leaked answer. The copy leaves train."""
    for role, others in (("validation", ["test"]), ("train", ["test", "validation"])):
        elsewhere = {text for other in others for text in splits[other]["texts"]}
        kept = [i for i, text in enumerate(splits[role]["texts"]) if text not in elsewhere]
        copies = len(splits[role]["texts"]) - len(kept)
        if copies:
            notes.append(
                f"{role}: dropped {copies:,} exact copies of {' or '.join(others)} reviews"
            )
        splits[role] = take(splits[role], kept)


def draw_rules(role, seed):
    """(seed, equal) for hold_out() and draw(), by the role of a split.

    Models of all seeds are tested on the same reviews. Else the deviation of their accuracies would
    be that of the draw as well, and no two of them could be compared.
    """
    return TEST_SEED if role == "test" else seed, role == "train"


def draw(labels, count, seed, equal):
    """Choose at most `count` row numbers at random; IMDB's first 12,500 rows are all negative.

    equal=True takes as many of each class (for training: the rarer class is not drowned out);
    equal=False keeps the classes' own shares (for a split whose result must speak for all rows).

    Every row gets a key, and the rows with the smallest keys are taken. With 6 negative rows (n)
    and 3 positive ones (p), to draw 6:
        equal       n 0 1 2 3 4 5            p 0 1 2           n p n p n p, one to one
        in shares   n .08 .25 .42 .58 ...    p .17 .50 .83     n p n n p n, two to one, as in all
    """
    order = list(range(len(labels)))
    random.Random(seed).shuffle(order)
    size, rank, keys = Counter(labels), Counter(), {}
    for i in order:
        keys[i] = rank[labels[i]] if equal else (rank[labels[i]] + 0.5) / size[labels[i]]
        rank[labels[i]] += 1
    return sorted(sorted(order, key=keys.get)[:count])


def take(split, rows):
    """The given rows of a split, as a split."""
    return {column: [values[i] for i in rows] for column, values in split.items()}


# ------------------------------------------------------------------------------ for a saved model
def load_split(
    run, split, data=None, text_column=None, label_column=None, subset=None, draw_seed=None
):
    """The reviews to evaluate on. Returns ({"texts": ..., "labels": ...}, notes).

    run: a model's run.json, as a dict. split: "train", "validation" or "test". data: None for what
    the model trained on. subset: so many reviews. draw_seed: instead of draw_rules()'s, to draw
    other ones.

    A file the model was not trained on is taken whole. Everything else is divided as in training,
    by the seed in run.json, so that "validation" means the rows that were held out then.
    """
    arguments, names = run["arguments"], run["labels"]
    data = data or arguments["data"]
    columns = text_column or arguments["text_column"], label_column or arguments["label_column"]
    if Path(data).is_file() and Path(data).resolve() != Path(arguments["data"]).resolve():
        notes = [f"{data}: all of its rows; those that training has read flatter the result"]
        chosen = usable_rows(*load_table(data, *columns), names, data, notes)
        if not chosen["texts"]:
            raise UserError(f"{data} has no row with a text and a label")
    else:
        splits, _, notes, now = load_splits(data, *columns, seed=arguments["seed"], names=names)
        chosen = splits[split]
        notes = [note for note in notes if note.startswith(split)]
        same = data == arguments["data"]
        same = same or Path(data).resolve() == Path(arguments["data"]).resolve()
        # Other columns divide one file otherwise; where it brings its own splits they do not.
        columns_kept = columns == (arguments["text_column"], arguments["label_column"])
        divided = any("held out" in note for note in notes)
        if same and now != run.get("data_fingerprint", now) and (columns_kept or divided):
            notes.append(
                f"warning: the {'data has' if columns_kept else 'columns have'} changed since "
                "training, and with it the division: reviews that were trained on may stand in "
                f"{split} now"
            )
        if not chosen["texts"]:
            raise UserError(f"the {split} split of {data} is empty: {'; '.join(notes)}")
    if subset is not None:
        if subset < 1:
            raise UserError(f"--subset {subset}: the number of reviews has to be 1 or more")
        seed, equal = draw_rules(split, arguments["seed"])
        seed = seed if draw_seed is None else draw_seed
        chosen = take(chosen, draw(chosen["labels"], subset, seed, equal))
    return chosen, notes


def main():
    parser = make_parser(__doc__)
    parser.add_argument("data", help="a file, a folder, or the name of a data set on the hub")
    parser.add_argument("--text-column", default="text", help="column of the texts")
    parser.add_argument("--label-column", default="label", help="column of the labels")
    parser.add_argument("--subset", type=int, help="reviews to draw (default: all)")
    parser.add_argument("--seed", type=int, default=42, help="another seed, another division")
    args = parser.parse_args()
    splits, names, notes, _ = load_splits(
        args.data, args.text_column, args.label_column, args.seed, args.subset
    )
    require_all_classes(splits, names, notes)
    for role, split in splits.items():
        counts = Counter(split["labels"])
        print(f"{role}: {', '.join(f'{counts[c]:,} {name}' for c, name in enumerate(names))}")
        for i in random.Random(args.seed).sample(range(len(split["labels"])), 2):
            print(f"    {names[split['labels'][i]]}: {plain(split['texts'][i])[:80]}")
    print("\n".join(notes))


if __name__ == "__main__":
    run_command(main)
