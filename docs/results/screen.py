"""Record what a run shows: its lines, the loss of each step, how long it took and how much disk.

Run       python -m docs.results.screen main --epochs 3 --subset 2000
Expect    docs/results/screen-main.json, of a run in an empty folder. README.md shows its lines, and
          docs/pictures.py draws its losses. Then predict.py is asked about a sentence. What stands
          behind the name goes to finetune.py. Use a virtual environment with requirements.txt
          alone: its size is recorded, too.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from extras.kept import read_history
from support.files import write_whole
from support.saved import read_run

RESULTS = Path(__file__).resolve().parent
SENTENCE = "I regret watching this film"


def size_of(folder):
    """Bytes of all files below a folder."""
    sizes = []
    for path, _, names in os.walk(folder):
        sizes += [os.lstat(file).st_size for n in names if os.path.exists(file := f"{path}/{n}")]
    return sum(sizes)


def main():
    name, *words = sys.argv[1:]
    scripts, most = RESULTS.parent.parent, 0
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/printed", "w+") as printed:
        began = time.monotonic()
        command = [sys.executable, scripts / "finetune.py", *words]
        run = subprocess.Popen(command, cwd=folder, stdout=printed)  # its bars stay on the screen
        while run.poll() is None:
            most = max(most, size_of(folder))  # checkpoints come and go
            time.sleep(2)
        seconds = time.monotonic() - began
        if run.returncode:
            raise SystemExit(f"finetune.py ended with exit code {run.returncode}")
        printed.seek(0)
        lines = printed.read().splitlines()
        out = Path(folder, re.search(r"^saved in (.*)\. Next:", "\n".join(lines), re.M)[1])
        ask = ["predict.py", *["--model", out.name] * (out.name != "model"), SENTENCE]
        command = [sys.executable, scripts / ask[0], *ask[1:]]
        asked = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
        found = {
            "command": shlex.join(["python", "finetune.py", *words]),
            "lines": lines,
            "question": " ".join(["python", *ask[:-1], f'"{SENTENCE}"']),
            "answer": asked.stdout.splitlines(),
            "seconds": seconds,
            "peak_disk_bytes": most,
            "saved_bytes": size_of(out),
            "environment_bytes": size_of(sys.prefix),  # of a venv with requirements.txt alone
            "steps": read_history(out)[0],
            "run": read_run(out),
        }
    write_whole(RESULTS / f"screen-{name}.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
