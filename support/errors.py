"""One clear line: what is wrong, where, what to do; and an exit code that a script can read."""

import argparse
import os
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something the user can mend: its message says what is wrong, where, and what to do."""


class Hopeless(UserError):
    """Training cannot go on with these settings; with others it may."""


LOST = (
    "another process of this run has ended (it or torchrun says why), so this one ends too: start "
    "the run again, finetune.py and predict.py --file with --resume"
)


def run_command(main):
    """Run a file's `main()` and turn what stops it into an exit code and one line.

    Exit codes: 0 done; 1 the output was closed; 2 the user can mend it; 130 stopped with Ctrl-C;
    143 stopped with SIGTERM. Where another process of torchrun's was lost, 1 or 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without emoji shows \U0001f600 instead
            stream.reconfigure(errors="backslashreplace")
    errors = sys.stderr  # kept here, because devices.join() mutes all processes but the first
    try:
        code = main()
        if sys.stdout:
            sys.stdout.flush()  # now, or a reader who has gone is noticed when it is too late
    except KeyboardInterrupt:
        print("\nstopped with Ctrl-C", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # `python predict.py ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print("stopped: nobody reads the output any more", file=sys.stderr)
        code = 1
    except (UserError, OSError) as error:  # OSError: a path too long, a folder without access, ...
        if sys.stderr is not errors:  # one of torchrun's processes, and not the first:
            time.sleep(1)  # if the first has the same to say, torchrun ends this one by then
        print(f"error: {plain(str(error))}", file=errors)
        code = 2
    except Exception as error:
        sys.stderr = errors
        if "gloo" not in str(error) and type(error).__name__ != "DistBackendError":
            raise
        print(f"error: {LOST}", file=errors)
        code = 1
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not code:
        # Started by torchrun. A thread that still listens to the others could abort Python's own
        # end. (After an error Python ends as usual, and torchrun ends the others.)
        from torch import distributed  # which has been loaded long ago

        if distributed.is_initialized():
            distributed.destroy_process_group()
        os._exit(0)
    sys.exit(code)


def plain(text):
    """A text in one line, without what would color a terminal, clear it, or move its cursor."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


WIDTH, INDENT = 80, 11


def show(title, text, file=None):
    """Print a line with its title in front; what is too long goes on below, under the text.

    80 columns are the width of a terminal that nobody has resized. A path stays whole: it is there
    to be copied.
    """
    how = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": " " * INDENT}
    print(textwrap.fill(f"{title:{INDENT - 1}} {text}", WIDTH, **how), file=file)


TRUNCATIONS = ("head", "tail", "head+tail")
PRECISIONS = ("fp32", "bf16", "fp16", "auto")  # and int8, to ask a model that is trained
# How a file is read; what is not typed is found out.
READING = "text-column label-column labels encoding delimiter quoting header"
# Options that several commands have: type (bool: a switch; a tuple: choices), default, meaning.
SHARED = {
    "model": (str, "model", "hub name, or a folder that finetune.py saved (default: %(default)s)"),
    "data": (str, None, "a file, a folder or a hub data set (default: the one trained on)"),
    "split": (("train", "validation", "test"), "test", "of these data (default: test)"),
    "text-column": (str, None, "column of the texts; title,text joins two (default: known by its "
                    "name, such as text or review)"),
    "label-column": (str, None, "column of the labels (default: known by its name, such as label)"),
    "labels": (str, None, "what labels mean, such as 1=negative,2=positive"),
    "encoding": (str, None, "of a text file (default: UTF-8, or found out)"),
    "delimiter": (str, None, "between columns: comma, semicolon, tab, pipe (default: found out)"),
    "quoting": (("csv", "blanks", "none"), None, "csv: cells may be in double quotes; blanks: and "
                "blanks before them; none: quotes are letters (default: found out)"),
    "header": (("yes", "no"), None, "the first row holds the columns' names; --no-header: it does "
               "not (default: found out)"),
    "subset": (int, None, "reviews to draw (default: all)"),
    "draw-seed": (int, None, "draw others (default: from test the same for all models)"),
    "seed": (int, 42, "of the division and the draw (default: 42)"),
    "max-length": (int, 256, "tokens kept of a text (default: %(default)s; None: as in training)"),
    "truncation": (TRUNCATIONS, "head+tail", "which of them (default: head+tail)"),
    "file": (str, None, "a file of texts: .csv, .jsonl, .txt, ... (docs/your-texts.md)"),
    "out": (str, None, "with --file: a .csv file for text, label, predicted, score, error"),
    "resume": (bool, False, "with --out: go on where a stopped run has come to"),
    "json": (bool, False, "print one object a line, for programs"),
    "windows": (bool, False, "read long texts whole, in windows that overlap"),
    "save": (str, None, "a .csv file for what was found, row by row"),
    "results": (str, None, "a .json file for the figures, for programs"),
    "batch-size": (int, None, "texts at once (default: 128 on a GPU, some 1,000 tokens on a CPU)"),
    "device": (str, None, "cpu, cuda, mps or xpu (default: the best there is)"),
    "precision": ((*PRECISIONS, "int8"), "auto", "number format (default: %(default)s; auto: 16 "
                  "bits where the hardware multiplies them natively, and for a few texts fp32, so "
                  "that other tools agree); int8: faster on a CPU, another answer now and then"),
}


def make_parser(chapter, names="", **defaults):
    """An argument parser whose --help opens with the file's own docstring (`chapter`).

    names: those of SHARED that it has, in one string. defaults: other ones than there.
    """
    script = Path(sys.argv[0])
    module = f"-m extras.{script.stem}" if script.parent.name == "extras" else script.name
    parser = argparse.ArgumentParser(
        prog=f"python {module}",
        description=chapter,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    # argparse prints its whole usage before an error; one line is easier to find.
    def refuse(message):
        raise UserError(f"{message} (all options: {parser.prog} --help)")

    parser.error = refuse
    add_options(parser, names)
    parser.set_defaults(**defaults)
    return parser


def add_options(parser, names):
    """Add options of SHARED to a parser. names: in one string."""
    for name in names.split():
        kind, default, what = SHARED[name]
        how = {"type": kind} if isinstance(kind, type) else {"choices": kind}
        how = {"action": "store_true"} if kind is bool else how | {"default": default}
        if name == "header":  # as a switch, and its opposite
            how |= {"nargs": "?", "const": "yes"}
            against = {"dest": "header", "action": "store_const", "const": "no"}
            parser.add_argument("--no-header", help=argparse.SUPPRESS, **against)
        parser.add_argument(f"--{name}", help=what, **how)


def check_counts(args, *names):
    """Raise UserError unless each of these options is 1 or more, where it is given."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: has to be 1 or more")


@contextmanager
def out_of_memory(advice):
    """Inside this `with`, running out of memory becomes a UserError that ends in `advice`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        words = ("out of memory", "can't allocate memory")  # the GPUs' and the CPU allocator's
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in words):
            raise
        raise Hopeless(f"out of memory: {advice}") from error


@contextmanager
def extra_packages():
    """Inside this `with`, a package that is missing becomes a UserError that says how to get it."""
    try:
        yield
    except ImportError as error:
        how = "pip install -r requirements-extra.txt"
        raise UserError(f"this needs the package {error.name}: {how}") from error
