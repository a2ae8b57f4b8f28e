"""What a search tries, and one run of it: finetune.py up to its last epoch, while it is watched.

Teaches   how to use fine_tune() from a program of your own: prepare, train, write down.
After     finetune.py. extras.search decides what to run, and what is hopeless.
"""

import itertools
import os
import shlex
import subprocess
import sys
from pathlib import Path

from finetune import fine_tune, prepare
from model import choose_hardware
from extras.kept import read_figures
from support.devices import peak_bytes
from support.errors import UserError, out_of_memory
from support.files import content_digest, digest, read_json
from support.options import FREE, halve, parse_arguments
from support.runs import claim, end, is_begun, what_matters
from support.saved import write_run
from support.unfinished import Run, find_checkpoint

REPEATS = ("seed", "fold")
FIGURE = {"accuracy": "accuracy", "f1": "macro_f1", "loss": "loss"}  # by what --select is called


# ------------------------------------------------------------------------------ what to try
def read_space(typed, rest, grid):
    """Returns (knobs, repeats): {option: Optuna's distribution}; [((option, value), ...), ...].

    typed: such as ["lr=1e-5..2e-4", "seed=1,2"]. rest: the words for finetune.py. Each value is
    tried as a word of its command line, before hours are spent on the first. Raises UserError.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    knobs, repeats = {}, {}
    for name, _, values in (word.partition("=") for word in typed):
        some, ends = values.split(","), [values] if "/" in values else values.split("..")  # a path
        if "" in some + ends or len(set(some)) < len(some) or name in {*knobs, *repeats}:
            how = "option=value,value or option=low..high, each once: lr=1e-5..2e-4 seed=42,43"
            raise UserError(f"{name}={values}: say what to vary as {how}")
        place = name.replace("-", "_")
        if place not in vars(parse_arguments("", rest)):  # argparse would take "see" for "seed"
            raise UserError(f"{name}={values}: finetune.py has no option --{name}")
        parsed = []
        for value in ends if len(ends) == 2 else some:
            args = parse_arguments("", [*rest, f"--{name}={value}"])
            parsed.append(getattr(args, place))
            if args.resume or args.overwrite or args.out != ("demo" if args.demo else "model"):
                raise UserError("leave out --out, --resume and --overwrite; there is --folder")
        if len(ends) == 1 and name in REPEATS:
            repeats[name] = [(name, value) for value in some]
        elif len(ends) == 1:
            knobs[name] = CategoricalDistribution(some)
        elif grid or name in REPEATS:
            raise UserError(f"{name}={values}: write a list here, such as {name}={','.join(ends)}")
        else:
            low, high = parsed[0], parsed[-1]
            if isinstance(low, str) or not low < high:
                raise UserError(f"{name}={values} is no range of numbers, from low to high")
            # From 1e-5 to 2e-5 is as far as from 1e-4 to 2e-4: rates count by factors.
            log = low > 0 and (name == "lr" or high / low >= 10)
            kind = IntDistribution if isinstance(low, int) else FloatDistribution
            knobs[name] = kind(low, high, log=log)
    return knobs, list(itertools.product(*repeats.values()))


def shown(value):
    """A value of an option as it is typed; three digits of a rate are enough."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def as_words(setting):
    """{option: value} as the words of a command."""
    return [f"--{name}={shown(value)}" for name, value in setting.items()]


# ------------------------------------------------------------------------------ one run
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


def folder_of(words, args):
    """A run's folder: another one for other words or data, so that no run is taken for another."""
    return Path(args.folder, digest(shlex.join([args.mark, *words]).encode())[:8])


def mark_of(args):
    """16 letters that change when the local data or the local model of a search do."""
    paths = [args.data] if args.demo else [args.data, args.model]  # a rehearsal makes its model
    return digest(" ".join(content_digest(p) for p in paths if os.path.exists(p)).encode())


def train(words, folder, watch):
    """finetune.py up to its last epoch. Test is not touched. Returns the best epoch's figures.

    A run that was stopped goes on, and one that was done is only read. Raises UserError.
    """
    if (folder / "run.json").exists() and not is_begun(folder):
        try:
            figures = read_json(folder / "run.json")["results"]["validation"]
            return {key: figures[key] for key in ("n", *FIGURE.values())}
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{folder} holds a damaged run: delete that folder") from error
    place = ["--resume" if is_begun(folder) else "--out", str(folder)]
    args = parse_arguments("", [*words, *place])
    device, precision, reasons = choose_hardware(args.device, args.precision)
    with claim(args):
        saved = find_checkpoint(args.out) if args.resume else None
        model, tokenizer, splits, facts = prepare(args, device, precision, reasons)
        same = what_matters(args, facts, splits, model, FREE)
        run = Watched(args, facts, same, saved, facts["steps_per_epoch"] * args.epochs)
        run.watch = watch
        run.tell()  # of a run that goes on
        with run, out_of_memory(halve(args)):
            fine_tune(model, tokenizer, splits, facts["labels"], args, device, precision, run)
        facts |= run.record()
        facts["results"]["peak_bytes"] = peak_bytes(device)
        write_run(args.out, facts)
        end(args.out)
    return facts["results"]["validation"]


def evaluate_on_test(words, args):
    """The model's accuracy on test reviews, by evaluate.py, which keeps its figures."""
    folder, test = folder_of(words, args), args.test
    results = Path(f"{folder}-test{test or ''}.json")
    if not results.exists():
        some = ["--subset", str(test)] if test else []
        command = ["evaluate.py", "--model", folder, *some, "--results", results]
        print(f"\n$ python {shlex.join(map(str, command))}", flush=True)
        if code := subprocess.run([sys.executable, *map(str, command)]).returncode:
            raise SystemExit(code)
    correct, n = read_figures(results, "evaluated", "figures")
    return correct / n
