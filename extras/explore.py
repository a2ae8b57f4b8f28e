"""A page about a data set, to look at before anyone trains.

Teaches   to look at the data first. How many rows has each class? How long are the texts, and what
          does a cut at 256 tokens lose? Which texts stand there twice, on both sides of a split?
          Which words tell the classes apart? And which labels may be wrong?
After     dataset.py and extras.baseline. The page looks like that of extras.report.
Run       pip install -r requirements-extra.txt
          python -m extras.explore                        IMDB, as finetune.py takes it
          python -m extras.explore --data reviews.csv --save doubted.csv
          python -m extras.explore --data support/demo_reviews --model demo/untrained
Expect    explore.html, one file for phone, screen and paper; its most important lines are printed
          too. --save writes the rows whose label to check first (see extras/doubt.py).
"""

import re
from collections import Counter

import numpy

from dataset import clean, encode
from extras import charts
from extras.doubt import FOLDS, doubt, save_doubted
from extras.page import card, cards, document, table, text
from support.errors import READING, UserError, check_counts, make_parser, plain, run_command, show
from support.files import check_target, write_whole
from support.hub import connect_to_hub
from support.pretrained import load_tokenizer
from support.tables import HOW, find_label_names, load_source, usable_rows

TAG = re.compile(r"</?[a-zA-Z][^<>]*>|&[a-z]+;|&#\d+;")
CUTS, SHOWN = (128, 256, 512), 300  # SHOWN: letters of a text


# ------------------------------------------------------------------------------ what there is
def load(data, notes, **how):
    """Returns (splits, names, html): the data as they are, nothing held out or drawn.

    splits: {role: {"texts", "labels", "rows"}}; a row's number is that in its file, from 1. html:
    {True: texts with a tag in them, False: others}.
    """
    html = Counter()

    def look(value):
        html[bool(TAG.search(value))] += 1
        return clean(value)

    source = load_source(data, clean=look, **how)
    names = find_label_names(source.splits["train"][1], how.get("labels"), source.classes)
    notes += source.notes
    splits = {}
    for role, (texts, labels) in source.splits.items():
        split = usable_rows(texts, labels, names, role, notes, how.get("labels"), source.classes)
        row_of = {start: row for row, start in enumerate(texts.starts, 1)}  # before any is dropped
        splits[role] = split | {"rows": [row_of[start] for start in split["texts"].starts]}
    return splits, names, html


def find_copies(splits):
    """[(where, rows, of them with another label), ...]: rows whose text stands there twice.

    Texts are compared after clean(). The same text with two labels is a mistake in one of them.
    """
    rows, seen = [], {}
    for role, split in splits.items():
        first, again, other = {}, 0, 0
        for key, label in zip(split["texts"].keys, split["labels"]):
            again += key in first
            other += first.setdefault(key, label) != label
        rows.append((f"twice in {role}", again, other))
        for before, known in seen.items():
            both = [known[key] != label for key, label in first.items() if key in known]
            rows.append((f"in {before} and in {role}", len(both), sum(both)))
        seen[role] = first
    return rows


def losses(lengths, cuts):
    """[(cut, share of the texts that are longer, share of all tokens that are lost), ...]."""
    lengths = numpy.asarray(lengths)  # [N]
    over = [numpy.maximum(lengths - cut, 0) for cut in cuts]
    return [(cut, (more > 0).mean(), more.sum() / lengths.sum()) for cut, more in zip(cuts, over)]


# ------------------------------------------------------------------------------ the page
def draw_lengths(lengths, max_length):
    """How many texts are how long, with the cut."""
    figure, axes = charts.new_picture()
    bins = numpy.geomspace(max(2, min(lengths)), max(lengths) + 1, 40)
    axes.hist(lengths, bins, color=charts.COLORS["line"])
    axes.axvline(max_length, color=charts.COLORS["ink"], linestyle=":", linewidth=1.2)
    where = {"xycoords": ("data", "axes fraction"), "va": "top"}
    axes.annotate(f" cut at {max_length}", (max_length, 1), **where)
    axes.set_xscale("log")
    ticks = [2**n for n in range(1, 16) if bins[0] <= 2**n <= bins[-1]]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="tokens of a text", ylabel="train texts")
    return charts.to_svg(figure, "How long the texts are, in tokens")


def shortened(value):
    """The head of a text, as HTML."""
    return text(value if len(value) <= SHOWN else f"{value[:SHOWN]} ...")


def listed(rows):
    """HTML texts with a heading each. rows: [(heading, text), ...]."""
    return f"<ol>{''.join(f'<li>{text(head)}<p>{shortened(x)}</p></li>' for head, x in rows)}</ol>"


