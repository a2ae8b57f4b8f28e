"""Appendix C: every knob.

Teaches   what each argument of finetune.py does, and why its default is what it is.
Order     after the chapters, or beside finetune.py while you try things.
Run       python finetune.py --help
Expect    the knobs in groups, each with unit, default and reason.
"""

import math
import os
import shlex
import sys
from pathlib import Path

import demo
from dataset import TRUNCATIONS
from errors import UserError, make_parser
from folder import is_done, read_arguments, read_json
from same_run import FREE


def parse_arguments(chapter, argv=None):
    """finetune.py's command line. chapter: its docstring. argv: for tests. Returns a Namespace.

    Raises UserError for a value that cannot work.
    """
    parser = make_parser(chapter)
    group = parser.add_argument_group("the texts")
    group.add_argument(
        "--data",
        default="stanfordnlp/imdb",
        metavar="NAME",
        help="hub data set, or a .csv, .tsv, .jsonl or .parquet file, or a folder with train.* and "
        "test.* (default: IMDB, 25,000 reviews to learn from and 25,000 to test)",
    )
    group.add_argument(
        "--text-column", default="text", metavar="NAME", help="column of the texts (default: text)"
    )
    group.add_argument(
        "--label-column",
        default="label",
        metavar="NAME",
        help="column of the labels, numbers or names (default: label)",
    )
    group.add_argument(
        "--subset",
        type=int,
        metavar="REVIEWS",
        help="train reviews to draw, as many of each class; validation and test at most as many "
        "each (default: all; a subset shows in minutes what a full run does in hours)",
    )
    group.add_argument(
        "--max-length",
        type=int,
        default=256,
        metavar="TOKENS",
        help="tokens kept of a review, [CLS] and [SEP] included (default: 256; more of them "
        "lose less of the text, and take more time and memory)",
    )
    group.add_argument(
        "--truncation",
        choices=TRUNCATIONS,
        default="head+tail",
        help="what is kept of a longer review (default: head+tail; verdicts stand at the end)",
    )

    group = parser.add_argument_group("the model")
    group.add_argument(
        "--model",
        default="distilbert-base-uncased",
        metavar="NAME",
        help="hub name or local folder (default: distilbert-base-uncased, 40 %% smaller and 60 %% "
        "faster than BERT at 97 %% of its score, says Sanh et al. 2019)",
    )
    group.add_argument(
        "--head-epochs",
        type=int,
        default=0,
        metavar="EPOCHS",
        help="at the start, train only the new head so long (default: 0; warm-up usually protects "
        "the pretrained layers well enough)",
    )
    group.add_argument(
        "--train-layers",
        type=int,
        metavar="LAYERS",
        help="after that, train the head and so many encoder layers from the top; 0: the head "
        "alone (default: everything trains; less is faster, takes less memory, and learns less)",
    )

    group.add_argument(
        "--dropout",
        type=float,
        metavar="SHARE",
        help="of a layer's numbers, set to 0 at random in training (default: the checkpoint's own; "
        "DistilBERT's is 0.1, and 0.2 in its head)",
    )
    group.add_argument(
        "--attention-dropout",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="the same for attention weights (default: 0; the usual 0.1 is slower on a CPU, and no "
        "better that we could measure)",
    )

    group = parser.add_argument_group("the steps")
    group.add_argument(
        "--epochs",
        type=int,
        default=2,
        metavar="EPOCHS",
        help="passes over the train reviews (default: 2; a small subset takes 3 or more)",
    )
    group.add_argument(
        "--batch-size",
        type=int,
        default=16,
        metavar="REVIEWS",
        help="reviews in a micro-batch (default: 16; halve it when memory runs out)",
    )
    group.add_argument(
        "--accumulate",
        type=int,
        default=1,
        metavar="BATCHES",
        help="micro-batches to an optimizer step (default: 1; double it when you halve the batch "
        "size, and as many reviews make a step)",
    )
    group.add_argument(
        "--lr",
        type=float,
        default=5e-5,
        metavar="RATE",
        help="peak learning rate (default: 5e-5, the largest that Devlin et al. 2019 recommend; at "
        "4e-4 BERT forgot all it knew, says Sun et al. 2019)",
    )
    group.add_argument(
        "--warmup",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the steps in which the rate rises (default: 0.1, as in Devlin et al. 2019)",
    )
    group.add_argument(
        "--weight-decay",
        type=float,
        default=0.01,
        metavar="RATE",
        help="AdamW's pull of the matrices toward 0 (default: 0.01, as in Devlin et al. 2019)",
    )
    group.add_argument(
        "--clip",
        type=float,
        default=1.0,
        metavar="NORM",
        help="largest norm of a gradient (default: 1.0, as in BERT's published code)",
    )
    group.add_argument(
        "--seed",
        type=int,
        default=42,
        metavar="NUMBER",
        help="of what is held out, the draw (test reviews are the same for all seeds), the new "
        "head, the order and the dropout (default: 42; change it to see how much is luck)",
    )

    group = parser.add_argument_group("the choice")
    group.add_argument(
        "--select",
        choices=("accuracy", "f1", "loss"),
        default="accuracy",
        help="validation figure that decides which epoch is kept (default: accuracy; f1, the mean "
        "over the classes, where one class is rare)",
    )
    group.add_argument(
        "--patience",
        type=int,
        metavar="EPOCHS",
        help="stop after so many epochs without a better one (default: never)",
    )

    group = parser.add_argument_group("the machine")
    group.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, mps or xpu (default: the best there is)"
    )
    group.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16", "auto"),
        default="auto",
        help="number format (default: auto, 16 bits where the hardware multiplies them natively)",
    )

    group.add_argument(
        "--compile",
        action="store_true",
        help="let torch.compile make one program of the model first, which takes minutes (default: "
        "not; it is for GPUs and long runs, and gained nothing on the CPU it was tried on)",
    )

    group = parser.add_argument_group("the result")
    group.add_argument(
        "--out",
        default="model",
        metavar="FOLDER",
        help="where the model goes (default: model; with --demo: demo)",
    )
    group.add_argument(
        "--sanity",
        action="store_true",
        help="train nothing: ask four questions that find most mistakes, in half a minute",
    )
    group.add_argument(
        "--demo",
        action="store_true",
        help="rehearse on made-up reviews with a tiny untrained model: no network, about a minute",
    )

    group.add_argument(
        "--save-every",
        type=float,
        default=10,
        metavar="MINUTES",
        help="between two checkpoints, from which a stopped run goes on (default: 10; after each "
        "epoch there is one anyway)",
    )
    group.add_argument(
        "--resume",
        metavar="FOLDER",
        help="go on with the run that was to make this folder, exactly as if it had never stopped; "
        "it knows its other options",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="start over in a folder that holds a finished model or an unfinished run",
    )

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
    # [CLS], one token and [SEP] are the shortest text.
    lowest = {"epochs": 1, "batch_size": 1, "accumulate": 1, "patience": 1, "max_length": 3}
    lowest |= {"subset": 1, "head_epochs": 0, "train_layers": 0}
    for name, low in lowest.items():
        value = getattr(args, name)
        if value is not None and value < low:
            parser.error(f"--{name.replace('_', '-')} {value}: has to be {low} or more")
    for name in ("lr", "clip"):
        if not 0 < getattr(args, name) < math.inf:
            parser.error(f"--{name} {getattr(args, name)}: has to be a number over 0")
    for name in ("dropout", "attention_dropout"):
        if getattr(args, name) is not None and not 0 <= getattr(args, name) < 1:
            parser.error(
                f"--{name.replace('_', '-')} {getattr(args, name)}: has to be 0 to under 1"
            )
    if not 0 <= args.save_every < math.inf:
        parser.error(f"--save-every {args.save_every}: has to be 0 or more minutes")
    if not args.out.strip():
        parser.error("--out is empty: name a folder")
    if not 0 <= args.seed < 2**32:
        parser.error(f"--seed {args.seed}: has to be from 0 to 4,294,967,295")
    if not 0 <= args.warmup < 1 or not 0 <= args.weight_decay < math.inf:
        parser.error("--warmup has to be from 0 to under 1, and --weight-decay 0 or more")
    args.out = os.path.normpath(args.out)  # "model/" is "model"
    if os.path.exists(args.data):  # so that evaluate.py finds the same file, wherever it is started
        args.data = os.path.abspath(args.data)
    if os.path.isdir(args.model) and not args.demo:
        args.model = os.path.abspath(args.model)
    return args


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


