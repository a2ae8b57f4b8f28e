"""What a run says: its plan, before it costs any time, and a line for each epoch."""

import random

from support.errors import show


def print_plan(args, run, group_sizes, steps, phases):
    """Print the banner of a run; with --verbose all of it.

    run: see saved.describe_run(), with "shares" of describe_lengths(), and "head", where that
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
        classes = ", ".join(f"{count:,} {name}" for name, count in splits[role]["classes"].items())
        show(role, f"{splits[role]['reviews']:,} reviews ({classes})")
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