def make_page(splits, names, html, lengths, copies, doubted, telling, notes, args):
    """The cards of the page, as HTML."""
    train, every = splits["train"], sum(html.values())
    sizes = [
        [name, *(f"{split['labels'].count(c):,}" for split in splits.values())]
        for c, name in enumerate(names)
    ]
    sizes.append(["all", *(f"{len(split['labels']):,}" for split in splits.values())])
    cuts = sorted({*CUTS, args.max_length})
    lost = [[f"{n}", f"{cut:.1%}", f"{gone:.1%}"] for n, cut, gone in losses(lengths, cuts)]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    ends = [
        (f"{lengths[i]:,} tokens, {names[train['labels'][i]]}", train["texts"][i])
        for i in [*order[:3], *order[-3:]]
    ]
    words = [f"<p><b>{text(names[c])}</b>: {text(', '.join(w))}</p>" for c, w in telling.items()]
    doubts = [
        (f"row {train['rows'][i]}: is {names[train['labels'][i]]} ({own:.3f}), or {names[other]}?",
         train["texts"][i]) for i, own, other in doubted
    ]
    tags = f"{html[True]:,} of {every:,} texts ({html[True] / every:.1%}) hold HTML"
    parts = [
        card("Rows and classes", table(sizes, ["", *splits]), note=" ".join(notes)),
        card("Length", draw_lengths(lengths, args.max_length)),
        card("What a cut loses", table(lost, ["tokens", "texts cut", "tokens lost"])),
        card("Copies", table([[where, f"{n:,}", f"{other:,}"] for where, n, other in copies],
             ["", "rows", "other label"]), note="finetune.py drops copies between splits."),
        card("HTML", note=f"{tags}. finetune.py makes line breaks spaces and leaves other tags."),
        card("Telling words", *words, note="With the largest weights of a plain model."),
        card("Labels to doubt", listed(doubts), wide=True, note="By a plain model that has not "
             "seen them, the most doubted first. In brackets: how likely it finds the label."),
        card("The shortest and the longest", listed(ends), wide=True),
    ]
    return document(f"What is in {args.data}", cards(*parts))


def main():
    names = f"{READING} model max-length save"
    parser = make_parser(__doc__, names, model="distilbert-base-uncased")
    parser.add_argument("--data", default="stanfordnlp/imdb", help="as for finetune.py")
    parser.add_argument("--doubts", type=int, default=40, help="rows to show (default: 40)")
    parser.add_argument("--out", default="explore.html", help="(default: explore.html)")
    args = parser.parse_args()
    check_counts(args, "doubts")
    if args.max_length < 3:
        raise UserError(f"--max-length {args.max_length}: has to be 3 or more, [CLS] token [SEP]")
    check_target(args.out, args.data, args.model)
    check_target(args.save, args.data, args.model, args.out)
    charts.new_picture()  # if a package is missing, it says so before the work
    connect_to_hub(args.model, args.data)
    notes = []
    splits, names, html = load(args.data, notes, **{name: getattr(args, name) for name in HOW})
    train, tokenizer = splits["train"], load_tokenizer(args.model)
    _, lengths = encode(train["texts"], tokenizer, args.max_length, "head", progress=True)
    copies = find_copies(splits)
    counts = [train["labels"].count(c) for c in range(len(names))]
    few = [f"{name} ({n:,})" for name, n in zip(names, counts) if n < FOLDS]
    if few:
        notes.append(f"classes with fewer than {FOLDS} rows: {', '.join(few)}: misspelt labels?")
    doubted, telling = doubt(train["texts"], train["labels"], args.doubts)
    page = make_page(splits, names, html, lengths, copies, doubted, telling, notes, args)
    for note in notes:
        show("note", note)
    for where, n, other in copies:
        show("copies", f"{n:,} {where}, {other:,} of them with another label")
    for cut, longer, lost in losses(lengths, sorted({*CUTS, args.max_length})):
        show(f"{cut} tokens", f"cut {longer:.1%} of the texts, and lose {lost:.1%} of all tokens")
    if not doubted:
        show("doubt", "no label: of each row its own is the likeliest, or there are too few rows")
    for i, own, other in doubted[:3]:
        what = f"row {train['rows'][i]} is {names[train['labels'][i]]}, or {names[other]}?"
        show("doubt", f"{what} {plain(train['texts'][i])[:40]} ...")
    if args.save:
        save_doubted(args.save, doubted, train, names)
        show("saved", args.save)
    write_whole(args.out, page)
    print(f"{args.out}: open it in a browser")


if __name__ == "__main__":
    run_command(main)
