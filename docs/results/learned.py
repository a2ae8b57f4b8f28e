"""The measured parts of docs/results.md that tell of runs, as tables.py has others.

Run       python -m docs.pages, which writes them into the page

What was run, docs/results/record.py says. A difference between two rows is told with an interval
and a verdict: "may be luck", unless all seeds agree on its sign and the interval leaves out 0. Of
one seed nobody knows how much is luck.
"""

from collections import Counter
from statistics import mean, stdev

from docs.results import tables
from docs.results.tables import cells, command_of, markdown, measured, over_seeds, read, runs
from docs.results.tables import search_commands, spread
from extras.compare import difference_interval


# ------------------------------------------------------------------------------ helpers
def figures_of(found, part="evaluated"):
    return [one[part]["figures"] for one in found]


def only_right(one, other, part):
    """(only the one, only the other, n): the reviews of a split that only one of two got right."""
    a, b = (int(run[part]["right"], 16) for run in (one, other))  # a bit for each review
    return (a & ~b).bit_count(), (b & ~a).bit_count(), one[part]["figures"]["n"]


def difference(ours, theirs, part="evaluated"):
    """How far `ours` is above `theirs`: ([points of each seed that both have], low, high, verdict).

    Seed by seed the reviews are counted that only one of the two got right, as extras.compare does.
    The interval is the one of extras.compare for the mean of these counts: three seeds answer the
    same reviews, so they are no more reviews than one seed's. part: "evaluated" (which is test) or
    "validated". None if answers were not recorded.
    """
    if any("right" not in run.get(part, {}) for run in (*ours, *theirs)):
        return None
    ours, theirs = ({one["run"]["arguments"]["seed"]: one for one in f} for f in (ours, theirs))
    both = [seed for seed in ours if seed in theirs]  # another seed draws other train reviews
    counts = [only_right(ours[seed], theirs[seed], part) for seed in both]
    points = [100 * (a - b) / n for a, b, n in counts]
    low, high = (100 * end for end in difference_interval(*map(mean, zip(*counts)))[1:])
    sure = low * high > 0 and len({point > 0 for point in points}) == 1
    verdict = ("better" if low > 0 else "worse") if sure else "may be luck"
    return points, low, high, verdict if len(points) > 1 else "one seed"


def gain(ours, theirs, part="evaluated"):
    """The same in words."""
    found = difference(ours, theirs, part)
    if found is None:
        return "-"
    points, low, high, verdict = found
    more = f" ± {stdev(points):.2f}" if len(points) > 1 else ""
    return f"{mean(points):+.2f}{more} ({low:+.2f} to {high:+.2f}): {verdict}"


def machines(found):
    """On what some runs were made: a sentence for each kind of machine."""
    kinds = Counter()
    for one in found:
        device = one["run"]["device"]
        threads = f"{device['threads']} thread{'s' * (device['threads'] > 1)}"
        kinds[f"{device['name']}, {threads}, {device['precision']}"] += 1
    if len(kinds) == 1:
        return f"On {kinds.popitem()[0]}."
    counted = [f"{kind} ({n} run{'s' * (n > 1)})" for kind, n in kinds.items()]
    return f"On {'; '.join(counted)}."


def having(name, part):
    """The runs of a name that hold such a part. (Without any, their commits are no table's.)"""
    before = len(tables.READ)
    found = [one for one in runs(name) if part in one]
    if not found:
        del tables.READ[before:]
    return found


def against(names, part="evaluated"):
    """Rows (name, figures, points above the first name, runs) of all names that are recorded."""
    first, rows = having(names[0], part), []
    for name in names:
        if found := having(name, part):
            shown = over_seeds(figures_of(found, part))
            rows.append((name, shown, gain(found, first, part) if rows else "", found))
    return rows


