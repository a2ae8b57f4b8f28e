"""All runs that the pages tell of: what they are, and the command that records them.

Run       python -m docs.results.record                        what is recorded, and what is not
          python -m docs.results.record lr-1e-4 batch-32-43    train, and look at validation alone
          python -m docs.results.record --test imdb-2000       train what is not yet, then test
          (after pip install -r requirements-dev.txt)
Expect    docs/results/run-NAME-SEED.json for each seed. The models stay in the folder recorded/; so
          a run that was stopped goes on when the command is typed again. First the validation
          figures are recorded and committed, then --test adds those of test: while options are
          chosen, no test figure of these runs exists. What is recorded is left as it is; to record
          it anew, delete its file.
"""

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from dataset import draw, draw_rules
from extras.calibration import calibration_error, reliability, temperature_for
from extras.kept import read_answers
from extras.trial import train
from support.errors import UserError, run_command
from support.files import read_json, write_whole

RESULTS = Path(__file__).resolve().parent
MODELS = Path("recorded")
SEEDS = (42, 43, 44)
MINILM = "--model sentence-transformers/all-MiniLM-L6-v2"
MAIN = f"{MINILM} --epochs 3 --subset 2000"
# DistilBERT itself, beside what others quote of it.
LIKE_OTHERS = {"distilbert-2000": "--epochs 3 --subset 2000", "distilbert-all": "--epochs 2"}

# The options of finetune.py, by the name under which a run is recorded. (Of one that stands twice
# the last counts.)
RUNS = {
    "lr-2e-5": f"{MAIN} --lr 2e-5",
    "lr-5e-5": f"{MAIN} --lr 5e-5",
    "lr-1e-4": f"{MAIN} --lr 1e-4",
    "lr-2e-4": f"{MAIN} --lr 2e-4",
    "lr-1e-3": f"{MAIN} --lr 1e-3",
    "imdb-2000": MAIN,
    "imdb-all": f"{MINILM} --epochs 2",
    "250": f"{MAIN} --subset 250",
    "250-long": f"{MAIN} --subset 250 --epochs 24",  # as many steps as 2,000 reviews get
    "250-longer": f"{MAIN} --subset 250 --epochs 48",  # twice as many
    "1000": f"{MAIN} --subset 1000",
    "1000-long": f"{MAIN} --subset 1000 --epochs 6",
    "4000": f"{MAIN} --subset 4000",
    "128-head": f"{MAIN} --max-length 128 --truncation head",
    "128-tail": f"{MAIN} --max-length 128 --truncation tail",
    "128-head+tail": f"{MAIN} --max-length 128",
    "256-head": f"{MAIN} --truncation head",
    "256-tail": f"{MAIN} --truncation tail",
    "512": f"{MAIN} --max-length 512",
    "batch-8": f"{MAIN} --batch-size 8",
    "batch-32": f"{MAIN} --batch-size 32",
    "batch-8x4": f"{MAIN} --batch-size 8 --accumulate 4",
    "phases": f"{MAIN} --head-epochs 2 --train-layers 3",
    "dropout": f"{MAIN} --attention-dropout 0.1",
    "warmup-0": f"{MAIN} --warmup 0",
    "epochs-6": f"{MAIN} --epochs 6",
    "bf16": f"{MAIN} --precision bf16",
    "fp32": f"{MAIN} --precision fp32",
    "demo": "--demo",
} | LIKE_OTHERS
FEW = 5000  # test reviews, the same ones for each run, unless it is in WHOLE
# Of one seed, not of three; and tested on all reviews.
ONE = ("512", "demo", *LIKE_OTHERS)
WHOLE = ("imdb-2000", "imdb-all", "demo", *LIKE_OTHERS)
LOOKED_INTO = ("imdb-2000", "imdb-all")  # calibration and behaviour are recorded as well

