"""What is said of data and runs: what was understood, the plan, and a line for each epoch."""

import random
import shlex
from collections import Counter

from support.errors import plain, show
from support.tables import HOW, find_label_names, label_indices, load_source

FEW = 10  # rows of a class: too few to learn it, or to measure how well it is told


# ------------------------------------------------------------------------------ 1. data
def show_data(args, load_splits):
    """Print what was understood of --data, on one screen: columns, classes, rows, and what next.

    args: of dataset.py. load_splits: dataset.load_splits(). A million rows take seconds: their
    texts go to a temporary file.
    """
    how = {name: getattr(args, name) for name in HOW}
    source = load_source(args.data, clean=str.strip, **how)
    show("data", args.data + f": {source.form}" * bool(source.form))
    show("columns", f"texts in {source.text_column!r}, labels in {source.label_column!r}")
    names, total = None, 0
    for role, (texts, labels) in source.splits.items():
        names = names or find_label_names(labels, args.labels, source.classes)
        indices = label_indices(labels, names, role, source.notes, args.labels, source.classes)
        counts, total = Counter(indices), total + len(labels)
        classes = counted({name: counts[c] for c, name in enumerate(names)})
        empty = sum(size == 0 for size in texts.sizes())
        without = f"; {counts[None]:,} without a label" * bool(counts[None])
        without += f"; {empty:,} without a text" * bool(empty)
        title = "rows" if len(source.splits) == 1 else role
        show(title, f"{len(labels):,}: {classes}{without}")
        first = {}  # of three labels, in the order of the rows
        for text, label in zip(texts, labels):
            first.setdefault(label, text)
            if len(first) == 3:
                break
        for label, text in first.items():
            text = plain(text)
            text = text if len(text) <= 52 else f"{text[:50]} ..."
            label = "(no label)" if label in (None, "") else plain(str(label))[:12]
            print(f"{'':11}{label}: {text}")
        rare = [name for c, name in enumerate(names) if counts[c] < FEW]
        if rare and role == "train":
            more = f" and {len(rare) - 5} others" if len(rare) > 5 else ""
            show("warning", f"fewer than {FEW} rows: {', '.join(rare[:5])}{more}: hard to learn")
        if counts[None] > len(labels) / 2:
            show("warning", "most rows have no label: is it the right column? See --label-column")
    if all(name.lstrip("-").isdecimal() for name in names):
        say = ",".join(f"{name}=..." for name in names[:2])
        show("classes", f"numbers; to give them names: --labels={say}")
    for note in source.notes:
        show("read as", note)
    if total <= 100_000:
        splits, _, notes, _ = load_splits(args.data, args.seed, args.subset, **how)
        print()
        for role in ("train", "validation", "test"):
            n = len(splits[role]["labels"])
            show(role, f"{n:,} reviews, as finetune.py would divide them")
        for note in [note for note in notes if note not in source.notes]:
            show("", note)
    words = [f"--{name.replace('_', '-')}={shlex.quote(how[name])}" for name in how if how[name]]
    words = [word.replace("--header=yes", "--header").replace("--header=no", "--no-header")
             for word in words]
    command = " ".join(["python finetune.py --data", shlex.quote(args.data), *words, "--out mine"])
    print(f"\nnext       {command}")


def counted(classes, most=10):
    """How many reviews there are of each class, in words. classes: {name: count}, in order."""
    least, largest = min(classes, key=classes.get), max(classes, key=classes.get)
    if len(classes) > most:
        ends = f"from {classes[least]:,} ({least}) to {classes[largest]:,} ({largest})"
        equal = classes[least] == classes[largest]
        return f"{len(classes):,} classes, {f'{classes[least]:,} each' if equal else ends}"
    if any(name[:1].isdecimal() for name in classes):  # "3: 20" and not "20 3"
        return ", ".join(f"{name}: {count:,}" for name, count in classes.items())
    return ", ".join(f"{count:,} {name}" for name, count in classes.items())


def describe_draw(subset, labels, drawn, names, equal):
    """What a draw from train changes, as notes. labels: of all rows; drawn: of those drawn."""
    if subset > len(labels):
        return [f"train: --subset {subset:,} is more than there is, using all"]
    size, now = Counter(labels), Counter(drawn)
    most, least = max(size, key=size.get), min(size, key=size.get)
    if not equal or size[most] < 1.2 * size[least]:
        return []
    return [
        f"train: drawn equally, {now[most]:,} {names[most]} and {now[least]:,} {names[least]} of "
        f"{size[most]:,} and {size[least]:,}; --keep-shares keeps the shares of the file"
    ]