# ------------------------------------------------------------------------------ the sections
def recorded():
    """The main runs, seed by seed."""
    rows, every = [], []
    for name in ("imdb-2000", "imdb-all", "demo"):
        found = runs(name)
        every += found
        note = " (a rehearsal, on made-up reviews)" if name == "demo" else ""
        rows.append([f"`{command_of(found[0])}`{note}", *cells(found)])
    header = ["command", "test accuracy by seed (95 % interval, n)", "mean ± st. dev."]
    versions = ", ".join(f"{name} {v}" for name, v in every[0]["run"]["versions"].items())
    return (
        markdown([*header, "minutes", "peak memory"], rows)
        + f"\n\n{machines(every)} With {versions}. Minutes are of training alone, the fastest "
        "epoch times their number, because the machine had other work as well."
    )


# What may become a default: judged by validation alone, before any of it has seen test.
DEFAULTS = ("lr-5e-5", "lr-2e-5", "lr-1e-4", "lr-2e-4")


def defaults():
    """Which options are the best by validation. The first is what the others are compared with."""
    rows, every = [], []
    for name, shown, points, found in against(DEFAULTS, "validated"):
        every += found
        option = f"`--{name.replace('-', ' ', 1)}`"
        rows.append([option, shown, points, search_commands(found, tested=False)])
    header = ["option", "validation accuracy", "points against the first (95 % interval)"]
    return f"{markdown([*header, 'command'], rows)}\n\n{machines(every)}"


def truncation():
    """Which end of a long review matters: accuracy of short and of cut reviews."""
    rows, every = [], []
    names = ["few", "256-tail", "256-head", "128-head+tail", "128-tail", "128-head"]
    for name, _, points, found in against(names):
        parts = [[one["evaluated"]["by_length"][p] for one in found] for p in ("whole", "longer")]
        how = ", ".join(("256-head+tail" if name == "few" else name).split("-", 1))
        rows.append([how, *map(over_seeds, parts), points, search_commands(found)])
        every += found
    header = ["tokens, and which", "accuracy on reviews that fit", "on longer ones"]
    table = markdown([*header, "points, of all, against the first", "command"], rows)
    return f"{table}\n\n{machines(every)}"


def curve():
    """More reviews, and counting words beside them.

    docs/results/counted-SIZE-SEED.json: of `python -m extras.baseline --like MODEL --results FILE`.
    """
    rows, every = [], []
    for size, name in ((250, "250"), (1000, "1000"), (2000, "imdb-2000"), (4000, "4000")):
        found, counted = runs(name), read(f"counted-{size}-*.json")
        of_counts = over_seeds([one["test"] for one in counted])
        rows.append([f"{size:,}", over_seeds(figures_of(found)), of_counts])
        rows[-1].append(search_commands(found))
        every += found
    header = ["train reviews", "`finetune.py`", "`extras/baseline.py`", "command for the first"]
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


# What to type after `python finetune.py --epochs 3 --subset 2000`, what should happen, and the
# name under which it was recorded.
EXPERIMENTS = (
    ("(nothing)", "what the others are compared with", "few"),
    ("--truncation head", "the verdict at the end is cut away: worse", "256-head"),
    ("--max-length 128", "half the tokens, half the time: worse", "128-head+tail"),
    ("--lr 2e-5", "smaller steps, and three epochs are few: worse", "lr-2e-5"),
    ("--lr 1e-4", "larger steps: better or worse, try", "lr-1e-4"),
    ("--lr 1e-3", "far too large: what was pretrained is lost", "lr-1e-3"),
    ("--batch-size 32", "half as many steps: worse, when epochs are few", "batch-32"),
    (
        "--batch-size 8 --accumulate 4",
        "as many reviews to a step as 32, in other company: nearly the same",
        "batch-8x4",
    ),
    (
        "--head-epochs 2 --train-layers 3",
        "two epochs for the head alone: worse, and faster",
        "phases",
    ),
)


def experiments():
    """What else could be changed, one option at a time."""
    typed = {name: (options, expected) for options, expected, name in EXPERIMENTS}
    rows, every = [], []
    for name, shown, points, found in against(list(typed)):
        options, expected = typed[name]
        rows.append([f"`{options}`", expected, shown, points, cells(found)[2]])
        rows[-1].append(search_commands(found))
        every += found
    header = ["add this", "expect", "measured", "points against the first", "minutes"]
    return f"{markdown([*header, 'the whole command'], rows)}\n\n{machines(every)}"


