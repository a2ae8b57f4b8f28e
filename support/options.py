"""The options of finetune.py: what each one does, and why its default is what it is.

run.json keeps all of them, and --resume compares them. So an option that may change between the
two parts of a stopped run has to be in FREE, and a new default changes what an old command does.
"""

import math
import os
import shlex
import sys
from argparse import ArgumentTypeError
from itertools import chain

from support import demo, hub
from support.errors import PRECISIONS, READING, TRUNCATIONS, add_options, make_parser
from support.runs import how_to_go_on, is_done, read_arguments
from support.saved import example

# The options that may differ on --resume. The model and the data may have moved to another place:
# what they hold is compared by fingerprints.
FREE = {"out", "resume", "overwrite", "save_every", "model", "data", "verbose"}

# Where nothing is typed, a run finds these out, and notes what it has found.
FOUND_OUT = {"text_column", "label_column", "epochs", "lr"}
USUAL_RATE, MANY = 5e-5, 20  # from so many classes on the rate is higher


def read_fold(text):
    """The text as it stands, if it is like 2/5: the number of a fold, from 1, and their count."""
    number, sign, folds = text.partition("/")
    if not (sign and number.isdecimal() and folds.isdecimal() and 1 <= int(number) <= int(folds)):
        raise ArgumentTypeError(f"{text!r}: write it like 2/5, the second of five")
    if int(folds) < 2:
        raise ArgumentTypeError(f"{text!r}: with one fold nothing is left to learn from")
    return f"{int(number)}/{int(folds)}"


# What a value has to be: its type, the lowest, the first that is too high, and that in words.
COUNT = int, 1, math.inf, "1 or more"
COUNT_OR_0 = int, 0, math.inf, "0 or more"
LENGTH = int, 3, math.inf, "3 or more"  # [CLS], one token and [SEP] are the shortest text
SEED = int, 0, 2**32, "from 0 to 4,294,967,295"
SHARE = float, 0, 1, "0 to under 1"
OVER_0 = float, math.ulp(0), math.inf, "a number over 0"
FROM_0 = float, 0, math.inf, "0 or more"
TEXT = str, None, None, ""
FOLD = read_fold, None, None, ""
SWITCH = bool, None, None, ""

