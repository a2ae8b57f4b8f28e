"""The measured parts of docs/*.md that tell what changes the accuracy, and by how much.

Run       python -m docs.pages, which writes them into the pages

What was run, docs/results/record.py says.
"""

from statistics import mean

from docs.results.differences import against, difference, figures_of, gain, having, in_points
from docs.results.differences import only_right, unchanged
from docs.results.record import options_of
from docs.results.tables import made_on, markdown, minutes_on, over_seeds, read, runs, span


def truncation():
    """Which end of a long review matters: accuracy of short and of cut reviews."""
    rows = []
    names = ["bf16", "256-tail", "256-head", "128-head+tail", "128-tail", "128-head", "512"]
    for name, _, points, found in against(names, "few"):
        parts = [[one["evaluated"]["by_length"][p] for one in found] for p in ("whole", "longer")]
        asked = found[0]["run"]["arguments"]
        row = [f"{asked['max_length']}, {asked['truncation']}", *map(over_seeds, parts), points]
        rows.append([*row, f"`{options_of(name)}`", made_on(found)])
    header = ["tokens, and which", "accuracy on reviews that fit", "on longer ones"]
    return markdown([*header, "points, of all (95 % interval)", "OPTION", "made on"], rows)


def counted_like(found):
    """extras.baseline's answers to the reviews that some runs were tested on, in a run's form."""
    (n,) = {figures["n"] for figures in figures_of(found)}
    (size,) = {one["run"]["arguments"]["subset"] or "all" for one in found}
    counted = read(f"counted-{size}-[0-9]*.json")
    return [{"run": one, "evaluated": one["evaluated"][str(n)]} for one in counted]


# All in one precision, and asked about the same test reviews.
CURVE = ("250", "250-long", "1000", "1000-long", "bf16", "4000", "all")


def curve():
    """More reviews, and counting words beside them, which learned from and answered the same."""
    rows = []
    for name in CURVE:
        if found := having(name, "evaluated"):
            counted = counted_like(found)
            reviews = span([one["run"]["splits"]["train"]["reviews"] for one in found])
            row = [f"{reviews}, {found[0]['run']['arguments']['epochs']} epochs"]
            row += [over_seeds(figures_of(one)) for one in (found, counted)]
            rows.append([*row, gain(found, counted), shown(name), made_on(found)])
    header = ["train reviews", "`finetune.py`", "`extras/baseline.py`"]
    return markdown([*header, "points above it (95 % interval)", "OPTION", "made on"], rows)


def accumulation():
    """The train loss of each epoch, with large batches and with windows of small ones."""
    words = []
    for name in ("batch-32", "batch-8x4"):
        losses = [f"{epoch['train_loss']:.3f}" for epoch in runs(name)[0]["run"]["history"]]
        words.append(", ".join(losses))
    return (
        "Measured (two rows of [the experiments](results.md#change-one-thing), seed 42): "
        f"the train losses of the epochs were {words[0]} with `--batch-size 32`, and {words[1]} "
        "with `--batch-size 8 --accumulate 4`. They differ a little, because there other reviews "
        "share a window, and dropout draws other numbers."
    )


# What is changed in the main job, by the name under which it was recorded; why that could matter,
# and our guess. With the first the others are compared.
EXPERIMENTS = (
    ("bf16", "numbers of 16 bits: what a CPU takes that has them", None),
    ("fp32", "numbers of 32 bits: slower there, and what others take", None),
    ("256-head", "the verdict at the end is cut away", "worse"),
    ("256-tail", "all room for the end of a review", None),
    ("128-head+tail", "half the tokens, half the time", "worse"),
    ("512", "hardly a word is lost", "better"),
    ("epochs-6", "twice as long", "better"),
    ("lr-1e-3", "so large that what was pretrained is lost", "worse"),
    ("warmup-0", "large steps, while the head knows nothing yet", "worse"),
    ("batch-8", "twice as many steps", None),
    ("batch-32", "half as many steps, when epochs are few", "worse"),
    ("batch-8x4", "32 reviews to a step, with the memory of 8", "worse"),
    ("phases", "two epochs for the new head alone, one for three layers", "worse"),
    ("dropout", "more is dropped at random, as the checkpoint asks for", None),
)
# What else changes the answers of that run: other data, or other ways to ask its models.
OTHERS = ("250", "1000", "4000", "all", "windows", "int8")
# Where that is no option of the main job.
IN_WORDS = {
    "all": "all reviews, `--epochs 2`",
    "windows": "`evaluate.py --windows`",
    "int8": "`evaluate.py --precision int8`",
}


def shown(name):
    """What is changed in the main job, as it is typed."""
    return IN_WORDS[name] if name in IN_WORDS else f"`{options_of(name)}`"


def changes():
    """[(what was changed, points of each of several seeds, low, high, verdict)], the best first."""
    rows = []
    for name in (*(name for name, *_ in EXPERIMENTS[1:]), *OTHERS):
        found = having(name, "evaluated", answers=True)
        if len(found) > 1 and (told := difference(found, unchanged(name, found, "few"))):
            rows.append((shown(name), *told))
    return sorted(rows, key=lambda row: -mean(row[1]))


def changed():
    """The same as a table."""
    rows = [
        [words, in_points(points, *ends), verdict, len(points)]
        for words, points, *ends, verdict in changes()
    ]
    return markdown(["change", "points (95 % interval)", "verdict", "seeds"], rows)


def experiments():
    """What else could be changed, one option at a time."""
    rows, guesses = [], {"came true": [], "did not": [], "stay open": []}
    for name, why, guess in EXPERIMENTS:
        found = having(name, "evaluated")
        if not found:
            continue
        points = gain(found, unchanged(name, found, "few")) if rows else ""
        said = points.rpartition(": ")[2]
        if guess and said in ("better", "worse", "may be luck"):
            how = {guess: "came true", "may be luck": "stay open"}.get(said, "did not")
            guesses[how].append(shown(name))
        row = [shown(name), f"{why}: {guess}" if guess else why, over_seeds(figures_of(found))]
        rows.append([*row, points, minutes_on(found), made_on(found)])
    header = ["OPTION", "our guess", "accuracy", "points (95 % interval)", "minutes", "made on"]
    told = [f"Guesses that {how}: {', '.join(some)}." for how, some in guesses.items() if some]
    return f"{markdown(header, rows)}\n\n{' '.join(told)}"


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
