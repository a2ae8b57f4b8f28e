"""The measured parts of docs/*.md, made from the files beside this one.

Run       python -m docs.pages, which writes them into the pages
"""

import json
from pathlib import Path
from statistics import mean, stdev

from evaluate import wilson_interval
from docs.results.record import MINILM
from extras import benchmark
from extras.kept import command_line

RESULTS = Path(__file__).resolve().parent
READ = []  # the names of the files that a section was made from, for the commit below it


def read(pattern):
    """The result files whose names match, as dicts."""
    paths = sorted(RESULTS.glob(pattern))
    READ.extend(path.name for path in paths)
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def speed():
    """The tables of docs/results/benchmark-*.json, which `python -m extras.benchmark` writes."""
    found = read("benchmark-*.json")
    return "\n\n".join(f"{benchmark.describe(one)}\n\n{benchmark.table(one)}" for one in found)


def profile():
    """Where the time of a training step goes: docs/results/profile.json."""
    (found,) = read("profile.json")
    shares = sorted(found["shares"].items(), key=lambda one: (one[0] == "all else", -one[1]))
    rows = [[kind, f"{share:.1%}"] for kind, share in shares]
    made = f"On {found['hardware']} in {found['precision']}, batches of 16 x 256 tokens:"
    return f"{made}\n\n{markdown(['piece', 'of the time'], rows)}"


# ------------------------------------------------------------------------------ recorded runs
# docs/results/run-NAME-SEED.json, which `python evaluate.py --results FILE` writes after a run.
def runs(name):
    """The recorded runs of a name, one for each seed, as dicts."""
    found = read(f"run-{name}-[0-9]*.json")
    if not found:
        raise SystemExit(f"no docs/results/run-{name}-SEED.json: this run is not recorded yet")
    return sorted(found, key=lambda one: one["run"]["arguments"]["seed"])


def measured(correct, n):
    """A share with its 95 % interval and n, in words."""
    low, high = wilson_interval(correct, n)
    return f"{correct / n:.2%} ({low:.2%} to {high:.2%}, {n:,})"


def command_of(run):
    """The command that repeats a run, without its seed (42 is what nobody has to type)."""
    command = command_line(run["run"] | {"arguments": run["run"]["arguments"] | {"seed": 42}})
    return command.replace(MINILM, "--model $MINILM")  # to keep the tables narrow


def over_seeds(counts):
    """The same figure of each seed, in words. counts: list of {"correct", "n"}, one for a seed."""
    if len(counts) == 1:
        return measured(counts[0]["correct"], counts[0]["n"])
    shares, n = zip(*((one["correct"] / one["n"], one["n"]) for one in counts))
    return f"{spread(shares)} ({len(counts)} seeds, {span(n)} each)"


def span(numbers):
    """A whole number that may differ from seed to seed, in words."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def spread(values):
    """Mean and, of several, standard deviation, in words."""
    return f"{mean(values):.2%}" + (f" ± {stdev(values):.2%}" if len(values) > 1 else "")


def minutes_of(run):
    """Of training: the fastest epoch times their number, because the machine had other work, too.

    Epochs of the head alone are counted apart.
    """
    seconds, head = [one["seconds"] for one in run["history"]], run["arguments"]["head_epochs"]
    return sum(len(some) * min(some) for some in (seconds[:head], seconds[head:]) if some) / 60


def by_seed_of(every):
    """The header of the first of the two cells below."""
    (n,) = {one["evaluated"]["figures"]["n"] for one in every}
    return f"accuracy on {n:,} test reviews, by seed (95 % interval)"


def by_seed_and_mean(found):
    """Two cells: the test accuracies of some runs, seed by seed; their mean, and deviation."""
    by_seed, shares = [], []
    for one in found:
        figures, seed = one["evaluated"]["figures"], one["run"]["arguments"]["seed"]
        low, high = wilson_interval(figures["correct"], figures["n"])
        by_seed.append(f"{seed}: {figures['accuracy']:.2%} ({low:.2%} to {high:.2%})")
        shares.append(figures["accuracy"])
    return ["<br>".join(by_seed), spread(shares)]


def kinds_of(found):
    """{threads, kind of numbers: the runs made so}. A figure's last digits depend on them."""
    kinds = {}
    for one in found:
        device = one["run"]["device"]
        threads = f"{device['threads']} thread{'s' * (device['threads'] > 1)}"
        kinds.setdefault(f"{threads}, {device['precision']}", []).append(one["run"])
    return kinds


def made_on(found):
    """The same in words; with the seeds, where they were not all made on one kind."""
    kinds = kinds_of(found)
    if len(kinds) == 1:
        return kinds.popitem()[0]
    seeds = (", ".join(str(run["arguments"]["seed"]) for run in some) for some in kinds.values())
    return "<br>".join(f"{kind} ({some})" for kind, some in zip(kinds, seeds))


def minutes_on(found):
    """The minutes of the fastest run of each kind, in the same order."""
    return "<br>".join(f"{min(map(minutes_of, some)):.0f}" for some in kinds_of(found).values())


def markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def lengths():
    """The paragraph about padding."""
    (found,) = read("lengths.json")
    first, long = found["first"], found["long"]
    return (
        f"In `{first['command']}`, {first['padding']:.1%} of all numbers in the batches are "
        f"padding. Dealt at random it would be {first['padding_ungrouped']:.1%}. In "
        f"`{long['command']}` it is {long['padding']:.1%}, not {long['padding_ungrouped']:.1%}."
    )


def cuts():
    """How many reviews are too long, and how much of the text is lost."""
    (found,) = read("lengths.json")
    first, long = found["first"], found["long"]
    return (
        f"In `{first['command']}` {first['reviews_cut']:.1%} of the train reviews are too long and "
        f"get cut; together they lose {first['tokens_cut']:.1%} of all tokens. In "
        f"`{long['command']}` it is {long['reviews_cut']:.1%} and {long['tokens_cut']:.1%}."
    )


def validation():
    """How far each kind of validation split is from test; of docs/results/validation.py."""
    (found,) = read("validation.json")
    words = []
    for kind in ("random", "runs"):
        gaps = []
        for one in found:
            held_out, test = (one[kind][role] for role in ("validation", "test"))
            gaps.append(100 * (held_out["correct"] / held_out["n"] - test["correct"] / test["n"]))
        side = "above" if mean(gaps) > 0 else "below"
        words.append(f"{abs(mean(gaps)):.2f} points {side} (standard deviation {stdev(gaps):.2f})")
    sizes = sorted(one["runs"]["validation"]["n"] for one in found)
    return (
        f"Measured with `extras/baseline.py`, {len(found)} seeds, {sizes[0]:,} to {sizes[-1]:,} "
        f"reviews held out: the accuracy on random rows was {words[0]} that on the test split, on "
        f"whole blocks {words[1]} (`python -m docs.results.validation`)."
    )


def width():
    """Wilson's interval for the same share of many reviews, and of few."""
    many, few = ([round(0.88 * n), n] for n in (25_000, 300))
    shown = ["{:.1%} and {:.1%}".format(*wilson_interval(*one)) for one in (many, few)]
    return (
        f"{many[0] / many[1]:.0%} of {many[1]:,} test reviews means that the true accuracy is "
        f"probably between {shown[0]}; {few[0] / few[1]:.0%} of {few[1]}, between {shown[1]}."
    )


SECTIONS = {
    "width": width,
    "lengths": lengths,
    "cuts": cuts,
    "validation": validation,
    "speed": speed,
    "profile": profile,
}