def command_line(arguments):
    """The command that makes a run again, but for --out. arguments: those of its run.json."""
    usual = vars(parse_arguments("", ["--demo"] if arguments["demo"] else []))
    words = ["python", "finetune.py"] + ["--demo"] * arguments["demo"]
    for name, value in arguments.items():
        # The rehearsal makes its own model, in --out, and has its own reviews, wherever they lie.
        made = arguments["demo"] and os.path.basename(str(value)) in ("untrained", "demo_reviews")
        if name in usual and value != usual[name] and name not in ("out", "resume") and not made:
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [option, str(value)]
    return shlex.join(words)


def check_made_with(args, folder):
    """Raise UserError if the model in `folder` was made, or is being made, with other options."""
    begun = Path(folder, "checkpoints", "arguments.json")
    made = read_json(begun) if begun.is_file() else read_json(f"{folder}/run.json")["arguments"]
    free = {"out", "resume", "overwrite", "save_every"} | ({"model"} if args.demo else set())
    for name, value in vars(args).items():
        if name not in free and value != made.get(name):
            raise UserError(
                f"{folder} was made with --{name.replace('_', '-')} {made.get(name)}, and not "
                f"{value}: choose another --folder"
            )


def check_fresh(args, test):
    """Raise UserError where a run of sweep.py would not begin anew, in a folder of its own.

    test: how many test reviews it is to read.
    """
    named = args.out != ("demo" if args.demo else "model")
    if named or args.resume or args.overwrite or args.sanity:
        raise UserError(
            "sweep.py chooses --out itself, and has no use for --resume, --overwrite, --sanity"
        )
    if test is not None and test < 1:
        raise UserError(f"--test {test}: has to be 1 or more")
