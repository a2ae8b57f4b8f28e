"""A search of twelve trials beside a grid of twelve settings, on the rehearsal, for docs/search.md.

Run       W="--demo --subset 1000 --epochs 4"
          python -m extras.search --folder grid lr=3e-4,1e-3,3e-3 batch-size=8,16,32,64 --grid -- $W
          python -m extras.search --folder tpe lr=1e-4..1e-2 batch-size=8..64 --trials 12 -- $W
          and each one's best again with seeds that chose nothing: seed=1,2,3,4,5 --grid,
          with --folder grid-again and tpe-again
          python -m docs.results.search grid tpe      writes docs/results/search.json
"""

import json
import sys
from pathlib import Path

import optuna

found = {}
for folder in sys.argv[1:]:
    first, again = (
        optuna.load_study(study_name=None, storage=f"sqlite:///{name}/study.db").trials
        for name in (folder, f"{folder}-again")
    )
    whole = [trial for trial in first if trial.state.name == "COMPLETE"]
    best = max(whole, key=lambda trial: trial.value)
    found[folder] = {
        "trials": len(first),
        "stopped": sum(trial.state.name == "PRUNED" for trial in first),
        "epochs": sum(len(trial.intermediate_values) + (trial in whole) for trial in first),
        "best": best.params,
        "validation": best.value,
        "again": again[0].user_attrs["values"],
        "reviews": best.user_attrs["reviews"],
    }
Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
print(json.dumps(found, indent=1))
