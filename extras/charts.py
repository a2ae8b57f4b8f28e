"""The pictures on the page of extras.report.

Teaches   how to draw measurements so that you can read them on a phone and on paper: one statement
          to a picture, no meaning in a color alone, and an interval around each accuracy of a few
          reviews.
After     extras.calibration. extras.report puts the pictures on a page.

matplotlib draws them as SVG, a text format that a browser shows at any size. Each color becomes a
name ("var(--line)"). The page says twice what the names mean: for light screens and for dark ones.
"""

import io
import re
from statistics import fmean

from evaluate import wilson_interval
from support.errors import extra_packages

# What the page calls its colors, and what we draw with until then: colors that nobody else uses.
COLORS = {"ink": "#010203", "line": "#010305", "other": "#010307", "faint": "#010309"}
# Inches, and points for the letters. 4.6 inches are 331 points, about as many pixels as a phone
# has across: there a letter of 10.5 points is about 10.5 pixels high.
WIDTH, HEIGHT, LETTERS = 4.6, 3.1, 10.5


def new_picture(percent=""):
    """(figure, axes) of matplotlib, without a box around them. UserError if it is missing.

    percent: "y" or "xy", the axes that say 90% instead of 0.9.
    """
    with extra_packages():
        import matplotlib
    from matplotlib.figure import Figure  # not pyplot: that one looks for a screen
    from matplotlib.ticker import PercentFormatter

    ink = COLORS["ink"]
    settings = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.size": LETTERS}
    settings |= {key: ink for key in ("axes.edgecolor", "axes.labelcolor", "xtick.color")}
    settings |= {"ytick.color": ink, "text.color": ink, "legend.frameon": False}
    settings |= {"axes.spines.top": False, "axes.spines.right": False}
    matplotlib.rcParams.update(settings)
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    for name in percent:
        getattr(axes, f"{name}axis").set_major_formatter(PercentFormatter(1, decimals=None))
    return figure, axes


