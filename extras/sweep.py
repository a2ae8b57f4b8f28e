"""One option, several values, several seeds.

Teaches   to tell a difference from luck. Another seed changes a result too, so a difference between
          two settings has to be larger than the differences between seeds.
After     the chapters, when you change things; and extras.baseline.
Run       python -m extras.sweep truncation=head,tail seed=42,43,44 --test 5000 -- --subset 2000
Expect    in sweep/ a model and a JSON file of figures for each run. Then a table: of each setting
          the mean over its seeds, the standard deviation, and what extras.baseline gets from the
          same train reviews, on all of test. To go on after a stop, type the same command.
"""

import itertools
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

from support.errors import UserError, make_parser, run_command
from extras.kept import read_figures
from support.files import read_json
from support.options import FOUND_OUT, FREE, parse_arguments
from support.runs import is_begun, is_done


# ------------------------------------------------------------------------------ before the runs
def check_fresh(args):
    """Raise UserError where a run of finetune.py would not begin anew, in a folder of its own."""
    if args.resume or args.overwrite or args.out != ("demo" if args.demo else "model"):
        raise UserError("extras.sweep chooses --out itself; leave out --resume and --overwrite")


def check_made_with(args, folder):
    """Raise UserError if the model in `folder` was made, or is being made, with other options."""
    begun = Path(folder, "checkpoints", "arguments.json")
    made = read_json(begun) if begun.is_file() else read_json(f"{folder}/run.json")["arguments"]
    free = FREE - {"data", "model"} | ({"model"} if args.demo else set())
    for name, value in vars(args).items():
        if name in FOUND_OUT and value is None:
            continue  # the run has found it out
        if name not in free and value != made.get(name):
            was = f"--{name.replace('_', '-')} {made.get(name)}"
            raise UserError(f"{folder} was made with {was}, not {value}: choose another --folder")


# ------------------------------------------------------------------------------ the runs
def run(*words):
    """Run one of our files. If it fails or is stopped, so are we: it has said why."""
    where = ["-m", *words] if words[0].startswith("extras.") else words
    print(f"\n$ python {shlex.join(map(str, where))}", flush=True)
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the run, which saves and ends
    if code := subprocess.run([sys.executable, *where]).returncode:
        raise SystemExit(code)


def run_once(folder, words, test):
    """Train, evaluate and count words, unless that is done. Returns three accuracies."""
    some = ["--subset", str(test)] if test else []
    results, floor = (Path(f"{folder}-{what}.json") for what in (f"test{test or ''}", "baseline"))
    if is_begun(folder) or is_done(folder):
        check_made_with(parse_arguments("", words), folder)
    if not is_done(folder):
        for stale in (floor, *folder.parent.glob(f"{folder.name}-test*.json")):  # its model is gone
            stale.unlink(missing_ok=True)
        run("finetune.py", *(["--resume"] if is_begun(folder) else [*words, "--out"]), folder)
    if not results.exists():
        run("evaluate.py", "--model", folder, *some, "--results", results)
    if not floor.exists():
        run("extras.baseline", "--like", folder, "--results", floor)
    held_out = read_figures(results, "run", "results", "validation")
    test, counted = read_figures(results, "evaluated", "figures"), read_figures(floor, "test")
    return [correct / n for correct, n in (held_out, test, counted)]


def main():
    at = [*sys.argv, "--"].index("--")  # what comes after it is for finetune.py
    parser = make_parser(__doc__)
    parser.add_argument("vary", nargs="+", metavar="OPTION=A,B", help="what to vary; and seed=...")
    parser.add_argument("--test", type=int, help="test reviews to draw (default: all)")
    parser.add_argument("--folder", default="sweep", help="where all of it goes (default: sweep)")
    args, rest = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    vary = {name: values.split(",") for name, _, values in (v.partition("=") for v in args.vary)}
    unclear = any("" in v or len(set(v)) < len(v) for v in vary.values())
    if unclear or len(vary) < len(args.vary):
        raise UserError("say what to vary as option=value,value, each once: for example seed=42,43")
    if args.test is not None and args.test < 1:
        raise UserError(f"--test {args.test}: has to be 1 or more")
    rows, settings = {}, itertools.product(*[[f"{o}={v}" for v in vs] for o, vs in vary.items()])
    runs = [(setting, [*rest, *(f"--{part}" for part in setting)]) for setting in settings]
    for _, words in runs:  # all of them, before hours are spent on the first
        check_fresh(parse_arguments("", words))
    for setting, words in runs:
        found = run_once(Path(args.folder, ",".join(setting)), words, args.test)
        row = " ".join(part for part in setting if not part.startswith("seed="))
        rows.setdefault(row or "(as typed)", []).append(found)
    print("\nchoose by validation, not by test    validation      test  st. dev.  baseline  seeds")
    for row, found in rows.items():
        held_out, test, counted = (f"{mean(one):10.2%}" for one in zip(*found))
        spread = f"{stdev(one[1] for one in found):10.2%}" if len(found) > 1 else f"{'-':>10}"
        print(f"{row:37}{held_out}{test}{spread}{counted}{len(found):7}")


if __name__ == "__main__":
    run_command(main)