# ------------------------------------------------------------------------------ 2. a run
def print_plan(args, run, group_sizes, steps, phases):
    """Print the banner of a run; with --verbose all of it.

    run: see runs.describe_run(), with "shares" of describe_lengths(), and "head", where that
    comes from. group_sizes: how many weights are decayed, and how many not. steps: optimizer
    steps in an epoch. phases: [(title, {part: (parameters, of them trainable)}), ...], in the order
    in which they train.
    """
    device, splits, shares = run["device"], run["splits"], run["shares"]
    model_size = sum(group_sizes)
    head = "" if args.resume else f"; {run['head']}"  # else it is about to get other weights
    show("model", f"{args.model}, {model_size:,} parameters{head}")
    show("device", f"{device['type']} ({device['name']}), {device['reasons']['device']}")
    show("precision", f"{device['precision']}, {device['reasons']['precision']}")
    print()
    for role in ("train", "validation", "test"):
        show(role, f"{splits[role]['reviews']:,} reviews ({counted(splits[role]['classes'])})")
    for note in run["notes"]:
        show("", note)
    n = splits["validation"]["reviews"]
    if n < 100:
        luck = f"one of them is {1 / n:.1%} of the accuracy, so which epoch is kept is much luck"
        show("warning", f"{n} validation reviews are few: {luck}")
    print()
    cuts = f"cuts {shares['reviews_cut']:.1%} of the reviews, {shares['tokens_cut']:.1%} of all"
    show("length", f"{args.max_length} tokens, {args.truncation}: {cuts} tokens")
    each = f"{args.batch_size * args.accumulate} reviews each"
    each += f" in {args.accumulate} micro-batches" if args.accumulate > 1 else ""
    show("steps", f"{steps:,} an epoch, of {each}; {steps * args.epochs:,} in all")
    if args.verbose:
        padding, mixed = shares["padding"], shares["padding_ungrouped"]
        show("padding", f"{padding:.1%} of all cells; {mixed:.1%} if batches were not grouped")
        matrices, vectors = group_sizes
        on = f"on the {matrices:,} parameters in matrices, none on the {vectors:,} in vectors"
        show("decay", f"{args.weight_decay} {on}")
    sums = [sum(on for _, on in counts.values()) for _, counts in phases]
    if args.verbose or min(sums) < model_size:  # all of it trains, where nothing is said
        print(f"\n{'what trains':16} {'parameters':>12}" + "".join(f"{t:>16}" for t, _ in phases))
        for part, (size, _) in phases[0][1].items():
            states = ("trains" if counts[part][1] else "frozen" for _, counts in phases)
            print(f"{part:16} {size:>12,}" + "".join(f"{state:>16}" for state in states))
        print(f"{'all':16} {model_size:>12,}" + "".join(f"{total:>16,}" for total in sums))


def print_epoch(line, seconds, best, header):
    """A line of the table of epochs. line: of history.jsonl. seconds: of training.

    best: whether it is the best so far, and so was kept. header: whether to print that first.
    """
    if header:
        print("\nepoch  train loss  validation loss  accuracy  macro F1    time")
    figures = line["validation"]
    print(
        f"{line['epoch']:5}  {line['train_loss']:10.4f}  {figures['loss']:15.4f}  "
        f"{figures['accuracy']:8.2%}  {figures['macro_f1']:8.2%}  {in_words(seconds):>6}  "
        f"{'best so far' if best else ''}".rstrip()
    )


def describe_lengths(lengths, max_length, batches, seed):
    """What truncation cuts and what padding adds: a dict of shares, from 0 to 1.

    lengths: tokens of each review before truncation. batches: lists of row numbers, of like length;
    for comparison the same rows are dealt at random as well.
    """
    cut = [length - max_length for length in lengths if length > max_length]
    rows, size = [row for batch in batches for row in batch], max(map(len, batches))
    random.Random(seed).shuffle(rows)
    mixed = [rows[i : i + size] for i in range(0, len(rows), size)]
    short = [min(length, max_length) for length in lengths]
    return {
        "reviews_cut": len(cut) / len(lengths),
        "tokens_cut": sum(cut) / sum(lengths),
        "padding": padding_share(short, batches),
        "padding_ungrouped": padding_share(short, mixed),
    }


def padding_share(lengths, batches):
    """The share of padding among all the cells [B, T] that the model has to compute, 0 to 1."""
    computed = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths[i] for batch in batches for i in batch) / computed


def in_words(seconds):
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
