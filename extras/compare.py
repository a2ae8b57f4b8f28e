"""Which of two models is better?

Teaches   to compare two models review by review. Reviews that both get right, or both wrong, say
          nothing about which model is better.
After     evaluate.py, whose --save writes the files.
Run       python evaluate.py --model model-a --save a.csv
          python evaluate.py --model model-b --save b.csv
          python -m extras.compare a.csv b.csv
Expect    both accuracies, their difference with a 95 % interval, the probability of so large a
          difference if neither were better (McNemar's exact test), and where they disagree.
"""

import json
import math
from statistics import NormalDist

from support.errors import UserError, make_parser, plain, run_command
from support.files import check_target, seen_from_here, write_whole
from support.reading import read_rows


def mcnemar(only_a, only_b):
    """The two-sided p-value of McNemar's exact test (McNemar 1947; exact: the sign test).

    only_a, only_b: reviews that only the one, only the other got right. If neither were better,
    each of these would be a toss of a coin. p is the share of all series of tosses that are at
    least as one-sided.
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))  # whole numbers, so exact
    return min(1.0, 2 * tail / 2**n)


def difference_interval(only_a, only_b, n, confidence=0.95):
    """(difference of the accuracies, low, high), a minus b, of n reviews that both have read.

    The variance of a paired difference is (a + b - (a - b)^2 / n) / n^2, for a and b reviews that
    only the one and only the other got right: reviews on which they agree narrow the interval. One
    more review of each kind is counted first, as Bonett and Price 2012 propose. Without it, five
    against none of a hundred would be certain, and none against none exact.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)  # 1.96 for 95 %
    a, b, more = only_a + 1, only_b + 1, n + 2
    error = z * math.sqrt(a + b - (a - b) ** 2 / more) / more
    center = (a - b) / more
    return (only_a - only_b) / n, max(-1.0, center - error), min(1.0, center + error)


def read_predictions(path):
    """[(text, label, predicted), ...] of a file of evaluate.py --save or predict.py --out."""
    rows = []
    for number, row in enumerate(read_rows(path, ("text", "label", "predicted")), start=1):
        if row["predicted"] and not row["label"]:
            raise UserError(f"{path}, row {number}: has no label, so nobody knows what is right")
        rows.append((row["text"], row["label"], row["predicted"]))
    return rows


def count(path_a, path_b):
    """Returns (counts, rows on which they disagree, rows that one has not answered).

    counts: a dict: "n" reviews that both have answered, of which both, only a, or only b is right.
    Raises UserError if the files are not about the same reviews.
    """
    rows_a, rows_b = read_predictions(path_a), read_predictions(path_b)
    only = "only the same reviews in the same order can be compared"
    if len(rows_a) != len(rows_b):
        raise UserError(f"{path_a} has {len(rows_a):,} rows and {path_b} {len(rows_b):,}: {only}")
    counts, disagree = dict.fromkeys(("n", "both", "only_a", "only_b"), 0), []
    for number, ((*a, said_a), (*b, said_b)) in enumerate(zip(rows_a, rows_b), start=1):
        if a != b:
            both = f"row {number} of {path_a} and of {path_b}"
            raise UserError(f"{both} is not the same review with the same label: {only}")
        if not said_a or not said_b:  # predict.py's rows with an error: nobody is right about them
            continue
        counts["n"] += 1
        counts["both"] += said_a == a[1] == said_b
        counts["only_a"] += said_a == a[1] != said_b
        counts["only_b"] += said_a != a[1] == said_b
        if said_a != said_b:
            disagree.append((*a, said_a, said_b))
    if counts["n"] == 0:
        raise UserError(f"{path_a} and {path_b} have no row that both have answered")
    labels, said = {row[1] for row in rows_a}, {row[2] for row in rows_a + rows_b} - {""}
    if not labels & said:
        what = f"{path_a} has labels such as {rows_a[0][1]!r}, and answers such as {min(said)!r}"
        raise UserError(f"{what}: evaluate.py --save writes both in the same words")
    return counts, disagree, len(rows_a) - counts["n"]


def compare(path_a, path_b, results=None):
    """Print how two models did on the same reviews. results: a JSON file to write the counts to."""
    counts, disagree, unanswered = count(path_a, path_b)
    n, both, only_a, only_b = counts.values()
    if results is not None:
        # Paths as seen from here: whoever reads it elsewhere has other folders.
        record = {"a": seen_from_here(path_a), "b": seen_from_here(path_b)} | counts
        write_whole(results, json.dumps(record, indent=1) + "\n")
    print(f"{n:,} reviews" + f", {unanswered:,} without an answer left out" * (unanswered > 0))
    print(f"\na  {path_a}: accuracy {(both + only_a) / n:.2%}")
    print(f"b  {path_b}: accuracy {(both + only_b) / n:.2%}")
    points = [f"{100 * value:+.2f}" for value in difference_interval(only_a, only_b, n)]
    print(f"a - b: {points[0]} points   95 % interval {points[1]} to {points[2]}")
    print(f"only a right: {only_a:,}   only b right: {only_b:,}   both: {both:,}")
    p = mcnemar(only_a, only_b)
    print(f"McNemar's exact test: p = {p:.3g}")
    if p < 0.05:
        print(f"{'a' if only_a > only_b else 'b'} is better, beyond what chance explains")
    else:
        print("chance alone could make such a difference: only more reviews would tell")
    print(f"\n{len(disagree):,} reviews on which they disagree" + ", among them" * bool(disagree))
    for text, label, a, b in disagree[:: max(1, len(disagree) // 5)][:5]:
        print(f"  is {label}, a: {a}, b: {b}: {plain(text)[:200]}")


def main():
    parser = make_parser(__doc__)
    parser.add_argument("files", nargs=2, metavar="FILE.csv", help="with text, label, predicted")
    parser.add_argument("--results", metavar="FILE.json", help="write the counts, for programs")
    args = parser.parse_args()
    check_target(args.results, *args.files)
    compare(*args.files, args.results)


if __name__ == "__main__":
    run_command(main)
