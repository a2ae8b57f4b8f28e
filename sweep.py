"""Appendix S: one option, several values, several seeds.

Teaches   to tell a difference from luck: the same run with another seed is the least that any
          difference has to beat, so every value is tried with each seed, and shown with its spread.
Order     when the chapters are read, and you change things.
Run       python sweep.py truncation=head,tail seed=42,43,44 -- --subset 2000 --epochs 3
          python sweep.py subset=250,1000 seed=42,43 --test 5000 --baseline -- --epochs 3
Expect    a folder, sweep/, with a model and a JSON file of figures for each run, and a table of
          mean and standard deviation over the seeds. Stopped, it goes on with the same command.
"""

import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

from errors import UserError, make_parser, run_command
from folder import is_begun, is_done


def run(*words):
    """Run one of our files. If it fails or is stopped, so are we: it has said why."""
    print(f"\n$ python {shlex.join(words)}", flush=True)
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the run, which saves and ends
    if code := subprocess.run([sys.executable, *words]).returncode:
        raise SystemExit(code)


def run_once(folder, setting, args, rest):
    """Train and evaluate with one setting, unless that is done. Returns (accuracy, baseline's)."""
    results, floor = f"{folder}.json", f"{folder},baseline.json"
    options = [f"--{name}={value}" for name, value in setting.items()]
    # With one seed, all settings are tested on the same reviews.
    some = [f"--subset={args.test}"] if args.test else []
    if is_begun(folder):
        run("finetune.py", "--resume", folder)
    elif not is_done(folder):
        run("finetune.py", *rest, *options, "--out", folder)
    if not os.path.exists(results):
        run("evaluate.py", "--model", folder, *some, "--results", results)
    if args.baseline and not os.path.exists(floor):
        known = [option for option in options if option.startswith(("--subset=", "--seed="))]
        run("baseline.py", *known, "--results", floor)
    figures = json.loads(Path(results).read_text())["evaluated"]["figures"]
    baseline = json.loads(Path(floor).read_text())["test"] if args.baseline else {"accuracy": None}
    return figures["accuracy"], baseline["accuracy"]


def main():
    words = [*sys.argv[1:], "--"]
    at = words.index("--")
    parser = make_parser(__doc__)
    parser.add_argument(
        "vary", nargs="+", metavar="OPTION=A,B", help="what to vary; best with seed"
    )
    parser.add_argument("--test", type=int, help="test reviews to draw (default: all)")
    parser.add_argument("--baseline", action="store_true", help="baseline.py beside each run")
    parser.add_argument("--folder", default="sweep", help="where all of it goes (default: sweep)")
    args, rest = parser.parse_args(words[:at]), words[at + 1 : -1]
    vary = {name: values.split(",") for name, _, values in (v.partition("=") for v in args.vary)}
    if not all(all(values) for values in vary.values()):
        raise UserError("say what to vary as option=value,value, for example seed=42,43")
    Path(args.folder).mkdir(parents=True, exist_ok=True)
    rows = {}
    for values in itertools.product(*vary.values()):
        setting = dict(zip(vary, values))
        parts = [f"{key}={value}" for key, value in setting.items()]
        found = run_once(str(Path(args.folder, ",".join(parts))), setting, args, rest)
        row = " ".join(part for part in parts if not part.startswith("seed="))
        rows.setdefault(row, []).append(found)
    print(f"\n{'test accuracy':40} {'mean':>8} {'st.dev.':>8} {'seeds':>6} {'baseline':>9}")
    for row, found in rows.items():
        ours, floors = zip(*found)
        spread = f"{stdev(ours):8.2%}" if len(ours) > 1 else f"{'-':>8}"
        floor = f"{mean(floors):9.2%}" if args.baseline else f"{'-':>9}"
        print(f"{row:40} {mean(ours):8.2%} {spread} {len(ours):6} {floor}")


if __name__ == "__main__":
    run_command(main)
