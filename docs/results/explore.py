"""What extras.explore finds in IMDB, and how many swapped labels, for docs/explore.md.

Run       python -m docs.results.explore      some ten minutes; writes docs/results/explore.json
Expect    copies, HTML and what cuts lose, as on its page. Then, twenty times: 1,000 reviews, 40 of
          their labels swapped on purpose; how many of the 40 rows that it doubts most are swapped.
"""

import json
import random
from pathlib import Path

from dataset import draw, encode
from extras.doubt import doubt
from extras.explore import CUTS, find_copies, load, losses
from support.large import take
from support.pretrained import load_tokenizer

DATA, MODEL, ROWS, SWAPPED, DRAWS = "stanfordnlp/imdb", "distilbert-base-uncased", 1000, 40, 20

splits, _, html = load(DATA, [])
train = splits["train"]
_, lengths = encode(train["texts"], load_tokenizer(MODEL), 512, "head", progress=True)
hits = []
for seed in range(DRAWS):
    some = take(train, draw(train["labels"], ROWS, seed, equal=True))
    swapped = random.Random(seed).sample(range(ROWS), SWAPPED)
    labels = [1 - c if i in swapped else c for i, c in enumerate(some["labels"])]
    doubted, _ = doubt(some["texts"], labels, SWAPPED)
    hits.append(sum(i in swapped for i, *_ in doubted))
    print(f"draw {seed}: {hits[-1]} of {SWAPPED}", flush=True)
found = {
    "model": MODEL,
    "rows": {role: len(split["labels"]) for role, split in splits.items()},
    "html": [html[True], sum(html.values())],
    "copies": find_copies(splits),
    "losses": [[cut, float(over), float(lost)] for cut, over, lost in losses(lengths, CUTS)],
    "of": [ROWS, SWAPPED],
    "hits": hits,
}
Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
