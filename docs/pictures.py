"""Draw the pictures of README.md and of the pages here from the files in docs/results.

Run       python -m docs.pictures
Expect    docs/pictures with two SVG files for each picture, one for light pages and one for dark
          ones; the page that shows it picks one. made-of.json holds a fingerprint of the figures of
          each: a test says when a picture is older than its figures.

The pictures of the report and of the app are made by a browser, in tests/test_pictures.py:
          KEEP_PICTURES=1 python -m pytest tests/test_pictures.py
"""

import json
import random
import re
import tempfile
from argparse import Namespace
from pathlib import Path
from statistics import mean, median, stdev

from dataset import encode, make_batches
from docs.results.changes import CURVE, changes, counted_like
from docs.results.differences import figures_of
from docs.results.tables import read, runs
from extras.charts import COLORS, error_bars, new_picture, to_svg
from support import demo
from support.banner import padding_share
from support.files import digest, write_whole
from support.pretrained import load_tokenizer
from support.runs import code_of
from support.tables import load_table

PICTURES = Path(__file__).resolve().parent / "pictures"
# For GitHub's two kinds of pages. No meaning is in a color alone, because not every eye tells them
# apart, and not every printer: lines differ in dashes and markers, bars have their names.
THEMES = {
    "": {"ink": "#1f2328", "line": "#0969da", "other": "#bc4c00", "faint": "#afb8c1"},
    "-dark": {"ink": "#e6edf3", "line": "#58a6ff", "other": "#f0883e", "faint": "#6e7681"},
}


def curve():
    """(what is drawn, how to draw it) of the main job: loss of each step, accuracy of each epoch.

    All functions below return the same: figures that JSON can hold, and a function of no arguments
    that gives the picture as SVG.
    """
    (found,) = read("screen-main.json")
    losses = [one["loss"] for one in found["steps"]]
    ends = [one["optimizer_steps"] for one in found["run"]["history"]]
    counts = [
        (one["validation"]["correct"], one["validation"]["n"]) for one in found["run"]["history"]
    ]

    def draw():
        figure, axes = new_picture()
        figure.set_size_inches(6.4, 2.9)
        steps = range(1, len(losses) + 1)
        means = [mean(losses[max(0, i - 24) : i + 1]) for i in range(len(losses))]
        axes.plot(steps, losses, color=COLORS["faint"], linewidth=0.6)
        axes.plot(steps, means, color=COLORS["line"], linewidth=1.8)
        axes.set(xlabel="optimizer step", ylim=(0, None))
        axes.set_ylabel("train loss (mean of 25 steps)", color=COLORS["line"])
        right = axes.twinx()
        right.spines["right"].set_visible(True)
        look = {"color": COLORS["other"], "marker": "o", "linestyle": "--", "markersize": 5}
        error_bars(right, ends, counts, **look)
        right.set_ylabel("validation accuracy", color=COLORS["other"])
        right.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        right.set_ylim(0.5, 1)  # from a guess to all
        axes.set_xlim(0, 1.03 * ends[-1])
        return to_svg(figure, "Loss falls, accuracy rises")

    return [losses, ends, counts], draw


FAR = 6  # points: how far the picture of the gains reaches


def gains():
    """What each change of the main job gains or costs, and how much of it may be luck."""
    rows = [(option, mean(points), *others) for option, points, *others in changes()]

    def draw():
        figure, axes = new_picture()
        figure.set_size_inches(6.4, 0.8 + 0.3 * len(rows))
        axes.axvline(0, color=COLORS["ink"], linewidth=0.8)
        names = [row[0].replace("`", "") for row in rows[::-1]]
        for at, (_, points, low, high, verdict) in enumerate(rows[::-1]):
            color = COLORS["faint" if verdict == "may be luck" else "line"]
            look = {"marker": "o" if verdict != "may be luck" else "|", "color": color}
            if max(-low, high) > FAR:  # drawn to scale, it would leave no room for the others
                edge, marker, align = (FAR, ">", "right") if points > 0 else (-FAR, "<", "left")
                axes.plot([edge], [at], markersize=7, color=color, marker=marker)
                words = {"s": f"{points:+.1f}", "ha": align, "va": "center"}
                axes.text(0.92 * edge, at, **words, color=COLORS["ink"])
                continue
            axes.plot([low, high], [at, at], color=color, linewidth=2)
            axes.plot([points], [at], markersize=7, **look)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlim(-1.05 * FAR, 1.05 * FAR)
        axes.xaxis.set_major_formatter(lambda points, _: f"{points:+g}" if points else "0")
        told = "(line: 95 % interval;\ngray, no dot: may be luck; triangle: further away)"
        axes.set_xlabel(f"points of test accuracy {told}")
        return to_svg(figure, "Points of accuracy that each change gains or costs")

    return rows, draw


