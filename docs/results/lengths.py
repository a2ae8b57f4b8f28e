"""What truncation cuts and what padding adds, for docs/ideas.md.

Run       python -m docs.results.lengths      writes docs/results/lengths.json
Needs the IMDB reviews and a tokenizer, and no model; a minute.
"""

import json
from pathlib import Path

from dataset import encode, load_splits, make_batches
from extras.kept import command_line
from support.options import parse_arguments
from support.pretrained import load_tokenizer
from support.banner import describe_lengths

RUNS = {
    "first": "--epochs 3 --subset 2000",
    "long": "--max-length 512 --batch-size 32",
}

found = {}
for name, words in RUNS.items():
    args = parse_arguments("", words.split())
    splits, _, _, source = load_splits(args.data, seed=args.seed, subset=args.subset)
    texts = splits["train"]["texts"]
    ids, lengths = encode(texts, load_tokenizer(args.model), args.max_length, args.truncation)
    batches = make_batches([len(one) for one in ids], args.batch_size, args.seed, epoch=0)
    found[name] = {"command": command_line({"arguments": vars(args)})}
    found[name] |= {"data_fingerprint": source.fingerprint, "reviews": len(texts)}
    found[name] |= describe_lengths(lengths, args.max_length, batches, args.seed)
Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
