"""Write the README's measured tables from the files beside this one.

Run       python results/tables.py
Expect    README.md with its tables anew; `git diff README.md` shows which figures have changed.
A test fails when the README says anything else than these files.
"""

import json
import os
import sys
from pathlib import Path
from statistics import mean, stdev

RESULTS = Path(__file__).resolve().parent
sys.path.insert(0, str(RESULTS.parent))

import benchmark
from evaluate import wilson_interval


def read(pattern):
    """The result files whose names match, as dicts."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob(pattern))]


def speed():
    """The tables of results/benchmark-*.json, which `python benchmark.py` writes."""
    found = read("benchmark-*.json")
    return "\n\n".join(f"{benchmark.describe(one)}\n\n{benchmark.table(one)}" for one in found)


def accuracy():
    """The table of results/accuracy-*.json: for each way of training, every seed and their mean.

    A file holds "title", "note" and "runs", a run being a dict of "way", "seed", "correct", "n".
    """
    lines = []
    for found in read("accuracy-*.json"):
        lines += [f"{found['title']}:", ""]
        lines += ["| way | accuracy by seed (95 % interval, n) | mean, standard deviation |"]
        lines += ["|---|---|---|"]
        for way in dict.fromkeys(run["way"] for run in found["runs"]):
            runs = [run for run in found["runs"] if run["way"] == way]
            shares, cells = [], []
            for run in runs:
                share, (low, high) = (
                    run["correct"] / run["n"],
                    wilson_interval(run["correct"], run["n"]),
                )
                shares.append(share)
                cells.append(f"{run['seed']}: {share:.2%} ({low:.2%} to {high:.2%}, {run['n']:,})")
            spread = f"{mean(shares):.2%}" + (f", {stdev(shares):.2%}" if len(shares) > 1 else "")
            lines.append(f"| {way} | {'; '.join(cells)} | {spread} |")
        lines += ["", found["note"], ""]
    return "\n".join(lines).rstrip()


def baseline():
    """The table of results/baseline-*.json, which `python baseline.py --results FILE` writes."""
    lines = ["| train reviews | command | test accuracy (95 % interval, n) | seconds |"]
    lines += ["|---|---|---|---|"]
    for found in sorted(read("baseline-*.json"), key=lambda one: one["train_reviews"]):
        test, subset = found["test"], found["arguments"]["subset"]
        low, high = wilson_interval(test["correct"], test["n"])
        command = "python baseline.py" + (f" --subset {subset}" if subset else "")
        lines.append(
            f"| {found['train_reviews']:,} | `{command}` | {test['correct'] / test['n']:.2%} "
            f"({low:.2%} to {high:.2%}, {test['n']:,}) | {found['seconds']:.0f} |"
        )
    return "\n".join(lines)


SECTIONS = {"speed": speed, "accuracy": accuracy, "baseline": baseline}


def rewrite(text):
    """README.md's text with every section between its two marks written anew."""
    for name, write in SECTIONS.items():
        start, end = f"<!-- {name}: results/tables.py writes this -->\n", f"\n<!-- {name} ends -->"
        before, rest = text.split(start)
        text = before + start + write() + end + rest.split(end, 1)[1]
    return text


if __name__ == "__main__":
    readme = RESULTS.parent / "README.md"
    new = rewrite(readme.read_text(encoding="utf-8"))
    readme.with_suffix(".new").write_text(new, encoding="utf-8")
    os.replace(readme.with_suffix(".new"), readme)
