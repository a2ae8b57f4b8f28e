"""Appendix U: the pictures of report.py.

Teaches   to draw what was measured so that it can be read on a phone and printed: one statement a
          picture, no color that carries a meaning alone, intervals around the accuracies of
          groups and epochs.
Order     after calibration.py; report.py puts the pictures on a page.
Run       pip install -r requirements-extra.txt && python charts.py loss model > loss.svg
Expect    a picture as SVG, a text format that browsers draw at any size.

matplotlib draws. Its colors are replaced by names ("var(--line)") that the page defines, twice: for
light screens and for dark ones.
"""

import io
import re

from errors import UserError, make_parser, run_command
from evaluate import wilson_interval

# What the page calls its colors, and what stands for them until then: colors that nobody uses.
COLORS = {"ink": "#010203", "line": "#010305", "other": "#010307", "faint": "#010309"}
# Inches. A picture is 331 points wide, so on a phone a point is about a pixel.
WIDTH, HEIGHT, LETTERS = 4.6, 3.1, 10.5


def new_picture():
    """(figure, axes) of matplotlib, without the box around them."""
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(
            "pictures need matplotlib: pip install -r requirements-extra.txt"
        ) from error
    from matplotlib.figure import Figure  # and not pyplot, which looks for a screen

    ink = COLORS["ink"]
    settings = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.size": LETTERS}
    settings |= {key: ink for key in ("axes.edgecolor", "axes.labelcolor", "xtick.color")}
    settings |= {"ytick.color": ink, "text.color": ink, "legend.frameon": False}
    settings |= {"axes.spines.top": False, "axes.spines.right": False}
    matplotlib.rcParams.update(settings)
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    return figure, figure.subplots()


def to_svg(figure, title):
    """The picture as text for a page: of no size, in its colors, with a title to read out."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would be the page's
    text = re.sub(r' id="[a-z]+[\w.]*_\d+"', "", text)  # twice on a page, an id would be wrong
    opening = re.match(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', text)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    ours = f'<svg {names} viewBox="{opening[1]}" role="img" aria-label="{title}">'
    text = ours + text[opening.end() :]
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
    for name, color in COLORS.items():
        text = text.replace(color, f"var(--{name})")
    return text


def percent_axis(axis):
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1, decimals=None))


def error_bars(axes, xs, counts, **options):
    """Shares with their 95 % intervals. counts: [(right, n), ...]."""
    shares = [right / n for right, n in counts]
    ends = [wilson_interval(right, n) for right, n in counts]
    below = [max(0.0, share - low) for share, (low, _) in zip(shares, ends)]
    above = [max(0.0, high - share) for share, (_, high) in zip(shares, ends)]
    axes.errorbar(xs, shares, [below, above], capsize=2, **({"linewidth": 1.2} | options))


# ------------------------------------------------------------------------------ the pictures
def draw_loss(steps, last_steps):
    """The loss of every optimizer step, and a running mean; last_steps: of each epoch."""
    figure, axes = new_picture()
    xs, losses = [one["step"] for one in steps], [one["loss"] for one in steps]
    size = max(1, len(losses) // 30)
    sums = [sum(losses[max(0, i - size + 1) : i + 1]) for i in range(len(losses))]
    means = [total / min(size, i + 1) for i, total in enumerate(sums)]
    axes.plot(xs, losses, color=COLORS["faint"], linewidth=0.6)
    axes.plot(xs, means, color=COLORS["line"], linewidth=1.6, label=f"mean of the last {size}")
    for step in last_steps[:-1]:
        axes.axvline(step, color=COLORS["faint"], linestyle=":", linewidth=1)
    axes.set(xlabel="optimizer step (dotted: an epoch ends)", ylabel="loss", ylim=(0, None))
    axes.legend()
    return to_svg(figure, "Loss of every optimizer step")


def draw_epochs(epochs, best):
    """Accuracy and macro F1 on validation after each epoch. epochs: run.json's history."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_picture()
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
    percent_axis(axes.yaxis)
    axes.set(xlabel="epoch", ylabel="validation")
    axes.legend(loc="lower right")
    return to_svg(figure, "Accuracy and F1 on validation after each epoch")


def draw_reliability(before, after):
    """How sure against how often right; before and after: of calibration.reliability(), or None."""
    figure, axes = new_picture()
    low = min(one["low"] for one in [*before, *(after or [])])
    axes.plot([low, 1], [low, 1], color=COLORS["faint"], linewidth=1)
    for found, name, color, marker, move in (
        (before, "as it is", "line", "o", 0),
        (after, "with temperature", "other", "s", 0.004),
    ):
        if found:
            counts = [(round(one["right"] * one["n"]), one["n"]) for one in found]
            xs = [one["sure"] + move for one in found]  # moved, or one would hide the other
            error_bars(axes, xs, counts, color=COLORS[color], fmt=marker, markersize=4, label=name)
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    axes.set(xlabel="how sure (mean probability of a bin)", ylabel="how often right")
    axes.legend(loc="best")
    return to_svg(figure, "How sure the answers are, and how often they are right")


def draw_coverage(points, floor):
    """Accuracy of the surest answers. points: of coverage(). floor: see draw_floor(), or None."""
    figure, axes = new_picture()
    axes.plot(*zip(*points), color=COLORS["line"], linewidth=1.6, label="this model")
    if floor:
        draw_floor(axes, floor)
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    axes.set(xlabel="answers given, the surest first", ylabel="of these right")
    axes.legend(loc="best")
    return to_svg(figure, "Accuracy of the surest answers")


def draw_lengths(lengths, right, max_length, floor, bins=6):
    """Accuracy of short and long reviews, as many in each group. lengths, right: tensors [N]."""
    figure, axes = new_picture()
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
    if floor:
        draw_floor(axes, floor)
    axes.margins(y=0.15)
    axes.set_xscale("log")
    axes.set_xticks([round(x) for x in xs], [str(round(x)) for x in xs])
    axes.minorticks_off()
    percent_axis(axes.yaxis)
    axes.set(xlabel=f"tokens (mean of a group of {len(groups[0]):,})", ylabel="right")
    axes.legend(loc="upper right")
    return to_svg(figure, "Accuracy by the length of the review")


def draw_floor(axes, floor):
    """The baseline, as a line to compare with. floor: (right, n).

    One figure for all reviews: it says nothing about its own surest answers, nor about one length.
    """
    axes.axhline(
        floor[0] / floor[1],
        color=COLORS["other"],
        linestyle="--",
        linewidth=1.2,
        label="baseline, on all",
    )


def main():
    parser = make_parser(__doc__)
    parser.add_argument("picture", choices=("loss", "epochs"))
    parser.add_argument("folder", nargs="?", default="model", help="of a run (default: model)")
    args = parser.parse_args()
    from checkpoint import read_run
    from history import read_history

    run = read_run(args.folder)
    last_steps = [one["optimizer_steps"] for one in run["history"]]
    if args.picture == "loss":
        text = draw_loss(read_history(args.folder)[0], last_steps)
    else:
        text = draw_epochs(run["history"], run["results"]["best_epoch"])
    # By itself nobody defines the colors.
    for name, color in {
        "ink": "#222",
        "line": "#0a62c4",
        "other": "#c4420a",
        "faint": "#ccc",
    }.items():
        text = text.replace(f"var(--{name})", color)
    print(text)


if __name__ == "__main__":
    run_command(main)
