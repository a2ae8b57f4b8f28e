"""What truncation cuts and what padding adds, for the README.

Run       python results/lengths.py      writes results/lengths.json
Needs the IMDB reviews and a tokenizer, and no model; a minute.
"""

import json
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parent
sys.path.insert(0, str(RESULTS.parent))

from banner import describe_lengths
from dataset import encode
from model import load_tokenizer
from plan import command_line, parse_arguments
from splits import load_splits

RUNS = {
    "first": "--epochs 3 --subset 2000",
    "long": "--max-length 512 --batch-size 32",
}

found = {}
for name, words in RUNS.items():
    args = parse_arguments("", words.split())
    splits, _, _, data_fingerprint = load_splits(args.data, seed=args.seed, subset=args.subset)
    texts = splits["train"]["texts"]
    _, lengths = encode(texts, load_tokenizer(args.model), args.max_length, args.truncation)
    found[name] = {"command": command_line(vars(args)), "data_fingerprint": data_fingerprint}
    found[name] |= {"reviews": len(texts)} | describe_lengths(args, lengths)
(RESULTS / "lengths.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