# The option, what its value has to be, the default, the unit or the choices; what it does, and why
# the default is what it is.
OPTIONS = {
    "the texts": (
        ("--data", TEXT, "stanfordnlp/imdb", "NAME", "hub data set, or a file (.csv, .jsonl, "
         ".parquet, .xlsx, ...), or a folder with train.* and test.* "
         "(default: IMDB, 25,000 reviews to learn from and 25,000 to test)"),
        ("--subset", COUNT, None, "REVIEWS", "train reviews to draw, as many of each class; "
         "validation and test at most as many each "
         "(default: all; a subset shows in minutes what a full run does in hours)"),
        ("--keep-shares", SWITCH, False, None, "with --subset: draw train in its own shares "
         "(default: not, so that a rare class is not drowned out)"),
        ("--fold", FOLD, None, "NUMBER/ALL", "validation is this one of so many equal blocks, "
         "such as 2/5, and the rest trains (default: a tenth, at a place that --seed draws)"),
        ("--max-length", LENGTH, 256, "TOKENS", "tokens kept of a review, [CLS] and [SEP] included "
         "(default: 256; more of them lose less of the text, and take more time and memory)"),
        ("--truncation", TEXT, "head+tail", TRUNCATIONS, "what is kept of a longer review "
         "(default: head+tail; verdicts stand at the end)"),
    ),
    "the model": (
        ("--model", TEXT, "distilbert-base-uncased", "NAME", "hub name or local folder "
         "(default: distilbert-base-uncased, 40 %% smaller and 60 %% faster than BERT at 97 %% of "
         "its score, says Sanh et al. 2019)"),
        ("--head-epochs", COUNT_OR_0, 0, "EPOCHS", "at the start, train only the new head so long "
         "(default: 0; warm-up usually protects the pretrained layers well enough)"),
        ("--train-layers", COUNT_OR_0, None, "LAYERS", "after that, train the head and so many "
         "encoder layers from the top; 0: the head alone "
         "(default: everything trains; less is faster, takes less memory, and learns less)"),
        ("--dropout", SHARE, None, "SHARE", "of a layer's numbers, set to 0 at random in training "
         "(default: the checkpoint's own; DistilBERT's is 0.1, and 0.2 in its head)"),
        ("--attention-dropout", SHARE, 0.0, "SHARE", "the same for attention weights "
         "(default: 0; the usual 0.1 is slower on a CPU, and no better that we could measure)"),
    ),
    "the steps": (
        ("--epochs", COUNT, None, "EPOCHS", "passes over the train reviews "
         "(default: 2; more where these are not 300 steps, and 20 for each class)"),
        ("--batch-size", COUNT, 16, "REVIEWS", "reviews in a micro-batch "
         "(default: 16; halve it when memory runs out)"),
        ("--accumulate", COUNT, 1, "BATCHES", "micro-batches to an optimizer step "
         "(default: 1; double it when you halve the batch size, and as many reviews make a step)"),
        ("--lr", OVER_0, None, "RATE", "peak learning rate "
         "(default: 5e-5, the largest that Devlin et al. 2019 recommend; from 20 classes on 1e-4, "
         "and 2e-4 for small models; at 4e-4 BERT forgot all it knew, says Sun et al. 2019)"),
        ("--warmup", SHARE, 0.1, "SHARE", "share of the steps in which the rate rises "
         "(default: 0.1, as in BERT's published code)"),
        ("--weight-decay", FROM_0, 0.01, "RATE", "AdamW's pull of the matrices toward 0 "
         "(default: 0.01, as in Devlin et al. 2019)"),
        ("--clip", OVER_0, 1.0, "NORM", "largest norm of a gradient "
         "(default: 1.0, as in BERT's published code)"),
        ("--seed", SEED, 42, "NUMBER", "of what is held out, the draw (test reviews are the same "
         "for all seeds), the new head, the order and the dropout "
         "(default: 42; change it to see how much is luck)"),
    ),
    "the choice": (
        ("--select", TEXT, "accuracy", ("accuracy", "f1", "loss"), "validation figure that "
         "decides which epoch is kept "
         "(default: accuracy; f1, the mean over the classes, where one class is rare)"),
        ("--patience", COUNT, None, "EPOCHS", "stop after so many epochs without a better one "
         "(default: never)"),
    ),
    "the machine": (
        ("--device", TEXT, None, "NAME", "cpu, cuda, mps or xpu (default: the best there is)"),
        ("--precision", TEXT, "auto", PRECISIONS, "number format "
         "(default: auto, 16 bits where the hardware multiplies them natively)"),
        ("--compile", SWITCH, False, None, "let torch.compile make one program of the model first, "
         "which takes minutes (default: not; it is for GPUs and long runs, and gained nothing on "
         "the CPU it was tried on)"),
    ),
    "the result": (
        ("--out", TEXT, "model", "FOLDER", "where the model goes "
         "(default: model; with --demo: demo)"),
        ("--demo", SWITCH, False, None, "rehearse on made-up reviews with a tiny untrained model: "
         "no network, about a minute"),
        ("--save-every", FROM_0, 10, "MINUTES", "between two checkpoints, from which a stopped "
         "run goes on (default: 10; after each epoch there is one anyway)"),
        ("--resume", TEXT, None, "FOLDER", "go on with the run that was to make this folder, "
         "exactly as if it had never stopped; it knows its other options"),
        ("--verbose", SWITCH, False, None, "show more of the plan, and all that the libraries say "
         "(default: not what is known to be harmless, and looks like an alarm)"),
        ("--overwrite", SWITCH, False, None, "start over in a folder that holds a finished model "
         "or an unfinished run"),
    ),
}


