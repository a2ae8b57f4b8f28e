"""The measured parts of docs/*.md that tell what changes the accuracy, and by how much.

Run       python -m docs.pages, which writes them into the pages

What was run, docs/results/record.py says.
"""

from statistics import mean

from docs.results.differences import against, difference, figures_of, gain, having, machines
from docs.results.differences import in_points, only_right, unchanged
from docs.results.tables import cells, markdown, over_seeds, read, runs, search_commands


def truncation():
    """Which end of a long review matters: accuracy of short and of cut reviews."""
    rows, every = [], []
    names = ["few", "256-tail", "256-head", "128-head+tail", "128-tail", "128-head", "512"]
    for name, _, points, found in against(names):
        parts = [[one["evaluated"]["by_length"][p] for one in found] for p in ("whole", "longer")]
        how = {"few": "256-head+tail", "512": "512-head+tail"}.get(name, name).replace("-", ", ", 1)
        rows.append([how, *map(over_seeds, parts), points, search_commands(found)])
        every += found
    header = ["tokens, and which", "accuracy on reviews that fit", "on longer ones"]
    table = markdown([*header, "points, of all, against the first", "command"], rows)
    return f"{table}\n\n{machines(every)}"


def counted_like(found):
    """extras.baseline's answers to the reviews that some runs were tested on, in a run's form."""
    (n,) = {figures["n"] for figures in figures_of(found)}
    (size,) = {one["run"]["arguments"]["subset"] for one in found}
    counted = read(f"counted-{size}-[0-9]*.json")
    return [{"run": one, "evaluated": one["evaluated"][str(n)]} for one in counted]


def curve():
    """More reviews, and counting words beside them, which learned from and answered the same."""
    rows, every = [], []
    for name in ("250", "250-long", "1000", "1000-long", "imdb-2000", "4000"):
        if found := having(name, "evaluated"):
            counted, asked = counted_like(found), found[0]["run"]["arguments"]
            row = [f"{asked['subset']:,}, {asked['epochs']} epochs"]
            row += [over_seeds(figures_of(one)) for one in (found, counted)]
            rows.append([*row, gain(found, counted), search_commands(found)])
            every += found
    header = ["train reviews", "`finetune.py`", "`extras/baseline.py`"]
    header += ["points above it (95 % interval)", "command for the first"]
    return f"{markdown(header, rows)}\n\n{machines(every)}"


def accumulation():
    """The train loss of each epoch, with large batches and with windows of small ones."""
    words = []
    for name in ("batch-32", "batch-8x4"):
        losses = [f"{epoch['train_loss']:.3f}" for epoch in runs(name)[0]["run"]["history"]]
        words.append(", ".join(losses))
    return (
        "Measured (two rows of [the experiments](results.md#change-one-thing), seed 42): "
        f"the train losses of the epochs were {words[0]} with `--batch-size 32`, and {words[1]} "
        "with `--batch-size 8 --accumulate 4`. They differ a little, because other reviews share a "
        "window there."
    )


# What to type after `python finetune.py --epochs 3 --subset 2000`, why it could matter, our guess,
# and the name under which it was recorded.
EXPERIMENTS = (
    ("(nothing)", "what the others are compared with", None, "few"),
    ("--truncation head", "the verdict at the end is cut away", "worse", "256-head"),
    ("--max-length 128", "half the tokens, half the time", "worse", "128-head+tail"),
    ("--max-length 512", "hardly a word is lost", "better", "512"),
    ("--epochs 6", "twice as long", "better", "epochs-6"),
    ("--lr 2e-5", "smaller steps, and three epochs are few", "worse", "lr-2e-5"),
    ("--lr 1e-4", "larger steps", None, "lr-1e-4"),
    ("--lr 1e-3", "so large that what was pretrained is lost", "worse", "lr-1e-3"),
    ("--warmup 0", "large steps, while the head knows nothing yet", "worse", "warmup-0"),
    ("--batch-size 8", "twice as many steps", None, "batch-8"),
    ("--batch-size 32", "half as many steps, when epochs are few", "worse", "batch-32"),
    (
        "--batch-size 8 --accumulate 4",
        "as many reviews to a step as 32, in other company",
        "worse",
        "batch-8x4",
    ),
    ("--precision bf16", "fewer digits, half the time on a CPU that has it", None, "bf16"),
    ("--head-epochs 2 --train-layers 3", "two epochs for the head alone", "worse", "phases"),
    ("--attention-dropout 0.1", "as transformers has it", None, "dropout"),
)
# What else changes the answers of that run: other data, or other ways to ask its models.
OTHERS = (
    ("--subset 250", "250"),
    ("--subset 1000", "1000"),
    ("--subset 4000", "4000"),
    ("evaluate.py --windows", "windows"),
    ("evaluate.py --precision int8", "int8"),
)


