"""How many answers whole numbers change, for docs/speed.md.

Run       python evaluate.py --model model --subset 5000 --precision fp32 --save exact.csv
          python evaluate.py --model model --subset 5000 --precision int8 --save whole.csv
          python -m docs.results.int8 exact.csv whole.csv model      writes docs/results/int8.json
"""

import csv
import json
import sys
from pathlib import Path

from model import choose_device
from support.devices import hardware_name
from support.files import read_json

exact, whole = (list(csv.DictReader(open(path, encoding="utf-8"))) for path in sys.argv[1:3])
pairs = list(zip(exact, whole, strict=True))
assert all(one["text"] == other["text"] for one, other in pairs), "not the same reviews"
found = {
    "model": read_json(Path(sys.argv[3], "run.json"))["arguments"]["model"],
    "hardware": hardware_name(choose_device("cpu")[0]),
    "n": len(pairs),
    "equal": sum(one["predicted"] == other["predicted"] for one, other in pairs),
    "fp32": sum(row["predicted"] == row["label"] for row in exact),
    "int8": sum(row["predicted"] == row["label"] for row in whole),
}
Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
print(found)
