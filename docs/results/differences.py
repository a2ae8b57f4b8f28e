"""When two recorded runs differ, and when that may be luck. (learned.py and changes.py tell of it.)

A difference between two rows is told with an interval and a verdict: "may be luck", unless neither
other reviews nor other seeds would turn its sign. With one or two nobody knows how much is luck.
"""

from statistics import mean, stdev

from scipy.stats import t

from docs.results import tables
from docs.results.tables import over_seeds, read
from extras.compare import difference_interval


def seed_of(run):
    return run["run"]["arguments"]["seed"]


def figures_of(found, part="evaluated"):
    return [one[part]["figures"] for one in found]


def only_right(one, other, part):
    """(only the one, only the other, n): the reviews of a split that only one of two got right."""
    a, b = (int(run[part]["right"], 16) for run in (one, other))  # a bit for each review
    return (a & ~b).bit_count(), (b & ~a).bit_count(), one[part]["figures"]["n"]


def difference(ours, theirs, part="evaluated"):
    """How far `ours` is above `theirs`: ([points of each seed that both have], low, high, verdict).

    Seed by seed the reviews are counted that only one of the two got right. The interval is that of
    extras.compare for the mean of these counts: as wide as for one seed. All seeds answer the same
    test reviews, and seeds may hold out the same reviews for validation. So three are not taken for
    more reviews than one; that makes it rather too wide. The verdict also asks what other seeds
    would change: Student's interval of the mean over the seeds has to leave out 0, too. part:
    "evaluated" (of test) or "validated". None if no answers were recorded, or no seed is in both.
    """
    if any("right" not in run.get(part, {}) for run in (*ours, *theirs)):
        return None
    ours, theirs = ({seed_of(one): one for one in found} for found in (ours, theirs))
    both = [seed for seed in ours if seed in theirs]  # another seed draws other train reviews
    if not both:
        return None
    counts = [only_right(ours[seed], theirs[seed], part) for seed in both]
    points = [100 * (a - b) / n for a, b, n in counts]
    low, high = (100 * end for end in difference_interval(*map(mean, zip(*counts)))[1:])
    if len(points) < 3:
        return points, low, high, "too few seeds"
    half = t.ppf(0.975, len(points) - 1) * stdev(points) / len(points) ** 0.5
    sure = low * high > 0 and abs(mean(points)) > half
    return points, low, high, ("better" if low > 0 else "worse") if sure else "may be luck"


def in_points(points, low, high):
    """Mean, deviation over the seeds, and interval, in words."""
    more = f" ± {stdev(points):.2f}" if len(points) > 1 else ""
    middle = round(mean(points), 2) + 0.0  # + 0.0: there is no "-0.00"
    return f"{middle:+.2f}{more} ({low:+.2f} to {high:+.2f})"


def gain(ours, theirs, part="evaluated"):
    """difference() in words."""
    found = difference(ours, theirs, part)
    return "-" if found is None else f"{in_points(*found[:3])}: {found[3]}"


def having(name, part, answers=False):
    """The runs of a name that hold such a part; with answers, each answer as well.

    (Without any, their commits are no table's.)
    """
    before = len(tables.READ)
    found = [one for one in read(f"run-{name}-[0-9]*.json") if part in one]
    found = [one for one in found if not answers or "right" in one[part]]
    if not found:
        del tables.READ[before:]
    return sorted(found, key=seed_of)


def unchanged(name, found, in_fp32, part="evaluated"):
    """What the runs of a name are compared with: runs with the same kind of numbers.

    bf16 drops digits, and the result moves a little. That must not count as an option's doing. Only
    "fp32", which tells of that, is compared with bf16; all else in fp32 with the runs `in_fp32`.
    """
    in_bf16 = found[0]["run"]["device"]["precision"] == "bf16"
    return having("bf16" if in_bf16 or name == "fp32" else in_fp32, part)


def against(names, in_fp32, part="evaluated"):
    """Rows (name, figures, points above the unchanged runs, runs) of all names that are recorded.

    Those that others are compared with, "bf16" and in_fp32, have no points.
    """
    rows = []
    for name in names:
        if found := having(name, part):
            shown = over_seeds(figures_of(found, part))
            like = unchanged(name, found, in_fp32, part)
            points = gain(found, like, part) if name not in ("bf16", in_fp32) else ""
            rows.append((name, shown, points, found))
    return rows