def to_svg(figure, title):
    """The picture as SVG text, as wide as its place on the page. Screen readers read its title."""
    from matplotlib.ticker import PercentFormatter

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = axis.get_view_interval()
        if isinstance(axis.get_major_formatter(), PercentFormatter) and high > 1:
            axis.set_view_interval(low, 1.01, ignore=True)  # no share is over 100 %
    buffer, no_metadata = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would style all the page
    text = re.sub(r' id="[a-z]+[\w.]*_\d+"', "", text)  # an id may stand on a page only once
    opening = re.match(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', text)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    ours = f'<svg {names} viewBox="{opening[1]}" role="img" aria-label="{title}">'
    text = ours + text[opening.end() :]
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
    for name, color in COLORS.items():
        text = text.replace(color, f"var(--{name})")
    return text


def error_bars(axes, xs, counts, **options):
    """Draw shares with their 95 % intervals. counts: [(right, n), ...]."""
    shares = [right / n for right, n in counts]
    ends = [wilson_interval(right, n) for right, n in counts]
    below = [max(0.0, share - low) for share, (low, _) in zip(shares, ends)]
    above = [max(0.0, high - share) for share, (_, high) in zip(shares, ends)]
    axes.errorbar(xs, shares, [below, above], capsize=2, **({"linewidth": 1.2} | options))


# ------------------------------------------------------------------------------ the pictures
def draw_loss(steps, last_steps):
    """The loss of every optimizer step, and a running mean.

    steps: of read_history(). last_steps: the last optimizer step of each epoch.
    """
    figure, axes = new_picture()
    xs, losses = [one["step"] for one in steps], [one["loss"] for one in steps]
    size = max(1, len(losses) // 30)
    means = [fmean(losses[max(0, i - size + 1) : i + 1]) for i in range(len(losses))]
    axes.plot(xs, losses, color=COLORS["faint"], linewidth=0.6)
    axes.plot(xs, means, color=COLORS["line"], linewidth=1.6, label=f"mean of the last {size}")
    for step in last_steps[:-1]:
        axes.axvline(step, color=COLORS["faint"], linestyle=":", linewidth=1)
    axes.set(xlabel="optimizer step (dotted: an epoch ends)", ylabel="loss", ylim=(0, None))
    axes.legend()
    return to_svg(figure, "Loss of every optimizer step")


def draw_epochs(epochs, best):
    """Accuracy and macro F1 on validation after each epoch.

    epochs: run.json's history. best: the number of the epoch that was kept.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_picture("y")
    xs = [one["epoch"] for one in epochs]
    counts = [(one["validation"]["correct"], one["validation"]["n"]) for one in epochs]
    error_bars(axes, xs, counts, color=COLORS["line"], marker="o", markersize=4, label="accuracy")
    f1 = [one["validation"]["macro_f1"] for one in epochs]
    axes.plot(xs, f1, color=COLORS["other"], linestyle="--", marker="s", markersize=3, label="F1")
    share = counts[best - 1][0] / counts[best - 1][1]
    axes.plot([best], [share], "o", markersize=11, fillstyle="none", color=COLORS["ink"])
    axes.annotate(
        "kept", (best, share), (0, 9), textcoords="offset points", ha="center", va="bottom"
    )
    axes.margins(0.12, 0.25)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="epoch", ylabel="validation")
    axes.legend(loc="lower right")
    return to_svg(figure, "Accuracy and F1 on validation after each epoch")


def draw_reliability(before, after):
    """How sure the answers are against how often they are right.

    before, after: of reliability(), without and with a temperature; after may be None.
    """
    figure, axes = new_picture("xy")
    low = min(one["low"] for one in [*before, *(after or [])])
    axes.plot([low, 1], [low, 1], color=COLORS["faint"], linewidth=1)
    for found, name, color, marker, move in (
        (before, "as it is", "line", "o", 0),
        (after, "with temperature", "other", "s", 0.004),
    ):
        if found:
            counts = [(round(one["right"] * one["n"]), one["n"]) for one in found]
            xs = [one["sure"] + move for one in found]  # moved, or the second would hide the first
            error_bars(axes, xs, counts, color=COLORS[color], fmt=marker, markersize=4, label=name)
    axes.set(xlabel="how sure (mean probability of a bin)", ylabel="how often right")
    axes.legend(loc="best")
    return to_svg(figure, "How sure the answers are, and how often they are right")


def draw_coverage(points, floor):
    """Accuracy of the surest answers. points: of coverage(). floor: as in draw_floor()."""
    figure, axes = new_picture("xy")
    axes.plot(*zip(*points), color=COLORS["line"], linewidth=1.6, label="this model")
    draw_floor(axes, floor)
    axes.set(xlabel="answers given, the surest first", ylabel="of these right")
    axes.legend(loc="best")
    return to_svg(figure, "Accuracy of the surest answers")


def draw_lengths(lengths, right, max_length, floor, bins=6):
    """Accuracy of short and of long reviews, in groups of equally many.

    lengths, right: tensors [N]. max_length: longer reviews are cut. floor: as in draw_floor().
    """
    figure, axes = new_picture("y")
    order = lengths.argsort(stable=True)
    groups = [group for group in order.tensor_split(bins) if len(group)]
    xs = [lengths[group].double().mean().item() for group in groups]
    counts = [(int(right[group].sum()), len(group)) for group in groups]
    error_bars(axes, xs, counts, color=COLORS["line"], marker="o", markersize=4, label="this model")
    if xs[0] < max_length < lengths.max():
        axes.axvline(max_length, color=COLORS["ink"], linestyle=":", linewidth=1)
        axes.annotate(
            f"cut if longer than {max_length} ",
            (max_length, 0.02),
            xycoords=("data", "axes fraction"),
            ha="right",
        )
    draw_floor(axes, floor)
    axes.margins(y=0.15)
    axes.set_xscale("log")
    axes.set_xticks([round(x) for x in xs], [str(round(x)) for x in xs])
    axes.minorticks_off()
    axes.set(xlabel=f"tokens (mean of a group of {len(groups[0]):,})", ylabel="right")
    axes.legend(loc="upper right")
    return to_svg(figure, "Accuracy by the length of the review")


def draw_floor(axes, floor):
    """The baseline as a line to compare with. floor: (right, n), or None without a baseline.

    It is one figure for all reviews: the baseline's own surest answers, or its answers to short
    reviews, may be better or worse.
    """
    if floor:
        look = {"color": COLORS["other"], "linestyle": "--", "linewidth": 1.2}
        axes.axhline(floor[0] / floor[1], label="baseline, on all", **look)
