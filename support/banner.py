"""What follows from the arguments, printed before it costs any time."""

import random


def print_plan(args, run, group_sizes, steps, phases):
    """Print the banner of a run.

    run: see saved.describe_run(), with "shares" of describe_lengths(). group_sizes: how many
    weights are decayed, and how many not. steps: optimizer steps in an epoch. phases: [(title,
    {part: (parameters, of them trainable)}), ...], in the order in which they train.
    """
    device, splits, shares = run["device"], run["splits"], run["shares"]
    model_size = sum(group_sizes)
    print(f"\nmodel      {args.model}: {model_size:,} parameters")
    print(f"device     {device['type']} ({device['name']}): {device['reasons']['device']}")
    print(f"precision  {device['precision']}: {device['reasons']['precision']}")
    for role in ("train", "validation", "test"):
        classes = ", ".join(f"{count:,} {name}" for name, count in splits[role]["classes"].items())
        print(f"{role:10} {splits[role]['reviews']:,} reviews ({classes})")
    for note in run["notes"]:
        print(f"{'':10} {note}")
    n = splits["validation"]["reviews"]
    if n < 100:
        print(
            f"{'':10} warning: {n} validation reviews are few: one of them is {1 / n:.1%} of the "
            "accuracy, so which epoch is best, and is kept, is much a matter of luck"
        )
    print(
        f"length     {args.max_length} tokens, {args.truncation}: cuts "
        f"{shares['reviews_cut']:.1%} of the train reviews, and {shares['tokens_cut']:.1%} of all "
        "their tokens"
    )
    print(
        f"padding    {shares['padding']:.1%} of all cells ({shares['padding_ungrouped']:.1%} if "
        "batches were not grouped by length)"
    )
    print(
        f"batch      {args.batch_size} reviews x {args.accumulate} accumulated = "
        f"{args.batch_size * args.accumulate} to an optimizer step; {steps:,} steps an epoch, "
        f"{steps * args.epochs:,} in all; the rate rises for the first {args.warmup:.0%} of "
        f"{'each phase' if len(phases) > 1 else 'them'}"
    )
    print(
        f"decay      {args.weight_decay} on the {group_sizes[0]:,} parameters in matrices, none on "
        f"the {group_sizes[1]:,} in vectors"
    )
    print(f"\n{'what trains':16} {'parameters':>12}" + "".join(f"{t:>16}" for t, _ in phases))
    for part, (size, _) in phases[0][1].items():
        states = ("trains" if counts[part][1] else "frozen" for _, counts in phases)
        print(f"{part:16} {size:>12,}" + "".join(f"{state:>16}" for state in states))
    sums = (sum(on for _, on in counts.values()) for _, counts in phases)
    print(f"{'all':16} {model_size:>12,}" + "".join(f"{total:>16,}" for total in sums) + "\n")


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
