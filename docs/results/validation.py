"""How far a validation split is from the test split: random rows against whole blocks of rows.

Run       python -m docs.results.validation      writes docs/results/validation.json
          (after pip install -r requirements-extra.txt)
Five seeds of extras/baseline.py on all of IMDB, each with both kinds of validation; some minutes.
"""

import json
import random
from pathlib import Path

from dataset import load_splits, take
from evaluate import score
from extras.baseline import train_baseline


def measure(splits, names):
    """Correct answers and n, on validation and on test, of a baseline that was trained anew."""
    classify = train_baseline(splits, names)[0]
    found = {}
    for role in ("validation", "test"):
        figures = score(classify(splits[role]["texts"]), splits[role]["labels"], names)
        found[role] = {"correct": figures["correct"], "n": figures["n"]}
    return found


found = []
for seed in range(42, 47):
    runs, names, _, source = load_splits("stanfordnlp/imdb", seed=seed)
    # The same reviews once more, but with as many of them drawn at random for validation.
    pool = {key: [*runs["train"][key], *runs["validation"][key]] for key in ("texts", "labels")}
    order = list(range(len(pool["labels"])))
    random.Random(seed).shuffle(order)
    n = len(runs["validation"]["labels"])
    drawn = {"validation": take(pool, order[:n]), "train": take(pool, order[n:])}
    drawn["test"] = runs["test"]
    one = {"seed": seed, "data_fingerprint": source.fingerprint}
    found.append(one | {"runs": measure(runs, names), "random": measure(drawn, names)})
    print(json.dumps(found[-1]))
Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
