"""Appendix C: every knob, and what follows from it.

Teaches   what each argument of finetune.py does and why its default is what it is; and to look,
          before a run costs hours, at what the arguments lead to.
Order     after the five chapters, or beside finetune.py while you try things.
Run       python finetune.py --help
Expect    the knobs in groups, each with unit, default and reason.
"""

import random

import demo
from dataset import TRUNCATIONS, cut_shares, make_batches, padding_share
from errors import make_parser
from model import set_trainable


def parse_arguments(chapter, argv=None):
    """The command line. Every default has its reason in the help text."""
    parser = make_parser(chapter)
    group = parser.add_argument_group("the texts")
    add = group.add_argument
    add(
        "--data",
        default="stanfordnlp/imdb",
        help="hub data set, file (.csv .tsv .jsonl .parquet), or folder "
        "with train.* and test.* (default: IMDB, 25,000 reviews to learn from and 25,000 to test)",
    )
    add("--text-column", default="text", help="column of the texts (default: text)")
    add("--label-column", default="label", help="column of the labels (default: label)")
    add(
        "--subset",
        type=int,
        help="train reviews to draw, equal per class; validation and test at most as "
        "many each (default: all; 2000 is a coffee break on a laptop)",
    )
    add(
        "--max-length",
        type=int,
        default=256,
        help="tokens kept of a review, [CLS] and [SEP] included "
        "(default: 256; time and memory grow faster than it does)",
    )
    add(
        "--truncation",
        choices=TRUNCATIONS,
        default="head+tail",
        help="what to keep of a longer review (default: head+tail; verdicts stand at the end)",
    )
    group = parser.add_argument_group("the model")
    add = group.add_argument
    add(
        "--model",
        default="distilbert-base-uncased",
        help="hub name or local folder (default: "
        "distilbert-base-uncased, most of BERT's accuracy in half its time)",
    )
    add(
        "--head-epochs",
        type=int,
        default=0,
        help="epochs at the start that train only the new head "
        "(default: 0; warm-up alone usually does)",
    )
    add(
        "--train-layers",
        type=int,
        help="encoder layers, from the top, that train after that; 0 for the "
        "head alone (default: everything trains; fewer layers are faster and learn less)",
    )
    group = parser.add_argument_group("the steps")
    add = group.add_argument
    add(
        "--epochs",
        type=int,
        default=2,
        help="passes over the train split (default: 2; on all of IMDB the third only overfits)",
    )
    add(
        "--batch-size",
        type=int,
        default=16,
        help="reviews in a micro-batch (default: 16; halve it when memory runs out)",
    )
    add(
        "--accumulate",
        type=int,
        default=1,
        help="micro-batches to an optimizer step (default: 1; double it "
        "when you halve the batch size, and the gradient stays the same)",
    )
    add(
        "--lr",
        type=float,
        default=5e-5,
        help="peak learning rate (default: 5e-5, the top of the range in "
        "Devlin et al. 2019; 1e-3 destroys the pretrained weights)",
    )
    add(
        "--warmup",
        type=float,
        default=0.1,
        help="share of the steps in which the rate rises (default: 0.1)",
    )
    add(
        "--weight-decay",
        type=float,
        default=0.01,
        help="AdamW's decay of matrices (default: 0.01, BERT's)",
    )
    add(
        "--clip",
        type=float,
        default=1.0,
        help="limit for the gradient's norm (default: 1.0, BERT's)",
    )
    add(
        "--seed",
        type=int,
        default=42,
        help="for the split, the draw, the new head, the order, and dropout "
        "(default: 42; change it to see how much of a result is luck)",
    )
    group = parser.add_argument_group("the choice")
    add = group.add_argument
    add(
        "--select",
        choices=("accuracy", "f1", "loss"),
        default="accuracy",
        help="validation figure that "
        "decides which epoch is kept (default: accuracy; f1 where one class is rare)",
    )
    add(
        "--patience",
        type=int,
        help="stop after so many epochs without a better one (default: never)",
    )
    group = parser.add_argument_group("the machine")
    add = group.add_argument
    add("--device", help="cpu, cuda, mps or xpu (default: the best there is)")
    add(
        "--precision",
        choices=("fp32", "bf16", "fp16", "auto"),
        default="auto",
        help="number format (default: auto, 16 bits where the hardware multiplies them natively)",
    )
    group = parser.add_argument_group("the result")
    add = group.add_argument
    add("--out", default="model", help="folder for the model (default: model; with --demo: demo)")
    add(
        "--demo",
        action="store_true",
        help="rehearse on made-up reviews with a tiny random model: a minute on a CPU, no network",
    )
    args = parser.parse_args(argv)
    if args.demo:  # other defaults, nothing else: what was typed on the command line still counts
        parser.set_defaults(**demo.DEFAULTS)
        args = parser.parse_args(argv)
        args.model = args.model or demo.untrained_folder(args.out)
    for name in ("epochs", "batch_size", "accumulate", "patience", "max_length"):
        lowest = 3 if name == "max_length" else 1  # [CLS], one token, [SEP]
        if getattr(args, name) is not None and getattr(args, name) < lowest:
            parser.error(
                f"--{name.replace('_', '-')} {getattr(args, name)}: has to be {lowest} or more"
            )
    if args.head_epochs < 0 or not args.lr > 0 or not args.clip > 0 or not 0 <= args.warmup < 1:
        parser.error(
            "--head-epochs has to be 0 or more, --lr and --clip over 0, --warmup from 0 to under 1"
        )
    return args


def print_plan(args, run, model, groups, steps, full_lengths):
    """Print everything that follows from the arguments, before it costs any time.

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
    for note in splits["notes"]:
        print(f"{'':10} {note}")

    reviews_cut, tokens_cut = cut_shares(full_lengths, args.max_length)
    print(
        f"length     {args.max_length} tokens, {args.truncation}: cuts {reviews_cut:.1%} of the "
        f"train reviews, and {tokens_cut:.1%} of all their tokens"
    )
    lengths = [min(length, args.max_length) for length in full_lengths]
    grouped = make_batches(lengths, args.batch_size, args.seed, epoch=0)
    rows = [row for batch in grouped for row in batch]
    random.Random(args.seed).shuffle(rows)
    mixed = [rows[i : i + args.batch_size] for i in range(0, len(rows), args.batch_size)]
    print(
        f"padding    {padding_share(lengths, grouped):.1%} of all positions "
        f"({padding_share(lengths, mixed):.1%} if batches were not grouped by length)"
    )
    print(
        f"batch      {args.batch_size} reviews x {args.accumulate} accumulated = "
        f"{args.batch_size * args.accumulate} to an optimizer step; {steps:,} steps an epoch, "
        f"{steps * args.epochs:,} in all, {int(args.warmup * steps * args.epochs):,} of them "
        "warm-up"
    )
    sizes = [sum(p.numel() for p in group["params"]) for group in groups]
    print(
        f"decay      {args.weight_decay} on the {sizes[0]:,} parameters in matrices, none on the "
        f"{sizes[1]:,} in vectors"
    )
    print_what_trains(args, model)


def print_what_trains(args, model):
    """A table of the model's parts: how large, and in which epochs they learn."""
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