def reviews():
    """Accuracy against train reviews, and the baseline beside it."""
    lines = {"finetune.py (MiniLM)": [], "counting words": []}
    for name in (name for name in CURVE if not name.endswith("-long")):
        ours = runs(name)
        size = ours[0]["run"]["splits"]["train"]["reviews"]
        for found, points in zip((ours, counted_like(ours)), lines.values()):
            shares = [one["correct"] / one["n"] for one in figures_of(found)]
            points.append((size, mean(shares), stdev(shares)))

    def draw():
        figure, axes = new_picture("y")
        styles = (("line", "o", "-"), ("other", "s", "--"))
        for (name, points), (color, marker, style) in zip(lines.items(), styles):
            xs, ys, widths = zip(*points)
            look = {"color": COLORS[color], "marker": marker, "linestyle": style, "capsize": 2}
            axes.errorbar(xs, ys, widths, label=name, markersize=4, **look)
        axes.set_xscale("log")
        axes.set_xticks(xs, [f"{x:,}" for x in xs])
        axes.minorticks_off()
        axes.set(xlabel="train reviews", ylabel="test accuracy")
        axes.legend(loc="lower right")
        return to_svg(figure, "Accuracy by the number of train reviews")

    return list(lines.items()), draw


def truncation():
    """Which end of a long review to keep: accuracy on the reviews that are cut."""
    rows = []
    for length in (128, 256):
        for how in ("head", "tail", "head+tail"):
            name = f"{length}-{how}" if (length, how) != (256, "head+tail") else "bf16"
            found = [one["evaluated"]["by_length"]["longer"] for one in runs(name)]
            shares = [one["correct"] / one["n"] for one in found]
            rows.append((f"{length} tokens, {how}", mean(shares), stdev(shares)))

    def draw():
        figure, axes = new_picture("x")
        names, shares, widths = zip(*rows[::-1])
        color = [COLORS["other" if "128" in name else "line"] for name in names]
        axes.barh(names, shares, xerr=widths, color=color, ecolor=COLORS["ink"], capsize=2)
        # A bar's length should say something, so the axis says where it is cut.
        axes.set_xlim(0.8, 0.88)
        axes.set(xlabel="right, of the reviews that are cut\n(the axis begins at 80%)")
        return to_svg(figure, "Accuracy on long reviews by what is kept of them")

    return rows, draw


def padding():
    """One batch of 16 rehearsal reviews, dealt by length and dealt at random."""
    with tempfile.TemporaryDirectory() as folder:
        args = Namespace(out=folder, model=demo.untrained_folder(folder))
        demo.prepare(args)
        texts = load_table(demo.REVIEWS / "train.csv").splits["train"][0]
        ids, _ = encode(texts, load_tokenizer(args.model), 64, "head+tail")
    lengths = [len(one) for one in ids]
    rows = list(range(len(lengths)))
    random.Random(42).shuffle(rows)
    dealt = {
        "grouped by length": make_batches(lengths, 16, seed=42, epoch=0),
        "dealt at random": [rows[start : start + 16] for start in range(0, len(rows), 16)],
    }
    batches = {}
    for name, found in dealt.items():
        shares = [padding_share(lengths, [batch]) for batch in found]
        # The batch that is most like the others, not the best or the worst of them.
        typical = min(range(len(found)), key=lambda at: abs(shares[at] - median(shares)))
        batches[name] = sorted(lengths[i] for i in found[typical])

    def draw():
        figure, axes = new_picture()
        figure.clear()
        figure.set_size_inches(6.4, 2.6)
        for axes, (name, sizes) in zip(figure.subplots(1, 2, sharex=True), batches.items()):
            share = padding_share(sizes, [range(len(sizes))])
            longest = max(sizes)
            rows = range(len(sizes))
            axes.barh(rows, [longest] * len(sizes), color=COLORS["faint"], height=0.8)
            axes.barh(rows, sizes, color=COLORS["line"], height=0.8)
            axes.set_title(f"{name}: {share:.0%} padding", fontsize=10.5, color=COLORS["ink"])
            axes.set(yticks=[], xlabel="tokens")
        return to_svg(figure, "A batch with little padding, and one with much")

    return list(batches.items()), draw


DRAWN = {
    "curve": curve,
    "gains": gains,
    "reviews": reviews,
    "truncation": truncation,
    "padding": padding,
}


# The pages of which there are pictures, and the files that make them.
SCREENS = {"report": ("report", "charts", "page"), "app": ("app", "explain", "page")}


def code_behind(name):
    """The code that makes a page, without comments. name: of SCREENS."""
    files = [PICTURES.parent.parent / "extras" / f"{file}.py" for file in SCREENS[name]]
    return [code_of(file.read_text(encoding="utf-8")) for file in files]


def write_down(made_of):
    """Add fingerprints to made-of.json. made_of: {name of a picture: fingerprint}."""
    path = PICTURES / "made-of.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_whole(path, json.dumps(dict(sorted((known | made_of).items())), indent=1) + "\n")


def fingerprint(figures):
    """16 letters that change when a figure does; not when a machine rounds the last digit."""
    rounded = json.loads(json.dumps(figures), parse_float=lambda x: round(float(x), 6))
    return digest(json.dumps(rounded).encode())


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    made_of = {}
    for name, picture in DRAWN.items():
        figures, draw = picture()
        made_of[name], svg = fingerprint(figures), draw()
        for theme, colors in THEMES.items():
            shown = re.sub(r"var\(--(\w+)\)", lambda found: colors[found[1]], svg)
            write_whole(PICTURES / f"{name}{theme}.svg", shown)
    write_down(made_of)
