"""Appendix S: one option, several values, several seeds.

Teaches   to tell a difference from luck: the least that it has to beat is another seed.
Order     when the chapters are read, and you change things.
Run       python sweep.py truncation=head,tail seed=42,43,44 --test 5000 -- --subset 2000
Expect    in sweep/ a model and a JSON file of figures for each run; a table of mean and standard
          deviation over the seeds, and what counting words (baseline.py) learns from the same train
          reviews, on all of test. Stopped, it goes on with the same command.
"""

import itertools
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

from checkpoint import read_run
from errors import UserError, make_parser, run_command
from folder import is_begun, is_done
from plan import parse_arguments


def run(*words):
    """Run one of our files. If it fails or is stopped, so are we: it has said why."""
    print(f"\n$ python {shlex.join(map(str, words))}", flush=True)
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the run, which saves and ends
    command = [sys.executable, Path(__file__).with_name(words[0]), *words[1:]]
    if code := subprocess.run(command).returncode:
        raise SystemExit(code)


def run_once(folder, words, test):
    """Train, evaluate and count words, unless that is done. Returns (accuracy, baseline's)."""
    results, floor = Path(f"{folder}.json"), Path(f"{folder}-baseline.json")
    if is_begun(folder):
        run("finetune.py", "--resume", folder)
    elif not is_done(folder):
        run("finetune.py", *words, "--out", folder)
    now, made = vars(parse_arguments("", words)), read_run(folder)["arguments"]
    free = ("model", "out", "resume") if now["demo"] else ("out", "resume")
    if any(now[name] != made.get(name) for name in now if name not in free):
        raise UserError(f"{folder} was made with other options: choose another --folder")
    if not results.exists():  # with one seed, every setting is tested on the same reviews
        some = ["--subset", test] if test else []
        run("evaluate.py", "--model", folder, *some, "--results", results)
    if not floor.exists():
        same = ("data", "text_column", "label_column", "subset", "seed")
        known = [f"--{n.replace('_', '-')}={made[n]}" for n in same if made[n] is not None]
        run("baseline.py", *known, "--results", floor)
    figures = json.loads(results.read_text())["evaluated"]["figures"]
    return figures["accuracy"], json.loads(floor.read_text())["test"]["accuracy"]


def main():
    at = [*sys.argv, "--"].index("--")  # what comes after it is for finetune.py
    parser = make_parser(__doc__)
    parser.add_argument("vary", nargs="+", metavar="OPTION=A,B", help="what to vary; and seed=...")
    parser.add_argument("--test", help="test reviews to draw (default: all)")
    parser.add_argument("--folder", default="sweep", help="where all of it goes (default: sweep)")
    args, rest = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    vary = [option.partition("=")[::2] for option in args.vary]
    if not all(all(values.split(",")) for _, values in vary):
        raise UserError("say what to vary as option=value,value, for example seed=42,43")
    rows = {}
    for setting in itertools.product(*[[f"{o}={v}" for v in vs.split(",")] for o, vs in vary]):
        options = [*rest, *(f"--{part}" for part in setting)]
        found = run_once(f"{args.folder}/{','.join(setting)}", options, args.test)
        rows.setdefault(" ".join(p for p in setting if "seed=" not in p), []).append(found)
    print(f"\n{'test accuracy':40} {'mean':>8} {'st.dev.':>8} {'seeds':>6} {'baseline':>9}")
    for row, found in rows.items():
        ours, floors = zip(*found)
        spread = f"{stdev(ours):.2%}" if len(ours) > 1 else "-"
        print(f"{row:40} {mean(ours):8.2%} {spread:>8} {len(ours):6} {mean(floors):9.2%}")


if __name__ == "__main__":
    run_command(main)