# Other ways to ask the model of a run: the run, and the options of evaluate.py.
ASKED = {
    "few": ("imdb-2000", "--subset 5000"),  # the reviews of the rows beside it
    "windows": ("imdb-2000", "--subset 5000 --windows"),
    "int8": ("imdb-2000", "--subset 5000 --precision int8"),
    "all": ("imdb-all", "--subset 5000"),
}
TRAINER = {"trainer-2000": f"{MINILM} --subset 2000 --epochs 3 --test 25000"}
# Labelled reviews, beside unlabelled ones: the run that answers those first.
UNLABELLED = {250: "250-long", 1000: "1000-long"}
LEARNED = {f"unlabelled-{size}": size for size in UNLABELLED}  # from its answers
# Counting words in the same reviews.
COUNTED = {f"counted-{size}": f"--subset {size}" for size in (250, 1000, 2000, 4000)}
COUNTED |= {"counted-all": ""}


def options_of(name):
    """What the run of a name has behind the words of the main job."""
    return RUNS[name].removeprefix(MAIN).strip()


def path_of(name, seed):
    return RESULTS / f"{'run-' if name in (*RUNS, *ASKED, *LEARNED) else ''}{name}-{seed}.json"


def module(*words):
    """Run one of the project's commands; an error there ends this program, too."""
    print(f"\n$ python {shlex.join(map(str, words))}", flush=True)
    if code := subprocess.run([sys.executable, *map(str, words)]).returncode:
        raise SystemExit(code)


def pack(right):
    """Truth values as hexadecimal digits, so that one digit holds four answers."""
    bits = "".join("1" if one else "0" for one in right) + "0" * (-len(right) % 4)
    return f"{int(bits, 2):0{len(bits) // 4}x}"


def answered(path):
    """Each review's (label, whether the answer is right), of a file of `evaluate.py --save`."""
    with open(path, encoding="utf-8", newline="") as file:
        return [(row["label"], row["label"] == row["predicted"]) for row in csv.DictReader(file)]


def rights_of(path):
    return pack([right for _, right in answered(path)])


def record(name, seed, test):
    """Train a run if it has to be; write down its figures: of validation, or of test as well.

    With each figure stands which reviews were right, so that any two runs can be compared.
    """
    if name in TRAINER:
        words = [*TRAINER[name].split(), "--seed", seed, "--results", path_of(name, seed)]
        return module("-m", "docs.results.trainer", *words)
    if name in LEARNED:
        words = [LEARNED[name], "--seed", seed, "--results", path_of(name, seed)]
        return module("-m", "docs.results.unlabelled", *words)
    if name in COUNTED:
        return count_words(name, seed)
    source, options = ASKED.get(name, (name, ""))
    folder = MODELS / f"{source}-{seed}"
    train([*RUNS[source].split(), f"--seed={seed}"], folder, lambda epoch, figures: None)
    found = {"run": read_json(folder / "run.json")}
    if test:
        options = options.split() or ([] if name in WHOLE else ["--subset", FEW])
        kept = [MODELS / f"{name}-{seed}.{kind}" for kind in ("json", "csv")]
        module("evaluate.py", "--model", folder, *options, "--results", kept[0], "--save", kept[1])
        found = read_json(kept[0])
        found["evaluated"]["right"] = rights_of(kept[1])
        if name in LOOKED_INTO:
            kept = MODELS / f"{name}-{seed}-behaviour.json"
            module("-m", "extras.behaviour", "--model", folder, "--results", kept)
            found["families"] = read_json(kept)["families"]
            found["calibration"] = calibration(folder)
    answers = read_answers(folder, "validation")
    right = (answers["logits"].argmax(dim=-1) == answers["labels"]).tolist()
    found["validated"] = {"figures": found["run"]["results"]["validation"], "right": pack(right)}
    forget_folders(found["run"]["arguments"])
    write_whole(path_of(name, seed), json.dumps(found, indent=1) + "\n")
    return None


