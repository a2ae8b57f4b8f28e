"""Appendix X: what follows from the arguments.

Teaches   to look, before a run costs hours, at what its arguments lead to: which device and number
          format, what truncation cuts, what padding adds, how many steps, and which weights learn.
Order     beside plan.py; finetune.py prints it before step one.
Run       python finetune.py --demo --sanity
Expect    the banner, and then four questions instead of training.
"""

import random

from dataset import cut_shares, make_batches, padding_share
from errors import make_parser, run_command
from model import set_trainable


def print_plan(args, run, model, groups, steps, full_lengths):
    """Print everything that follows from the arguments, before it costs any time.

    What it finds out about the lengths goes into `run`, as "shares".
    groups: AdamW's parameter groups. steps: optimizer steps in an epoch. full_lengths: tokens of
    each train review before truncation.
    """
    device, splits = run["device"], run["splits"]
    print(f"\nmodel      {args.model}: {sum(p.numel() for p in model.parameters()):,} parameters")
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

    shares = run["shares"] = describe_lengths(args, full_lengths)
    print(
        f"length     {args.max_length} tokens, {args.truncation}: cuts "
        f"{shares['reviews_cut']:.1%} of the train reviews, and {shares['tokens_cut']:.1%} of all "
        "their tokens"
    )
    print(
        f"padding    {shares['padding']:.1%} of all cells ({shares['padding_ungrouped']:.1%} if "
        "batches were not grouped by length)"
    )
    phases = "each phase" if 0 < args.head_epochs < args.epochs else "them"
    print(
        f"batch      {args.batch_size} reviews x {args.accumulate} accumulated = "
        f"{args.batch_size * args.accumulate} to an optimizer step; {steps:,} steps an epoch, "
        f"{steps * args.epochs:,} in all; the rate rises for the first {args.warmup:.0%} of "
        f"{phases}"
    )
    sizes = [sum(p.numel() for p in group["params"]) for group in groups]
    print(
        f"decay      {args.weight_decay} on the {sizes[0]:,} parameters in matrices, none on the "
        f"{sizes[1]:,} in vectors"
    )
    print_what_trains(args, model)


def describe_lengths(args, full_lengths):
    """What truncation cuts from the train reviews, and what padding adds: a dict of shares."""
    reviews_cut, tokens_cut = cut_shares(full_lengths, args.max_length)
    lengths = [min(length, args.max_length) for length in full_lengths]
    grouped = make_batches(lengths, args.batch_size, args.seed, epoch=0)
    rows = [row for batch in grouped for row in batch]
    random.Random(args.seed).shuffle(rows)
    mixed = [rows[i : i + args.batch_size] for i in range(0, len(rows), args.batch_size)]
    return {
        "reviews_cut": reviews_cut,
        "tokens_cut": tokens_cut,
        "padding": padding_share(lengths, grouped),
        "padding_ungrouped": padding_share(lengths, mixed),
    }


def print_what_trains(args, model):
    """A table of the model's parts: how large, and in which epochs they learn.

    (It asks set_trainable(), which sets what it reports; train() sets it again for each epoch.)
    """
    head_epochs = min(args.head_epochs, args.epochs)
    columns = []
    if head_epochs:
        columns.append((f"epochs 1-{head_epochs}", set_trainable(model, 0)))
    if head_epochs < args.epochs:
        columns.append(
            (f"epochs {head_epochs + 1}-{args.epochs}", set_trainable(model, args.train_layers))
        )
    print(
        f"\n{'what trains':16} {'parameters':>12}" + "".join(f"{title:>16}" for title, _ in columns)
    )
    for part, (size, _) in columns[0][1].items():
        states = ("trains" if counts[part][1] else "frozen" for _, counts in columns)
        print(f"{part:16} {size:>12,}" + "".join(f"{state:>16}" for state in states))
    print(
        f"{'all':16} {sum(p.numel() for p in model.parameters()):>12,}"
        + "".join(f"{sum(on for _, on in counts.values()):>16,}" for _, counts in columns)
        + "\n"
    )


def main():
    make_parser(__doc__).parse_args()
    print("python finetune.py --demo --sanity")


if __name__ == "__main__":
    run_command(main)
