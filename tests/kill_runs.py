"""Kill runs at random moments, resume them, and compare them with a run that nobody disturbed.

Run       python tests/kill_runs.py --runs 20
Expect    a line for each run: when it was killed, how it went on, and whether its weights, its
          history and its results are those of the undisturbed run, bit for bit. Exit code 1 if not.

SIGKILL cannot be caught: whatever the process was doing is left half done, as when the machine's
power fails. Importing torch takes seconds, so it is done once, and each run is a copy (fork) of the
process that has done it.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(PROJECT))

import transformers

import finetune
from support.errors import run_command

# Imported by name, because transformers loads its parts late.
_ = transformers.DistilBertForSequenceClassification, transformers.DistilBertForMaskedLM

# Dropout, accumulation with a short last window, head first, three epochs; a checkpoint at each
# look, which is every ten steps.
WORDS = (
    "finetune.py --demo --subset 300 --epochs 3 --batch-size 8 --accumulate 3 --head-epochs 1 "
    "--attention-dropout 0.1 --save-every 0"
).split()


def start(words, log):
    """Start finetune.py with these words in a process of its own. Returns its number."""
    child = os.fork()
    if child:
        return child
    os.setpgid(0, 0)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.argv = [str(word) for word in words]
    code = 1
    try:
        run_command(finetune.main)
    except SystemExit as stopped:
        code = stopped.code or 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(child):
    """The exit code of a process; of a killed one the signal's negative number."""
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status)


def kill(child, out, moment, chance, seconds):
    """Kill a run at a random moment of the given kind. Returns (exit code, after how long)."""
    began = time.perf_counter()
    place = {"while a checkpoint is written": out / "checkpoints", "while the model is saved": out}
    least = chance.uniform(0, seconds * (0.3 if moment in place else 1))
    while time.perf_counter() - began < least:
        time.sleep(0.001)
    while moment in place:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:  # it was faster than we
            return os.waitstatus_to_exitcode(status), time.perf_counter() - began
        # A folder .saving-... is there only for some milliseconds.
        if place[moment].is_dir() and any(n.startswith(".sav") for n in os.listdir(place[moment])):
            time.sleep(chance.uniform(0, 0.004))
            break
    os.kill(child, signal.SIGKILL)  # which does no harm to one that has ended
    return wait(child), time.perf_counter() - began


def what_counts(out):
    """Everything that a run leaves behind, but for how long it took and where it is."""
    run = json.loads((out / "run.json").read_text())
    for record in [*run["history"], run["results"]]:
        for key in ("seconds", "reviews_per_second", "peak_bytes"):
            record.pop(key, None)
    run["arguments"] = {
        key: value for key, value in run["arguments"].items() if key not in ("out", "resume")
    }
    run["arguments"]["model"] = None  # of the rehearsal; it lies in --out
    found = {"run.json": json.dumps(run)}
    for name in ("model.safetensors", "history.jsonl", "config.json", "tokenizer.json"):
        found[name] = (out / name).read_bytes()
    found["nothing is left over"] = [name for name in os.listdir(out) if name.startswith(".")]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    root, chance = Path(tempfile.mkdtemp()), random.Random(args.seed)
    began = time.perf_counter()
    code = wait(start([*WORDS, "--out", root / "whole"], root / "whole.log"))
    seconds = time.perf_counter() - began
    if code:
        sys.exit((root / "whole.log").read_text())
    whole = what_counts(root / "whole")
    print(f"undisturbed: {seconds:.1f} s, {whole['history.jsonl'].count(10)} lines of history")
    kinds = ["while a checkpoint is written", "while the model is saved", "at any moment"]
    bad = number = 0
    while number < args.runs:
        out, log = Path(tempfile.mkdtemp(dir=root)), root / f"{number}.log"
        moment, story = kinds[number % 3], []
        child = start([*WORDS, "--out", out], log)
        for _ in range(1 + (number % 4 == 0)):  # every fourth is killed twice
            code, after = kill(child, out, moment, chance, 0.8 * seconds)
            begun = (out / "checkpoints" / "arguments.json").exists()
            words = ["finetune.py", "--resume", out] if begun else [*WORDS, "--out", out]
            story.append(f"killed after {after:.2f} s" if code == -9 else f"ended with {code}")
            if code != -9:
                break
            torn = list(out.glob("checkpoints/.saving-*")) + list(out.glob(".saving-*"))
            story[-1] += " (a half-written folder was left)" if torn else ""
            child = start(words, log)
        else:
            code = wait(child)
        if story == ["ended with 0"]:
            continue  # it was done before it could be killed, and proves nothing
        number += 1
        if code == 0:
            found = what_counts(out)
            differ = [name for name in whole if found[name] != whole[name]]
        else:
            differ = [f"exit code {code}: {log.read_text()[-300:]}"]
        bad += bool(differ)
        print(f"{number:>3} {moment}: {', '.join(story)}: {differ or 'identical'}", flush=True)
    print(f"{args.runs - bad} of {args.runs} runs ended as the undisturbed one")
    shutil.rmtree(root)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