# ------------------------------------------------------------------------------ the main runs again
def seed_of(run):
    return run["run"]["arguments"]["seed"]


def behaviour():
    """How many sentences of each family are right, seed by seed: a column for each main run."""
    header, columns = ["family"], []
    for name in ("imdb-2000", "imdb-all"):
        found = having(name, "families")
        if not found:
            continue
        seeds = ", ".join(str(seed_of(one)) for one in found)
        header.append(f"`{command_of(found[0])}`: right, by seed ({seeds})")
        families = [one["families"] for one in found]
        column = {}
        for family, one in families[0].items():
            rights = ", ".join(str(each[family]["right"]) for each in families)
            column[family] = f"{rights} of {one['n']}"
        totals = [sum(one["right"] for one in each.values()) for each in families]
        n = sum(one["n"] for one in families[0].values())
        shown, share = ", ".join(map(str, totals)), spread([total / n for total in totals])
        column["all"] = f"{shown} of {n}: {share}"
        columns.append(column)
    rows = [[family, *(column[family] for column in columns)] for family in columns[0]]
    return markdown(header, rows)


def calibration():
    """Expected calibration error and loss, before and after the temperature, run by run."""
    rows = []
    for name in ("imdb-2000", "imdb-all"):
        for one in having(name, "calibration"):
            found = one["calibration"]
            top, n = found["surest"], figures_of([one])[0]["n"]
            row = [f"`{command_of(one)} --seed {seed_of(one)}`"]
            row.append(f"{top['n'] / n:.0%}: {top['sure']:.1%} sure, {top['right']:.1%} right")
            row.append(f"{found['temperature']:.2f}")
            both = [found[when] for when in ("before", "after")]
            row += ["{:.1%} ({:.1%} to {:.1%})".format(*one["error"]) for one in both]
            rows.append([*row, "{:.3f}, {:.3f}".format(*(one["loss"][0] for one in both))])
    header = ["run", f"given with {top['low']:.2f} or more", "temperature"]
    header += ["error before (95 % interval)", "error after", "loss before, after"]
    return markdown(header, rows)


# ------------------------------------------------------------------------------ what others quote
# After all 25,000 train reviews, in percent: the paper (Sanh et al. 2019), and cards of public
# models on the hub, the lowest and the highest.
PAPER, CARDS = 92.82, (92.8, 93.2)
LIKE_OTHERS = {"distilbert-2000": "--epochs 3 --subset 2000", "distilbert-all": "--epochs 2"}


def beside_others(found):
    """A run's accuracy, and where the paper's lies beside its interval, in words."""
    (figures,) = figures_of(found)
    low, high = (100 * end for end in figures["accuracy_interval"])
    where = "above" if PAPER > high else "below" if PAPER < low else "in"
    shown = measured(figures["correct"], figures["n"])
    return f"{shown}; the paper's {PAPER} % lies {where} this interval"


def distilbert():
    """DistilBERT's own row: quoted, and measured where somebody has done it."""
    rows = [["the paper, all of train (Sanh et al. 2019)", f"{PAPER} %"]]
    rows += [["cards of public models, all of train", "{} % to {} %".format(*CARDS)]]
    for name, words in LIKE_OTHERS.items():
        known = (tables.RESULTS / f"run-{name}-42.json").exists()
        shown = beside_others(runs(name)) if known else "not measured yet"
        rows.append([f"`python finetune.py {words}`", shown])
    return markdown(["trained", "accuracy on 25,000 test reviews"], rows)


SECTIONS = {
    "main": recorded,
    "defaults": defaults,
    "truncation": truncation,
    "curve": curve,
    "accumulation": accumulation,
    "experiments": experiments,
    "behaviour": behaviour,
    "calibration": calibration,
    "distilbert": distilbert,
}
