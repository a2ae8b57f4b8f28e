"""Kill `predict.py --file` three times on its way through a million rows, and read what it wrote.

Run       python finetune.py --demo
          python tests/kill_rows.py --rows 1000000
Expect    the moments of the kills, the memory of each process, and whether every row is there once,
          in its place. Exit code 1 if not.
"""

import argparse
import csv
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def text_of(row):
    """A row's text: every one different, and some with what a CSV file has to quote."""
    opinion = "great, really" if row % 3 else 'a waste;\n"sad"'
    return f"film {row} was {opinion}"


def memory(process):
    """The most memory that a running process has had, in MB (Linux)."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0


def run(words, until=None):
    """Run to the end, or kill it when `until` rows are certain. Returns (exit code, peak in MB)."""
    process = subprocess.Popen(words, cwd=PROJECT, stderr=subprocess.DEVNULL)
    notes, peak = Path(words[words.index("--out") + 1] + ".unfinished.json"), 0
    while process.poll() is None:
        peak = max(peak, memory(process))
        if until and notes.exists() and json.loads(notes.read_text())["rows"] >= until:
            time.sleep(random.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.05)
    return process.returncode, peak


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--model", default="demo")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    words = [sys.executable, "predict.py", "--model", args.model, "--file"]
    peaks = {}
    for rows in (1000, args.rows):
        source = folder / f"{rows}.csv"
        with open(source, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows((text_of(row), row % 2) for row in range(rows))
        kills = sorted(random.sample(range(rows), 3)) if rows > 1000 else []
        command, peaks[rows] = [*words, str(source), "--out", str(folder / "out.csv")], []
        for kill in kills:
            began = time.monotonic()
            code, peak = run(command, kill)
            peaks[rows].append(peak)
            print(f"killed behind row {kill:,} after {time.monotonic() - began:.0f} s: exit {code}")
            command = [*command, "--resume"] if "--resume" not in command else command
        code, peak = run(command)
        peaks[rows].append(peak)
        assert code == 0, code
        if not kills:
            (folder / "out.csv").unlink()
    with open(folder / "out.csv", encoding="utf-8", newline="") as file:
        wrong = count = 0
        for count, row in enumerate(csv.DictReader(file), start=1):
            wrong += row["text"] != text_of(count - 1) or not row["predicted"] or row["error"] != ""
    print(f"{count:,} rows of {args.rows:,}, {wrong:,} of them wrong or in a wrong place")
    print(f"peak memory in MB: 1,000 rows {peaks[1000]}, all rows {peaks[args.rows]}")
    flat = max(peaks[args.rows]) < 1.2 * max(peaks[1000])
    sys.exit(wrong > 0 or count != args.rows or not flat)


if __name__ == "__main__":
    main()
