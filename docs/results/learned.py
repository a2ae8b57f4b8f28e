"""The measured parts of docs/results.md that tell of runs: what comes out, beside what.

Run       python -m docs.pages, which writes them into the page

What was run, docs/results/record.py says.
"""

from statistics import mean

from docs.results import tables
from docs.results.differences import against, figures_of, gain, having, seed_of
from docs.results.record import LIKE_OTHERS, UNLABELLED, options_of
from docs.results.tables import by_seed_and_mean, by_seed_of, command_of, made_on, markdown
from docs.results.tables import measured, minutes_on, over_seeds, read, runs, spread


# ------------------------------------------------------------------------------ the main runs
def recorded():
    """The main runs, seed by seed."""
    rows, every = [], []
    for name in ("imdb-2000", "imdb-all"):
        found = runs(name)
        every += found
        memory = max(one["run"]["results"]["peak_bytes"] for one in found) / 2**30
        row = [f"`{command_of(found[0])}`", *by_seed_and_mean(found), minutes_on(found)]
        rows.append([*row, f"{memory:.1f} GiB", made_on(found)])
    header = ["command", by_seed_of(every), "mean ± st. dev.", "minutes", "peak memory", "made on"]
    (demo,) = figures_of(runs("demo"))
    names = sorted({one["run"]["device"]["name"] for one in every})
    versions = ", ".join(f"{name} {v}" for name, v in every[0]["run"]["versions"].items())
    return (
        f"{markdown(header, rows)}\n\nOn {' and '.join(names)}, with {versions}. The rehearsal "
        f"(`python finetune.py --demo`) gets {measured(demo['correct'], demo['n'])} of its made-up "
        "test reviews right."
    )


# What may become a default: judged by validation alone, before any of it has seen test. With bf16
# and lr-5e-5 the others are compared.
DEFAULTS = "bf16 fp32 batch-8 batch-32 warmup-0 epochs-6 dropout lr-5e-5 lr-2e-5 lr-1e-4 lr-2e-4"


def defaults():
    """Which options are the best by validation."""
    rows = []
    for name, shown, points, found in against(DEFAULTS.split(), "lr-5e-5", "validated"):
        rows.append([f"`{options_of(name)}`", shown, points, made_on(found)])
    header = ["option", "validation accuracy", "points (95 % interval)", "made on"]
    return markdown(header, rows)


def beside_trainer():
    """Trainer's default recipe on the same train and test reviews as the main runs."""
    rows, every = [], []
    for name, peer in (("imdb-2000", "trainer-2000"), ("imdb-all", "trainer-all")):
        ours, theirs = runs(name), sorted(read(f"{peer}-[0-9]*.json"), key=seed_of)
        typed = theirs[0]["run"]["arguments"]
        device = theirs[0]["run"]["device"]
        words = ["OMP_NUM_THREADS=1 python" if device["threads"] == 1 else "python"]
        if (processes := device.get("processes", 1)) > 1:
            words = [f"torchrun --nproc_per_node={processes}"]  # which gives each one thread
        words += ["-m docs.results.trainer", *["--bf16"] * typed["bf16"], "--model $MINILM"]
        words += [f"--{key} {typed[key]}" for key in ("subset", "epochs", "test")]
        for command, found in ((command_of(ours[0]), ours), (" ".join(words), theirs)):
            every += found
            points = gain(ours, theirs) if found is ours else ""
            rows.append([f"`{command}`", *by_seed_and_mean(found), points, made_on(found)])
    header = ["command", by_seed_of(every), "mean ± st. dev."]
    return markdown([*header, "points above Trainer (95 % interval)", "made on"], rows)


# ------------------------------------------------------------------------------ the main runs again
def behaviour():
    """How many sentences of each family are right, seed by seed: a column for each main run."""
    header, columns = ["family"], []
    for name in ("imdb-2000", "imdb-all"):
        found = having(name, "families")
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
            row = [f"`{command_of(one)}`", seed_of(one), f"{top['n'] / n:.0%}"]
            row += [f"{top['sure']:.1%}", f"{top['right']:.1%}", f"{found['temperature']:.2f}"]
            both = [found[when] for when in ("before", "after")]
            row += ["{:.1%} ({:.1%} to {:.1%})".format(*one["error"]) for one in both]
            rows.append([*row, *(f"{one['loss'][0]:.3f}" for one in both)])
    header = ["run", "seed", f"share of {n:,} answers, given with {top['low']:.2f} or more"]
    header += ["it said", "were right", "temperature", "error before", "error after", "loss before"]
    return markdown([*header, "loss after"], rows)


# ------------------------------------------------------------------------------ unlabelled reviews
def unlabelled():
    """What a second model gains that learns from the sure answers of a first one."""
    rows = []
    for size, name in UNLABELLED.items():
        second, first = runs(f"unlabelled-{size}"), runs(name)
        kept = [one["unlabelled"] for one in second]
        share = mean(one["kept"] / one["answered"] for one in kept)
        row = [f"{size:,}", f"{share:.0%} of {kept[0]['answered']:,}"]
        row += [over_seeds(figures_of(found)) for found in (first, second)]
        command = f"`python -m docs.results.unlabelled {size}`"
        rows.append([*row, gain(second, first), command, made_on(second)])
    first, twice = runs(UNLABELLED[250]), runs("250-longer")  # is it their reviews, or the steps?
    row = ["250", "none: twice the epochs", *(over_seeds(figures_of(f)) for f in (first, twice))]
    rows.append([*row, gain(twice, first), f"`{command_of(twice[0])}`", made_on(twice)])
    header = ["labelled", "answers kept", "first model", "second model"]
    return markdown([*header, "points (95 % interval)", "command", "made on"], rows)


# ------------------------------------------------------------------------------ what others quote
# After all 25,000 train reviews, in percent: the paper (Sanh et al. 2019), and cards of public
# models on the hub, the lowest and the highest.
PAPER, CARDS = 92.82, (92.8, 93.2)


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
    "accuracy": beside_trainer,
    "behaviour": behaviour,
    "calibration": calibration,
    "unlabelled": unlabelled,
    "distilbert": distilbert,
}