def forget_folders(arguments):
    """Leave out of a run's options what says nothing to others."""
    arguments["resume"] = None  # a run that was stopped is the same run, to the last bit
    for place in ("out", "model", "data"):  # whoever reads it has other folders
        if os.path.isabs(arguments[place]):
            arguments[place] = os.path.basename(arguments[place])


def count_words(name, seed):
    """Record extras/baseline.py: judged by all of test, and by the reviews that others answer."""
    MODELS.mkdir(exist_ok=True)
    kept = [MODELS / f"{name}-{seed}.{kind}" for kind in ("json", "csv")]
    words = [*shlex.split(COUNTED[name]), "--seed", seed, "--results", kept[0], "--save", kept[1]]
    module("-m", "extras.baseline", *words)
    found, rows = read_json(kept[0]) | {"evaluated": {}}, answered(kept[1])
    for n in (FEW, len(rows)):
        drawn = draw([label for label, _ in rows], n, *draw_rules("test", seed))
        right = [rows[i][1] for i in drawn]
        figures = {"n": len(right), "correct": sum(right)}
        found["evaluated"][str(n)] = {"figures": figures, "right": pack(right)}
    write_whole(path_of(name, seed), json.dumps(found, indent=1) + "\n")


def calibration(folder, draws=500):
    """How honest the probabilities are, before and after the temperature: calibration error, loss.

    Each as [value, low, high]: the ends are those of 95 % of the values of reviews that are drawn
    from these, with replacement (the bootstrap: Efron 1979).
    """
    test, held_out = (read_answers(folder, role) for role in ("test", "validation"))
    temperature, labels = temperature_for(test, held_out), test["labels"]
    found, chance = {"temperature": temperature}, torch.Generator().manual_seed(0)
    found["surest"] = reliability(test["logits"], labels)[-1]  # of its ranges of probabilities
    for name, divisor in (("before", 1.0), ("after", temperature)):
        values = []
        for number in range(1 + draws):
            rows = torch.randint(len(labels), (len(labels),), generator=chance)
            rows = rows if number else torch.arange(len(labels))  # at first all, each once
            logits = test["logits"][rows] / divisor
            error = calibration_error(reliability(logits, labels[rows]))
            values.append([error, cross_entropy(logits, labels[rows]).item()])
        ends = torch.tensor(values[1:]).quantile(torch.tensor([0.025, 0.975]), dim=0)
        columns = zip(values[0], *ends.tolist())
        found[name] = dict(zip(("error", "loss"), map(list, columns)))
    return found


def state(path):
    """What a result file holds, in a word."""
    if not path.exists():
        return "-"
    return "tested" if "evaluated" in read_json(path) else "validated"


def main():
    words = sys.argv[1:]
    test, names = "--test" in words, [word for word in words if word != "--test"]
    all_names = (*RUNS, *ASKED, *LEARNED, *TRAINER, *COUNTED)
    every = [(name, s) for name in all_names for s in (SEEDS[:1] if name in ONE else SEEDS)]
    if not names:
        for name, seed in every:
            print(f"{name + '-' + str(seed):20} {state(path_of(name, seed))}")
    todo = []
    for word in names:
        found = [one for one in every if word in (one[0], f"{one[0]}-{one[1]}")]
        if not found:
            raise UserError(f"{word} is no run: python -m docs.results.record lists them")
        if not test and found[0][0] in (*ASKED, *LEARNED, *TRAINER, *COUNTED):
            raise UserError(f"{word} has no validation figures of its own: add --test")
        todo += found
    wanted = ("-", "validated") if test else ("-",)
    todo = [one for one in todo if state(path_of(*one)) in wanted]
    if len(todo) == 1:
        return record(*todo[0], test)
    # Each in a program of its own, or the memory of one would count for the next.
    for name, seed in todo:
        module("-m", "docs.results.record", f"{name}-{seed}", *["--test"] * test)
    return None


if __name__ == "__main__":
    run_command(main)