def changes():
    """[(what was changed, points of each of several seeds, low, high, verdict)], the best first."""
    rows, named = [], [(options, name) for options, _, _, name in EXPERIMENTS[1:]]
    for options, name in (*named, *OTHERS):
        found = having(name, "evaluated", answers=True)
        if len(found) > 1:
            rows.append((options, *difference(found, unchanged(name, found, "few"))))
    return sorted(rows, key=lambda row: -mean(row[1]))


def changed():
    """The same as a table."""
    rows = [
        [f"`{options}`", in_points(points, *ends), verdict, len(points)]
        for options, points, *ends, verdict in changes()
    ]
    return markdown(["change", "points (95 % interval)", "verdict", "seeds"], rows)


def experiments():
    """What else could be changed, one option at a time."""
    rows, every, wrong = [], [], []
    for options, why, guess, name in EXPERIMENTS:
        found = having(name, "evaluated")
        if not found:
            continue
        every += found
        points = gain(found, unchanged(name, found, "few")) if rows else ""
        said = points.rpartition(": ")[2]
        if guess and said in ("better", "worse", "may be luck") and said != guess:
            wrong.append(f"`{options}`")
        row = [f"`{options}`", f"{why}: {guess}" if guess else why, over_seeds(figures_of(found))]
        minutes = f"{cells(found)[2]} in {found[0]['run']['device']['precision']}"
        rows.append([*row, points, minutes, search_commands(found)])
    header = ["add this", "our guess", "measured", "points against the first", "minutes"]
    words = f"Guesses that were not confirmed: {', '.join(wrong)}. " if wrong else ""
    table = markdown([*header, "the whole command"], rows)
    return f"{table}\n\n{words}{machines(every)}"


def windows():
    """What reading all of a long review gains."""
    cut, whole = runs("few"), runs("windows")
    right = [over_seeds(figures_of(found)) for found in (whole, cut)]
    return (
        f"The models of the first [main run](#the-main-runs) have {right[0]} right with "
        f"`--windows`, and {right[1]} without it: {gain(whole, cut)}. To repeat it: `python "
        "evaluate.py --subset 5000 --windows --save a.csv`, the same without `--windows` into "
        f"`b.csv`, then `python -m extras.compare a.csv b.csv`."
    )


def whole_numbers():
    """How many answers whole numbers change. With two classes, the wrong answer is one answer."""
    exact, whole = runs("few"), runs("int8")
    changed = [sum(only_right(*pair, "evaluated")[:2]) for pair in zip(whole, exact, strict=True)]
    n = figures_of(exact)[0]["n"]
    return (
        f"Of {n:,} test reviews, {mean(changed) / n:.2%} get another answer in int8 from the "
        f"models of the first [main run](results.md#the-main-runs) ({len(changed)} seeds). "
        f"{over_seeds(figures_of(whole))} are right in int8, {over_seeds(figures_of(exact))} "
        f"without it: {gain(whole, exact)}. To repeat it: `python evaluate.py --subset 5000 "
        f"--precision int8`."
    )


SECTIONS = {
    "changed": changed,
    "truncation": truncation,
    "curve": curve,
    "accumulation": accumulation,
    "experiments": experiments,
    "windows": windows,
    "whole-numbers": whole_numbers,
}