def parse_arguments(chapter, argv=None):
    """The options as a Namespace. chapter: a docstring, for --help. argv: for tests.

    Raises UserError for a value that cannot work.
    """
    parser = make_parser(chapter)
    for title, options in OPTIONS.items():
        group = parser.add_argument_group(title)
        for flag, kind, default, unit, why in options:
            if kind is SWITCH:
                group.add_argument(flag, action="store_true", help=why)
            else:
                what = {"choices" if isinstance(unit, tuple) else "metavar": unit}
                group.add_argument(flag, type=kind[0], default=default, help=why, **what)
        if title == "the texts":
            add_options(parser.add_argument_group("how they are read"), READING)
    args = parser.parse_args(argv)
    if args.resume is not None:
        if args.overwrite:
            parser.error("--resume goes on with a run, --overwrite starts over: not both")
        argv = resumed_words(parser, args.resume, sys.argv[1:] if argv is None else argv)
        args = parser.parse_args(argv)
    if args.demo:  # other defaults and nothing else: what was typed still counts
        parser.set_defaults(**demo.DEFAULTS)
        args = parser.parse_args(argv)
        args.model = args.model or demo.untrained_folder(os.path.normpath(args.out))
    for flag, (_, low, high, words), *_ in chain(*OPTIONS.values()):
        value = getattr(args, flag[2:].replace("-", "_"))
        if words and value is not None and not low <= value < high:  # nan is out of every range
            parser.error(f"{flag} {value}: has to be {words}")
    if not args.out.strip():
        parser.error("--out is empty: name a folder")
    hub.VERBOSE = args.verbose
    args.out = os.path.normpath(args.out)  # "model/" is "model"
    if os.path.exists(args.data):  # so that evaluate.py finds the same file, wherever it is started
        args.data = os.path.abspath(args.data)
    if os.path.isdir(args.model) and not args.demo:
        args.model = os.path.abspath(args.model)
    return args


def choose_recipe(args, steps, classes, width, notes):
    """Set --epochs and --lr where they were not typed, and say so if they are unusual.

    Returns {option: value} of what it has set, so that nobody takes it for typed.
    steps: optimizer steps in an epoch. width: numbers in a token's vector. The rule: 300 steps and
    20 more for each class, in 2 to 20 epochs; from 20 classes on a higher rate, because a head of
    many classes has much to learn. What it rests on: docs/ideas.md. (Too few steps are what most
    often goes wrong on small sets: Mosbach et al. 2021, Zhang et al. 2021.)
    """
    wanted, many, said, recipe = 300 + 20 * classes, classes >= MANY, [], {}
    if args.epochs is None:
        args.epochs = recipe["epochs"] = min(20, max(2, math.ceil(wanted / steps)))
        said += [f"--epochs {args.epochs}, for {wanted:,} steps"] * (args.epochs > 2)
    if args.lr is None:
        args.lr = recipe["lr"] = USUAL_RATE if not many else 2e-4 if width <= 384 else 1e-4
        said += [f"--lr {args.lr}, for {classes} classes"] * many
    if said:
        notes.append(f"recipe: {' and '.join(said)}; what you type yourself counts")
    return recipe


def resumed_words(parser, folder, argv):
    """The whole command line of the run in `folder` that --resume goes on with. argv: typed now."""
    if is_done(folder):
        print(f"{folder} is done: there is nothing left to go on with")
        raise SystemExit(0)
    words = read_arguments(folder)
    known = {action.dest for action in parser._actions} - {"help", "resume", "overwrite"}
    words = [word for word in words if word[2:].partition("=")[0].replace("-", "_") in known]
    out = parser.parse_args(words).out
    made = f"--model={demo.untrained_folder(out)}"  # lies in the folder, which may have moved
    words = [word for word in words if word != made]
    before, now = (vars(parser.parse_args(line)) for line in (words, [*words, *argv]))
    for name in before:
        if before[name] != now[name] and name not in FREE:
            parser.error(
                f"--resume {folder}: --{name.replace('_', '-')} was {before[name]} and would be "
                f"{now[name]}, which makes it another run: leave that out, or start over"
            )
    return [*words, *argv, f"--out={folder}"]


def halve(args):
    """What to type when the memory runs out, in training or in the test."""
    size = f"--batch-size {args.batch_size // 2} --accumulate {2 * args.accumulate}, or "
    words = f"try {size * (args.batch_size > 1)}a smaller --max-length"
    return f"{words}. If the training is done already: {how_to_go_on(args.out)}"


def say_what_next(args):
    """Print the commands to type after a run."""
    folder = "" if args.out == "model" else f" --model {shlex.quote(args.out)}"
    print(f"\nsaved in {args.out}. Next:\n  python evaluate.py{folder}")
    print(f'  python predict.py{folder} "{example(vars(args))}"')
    if args.demo:
        print(demo.REAL)
    else:
        counted = f"python -m extras.baseline --like {shlex.quote(args.out)}"
        print(f"  {counted}  # does counting words do as well?")
