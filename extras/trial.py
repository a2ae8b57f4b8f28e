"""One run of a search: finetune.py up to its last epoch, while somebody watches.

Teaches   how to use fine_tune() from a program of your own: prepare, train, write down.
After     finetune.py. extras.search decides what to run, and what is hopeless.
"""

import shlex
import subprocess
import sys
from pathlib import Path

from finetune import fine_tune, prepare
from model import choose_hardware
from extras.kept import read_figures
from support.errors import UserError, out_of_memory
from support.files import digest, read_json
from support.options import FREE, halve, parse_arguments
from support.runs import claim, end, is_begun, what_matters
from support.saved import write_run
from support.unfinished import Run, find_checkpoint


class Failed(UserError):
    """Training has begun and cannot go on with these settings, with others perhaps."""


class Watched(Run):
    """A run that tells its figures after each epoch but the last; it ends if `watch` raises."""

    def add_epoch(self, figures):
        better = super().add_epoch(figures)
        self.tell()
        return better

    def tell(self):
        """Tell the figures of the newest epoch."""
        if 0 < self.epochs_done < self.args.epochs:
            self.watch(self.epochs_done, self.epochs[-1]["validation"])


def folder_of(words, root):
    """A run's folder: another one for other words, so that no run is taken for another."""
    return Path(root, digest(shlex.join(words).encode())[:8])


def train(words, folder, watch):
    """finetune.py up to its last epoch. Test is not touched. Returns the best epoch's figures.

    A run that was stopped goes on, and one that was done is only read. Raises Failed.
    """
    if (folder / "run.json").exists() and not is_begun(folder):
        return read_json(folder / "run.json")["results"]["validation"]
    place = ["--resume" if is_begun(folder) else "--out", str(folder)]
    args = parse_arguments("", [*words, *place])
    device, precision, reasons = choose_hardware(args.device, args.precision)
    with claim(args):
        saved = find_checkpoint(args.out) if args.resume else None
        model, tokenizer, splits, facts = prepare(args, device, precision, reasons)
        del splits["test"]
        same = what_matters(args, facts, splits, model, FREE)
        run = Watched(args, facts, same, saved, facts["steps_per_epoch"] * args.epochs)
        run.watch = watch
        run.tell()  # of a run that goes on
        try:
            with run, out_of_memory(halve(args)):
                fine_tune(model, tokenizer, splits, facts["labels"], args, device, precision, run)
        except UserError as error:
            raise Failed(str(error)) from error
        facts |= run.record()
        write_run(args.out, facts)
        end(args.out)
    return facts["results"]["validation"]


def test_run(words, root, test):
    """The model's accuracy on test reviews, by evaluate.py, which keeps its figures."""
    folder = folder_of(words, root)
    results = Path(f"{folder}-test{test or ''}.json")
    if not results.exists():
        some = ["--subset", str(test)] if test else []
        command = ["evaluate.py", "--model", folder, *some, "--results", results]
        print(f"\n$ python {shlex.join(map(str, command))}", flush=True)
        if code := subprocess.run([sys.executable, *map(str, command)]).returncode:
            raise SystemExit(code)
    correct, n = read_figures(results, "evaluated", "figures")
    return correct / n
