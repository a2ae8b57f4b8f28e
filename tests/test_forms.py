"""Files as people have them are read right at the first try, for training, judging and answering.

Each form is a small file of our own, written as its makers write theirs. What is read is compared
with pandas, which is told everything: separator, encoding, quotes, names. We have to find it out.
"""

import csv
import gzip
import io
import json
import re
import tempfile
import zipfile
from pathlib import Path

import pandas
import pytest
from conftest import PROJECT, run_script
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dataset import load_split, load_splits
from support.errors import UserError
from support.reading import open_table, texts_and_labels
from support.rows import open_asked
from support.tables import find_label_names, load_source
from support.textfiles import choose_columns

TEXTS = (
    "Loved it, every minute",
    '"Never again", he said, and left "early',
    "Na\u00efve but charming: caf\u00e9 scenes, 5 \u20ac well spent",
    "NA",
    "not bad; not good | so so",
    "It isn't over until\tit is over",
)
ROWS = [(f"{TEXTS[i % 6]} {i}" if i % 6 != 3 else "NA", ("neg", "pos")[i % 2]) for i in range(40)]
NUMBERED = [(text, str(int(label == "pos") + 1)) for text, label in ROWS]
# Where a format cannot hold a tab or a line end in a text.
SIMPLE = [(text.replace("\t", " "), label) for text, label in ROWS]


def dump(rows, header=("text", "label"), delimiter=",", end="\r\n", **options):
    """Rows as a text, as Python's csv module writes them."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, **options)
    writer.writerows([header, *rows] if header else rows)
    return out.getvalue()


def told(path, text="text", label="label", **everything):
    """What pandas reads when it is told everything: [(text, label), ...]."""
    table = pandas.read_csv(path, dtype=str, keep_default_na=False, **everything)
    return list(zip(table[text], table[label]))


FORMS = {}  # name: (function(folder) that returns a path and the rows that are in it, options)


def form(name, **typed):
    return lambda make: FORMS.update({name: (make, typed)})


def text_form(name, content, suffix=".csv", encoding="utf-8", rows=None, typed=None, **everything):
    """A form that is one text file. everything: for pandas; rows: if pandas cannot read it."""

    def make(folder):
        path = folder / f"reviews{suffix}"
        path.write_bytes(content.encode(encoding))
        if rows is not None:
            return path, rows
        return path, told(path, **{"encoding": encoding} | everything)

    FORMS[name] = make, typed or {}


# ------------------------------------------------------------------------------ separators
text_form("comma", dump(ROWS))
text_form("semicolon, as Excel writes in half of Europe", dump(ROWS, delimiter=";"), sep=";")
text_form("tab in a .csv", dump(ROWS, delimiter="\t"), sep="\t")
text_form("pipe", dump(ROWS, delimiter="|"), sep="|")
text_form("Excel's line sep=;", "sep=;\r\n" + dump(ROWS, delimiter=";"), sep=";", skiprows=1)
text_form("line ends of Unix", dump(ROWS, end="\n"))
text_form("an empty first line", "\r\n" + dump(ROWS))
text_form("every cell in quotes", dump(ROWS, quoting=csv.QUOTE_ALL))
text_form(
    "blanks before quotes",
    dump(ROWS, quoting=csv.QUOTE_ALL).replace('","', '", "'),
    skipinitialspace=True,
)
text_form(
    "empty columns of a spreadsheet", dump([(*r, "", "") for r in ROWS], ["text", "label", "", ""])
)
text_form("line ends in texts", dump([(f"{t}\nand\r\nmore", y) for t, y in ROWS]))
# ------------------------------------------------------------------------------ encodings
text_form("UTF-8 with its mark", dump(ROWS), encoding="utf-8-sig")
text_form("UTF-16 of Windows", dump(ROWS), encoding="utf-16")
text_form("UTF-16, big end first", "\ufeff" + dump(ROWS), encoding="utf-16-be", rows=ROWS)
text_form("cp1252, as Windows wrote", dump(ROWS), encoding="cp1252")
# ------------------------------------------------------------------------------ names
text_form(
    "names in upper case, with blanks",
    dump(ROWS, (" Review ", "SENTIMENT")),
    text=" Review ",
    label="SENTIMENT",
)
text_form("stars and content", dump(NUMBERED, ("content", "stars")), text="content", label="stars")
text_form(
    "an index column of pandas", dump([(i, *r) for i, r in enumerate(ROWS)], ("", "text", "label"))
)
text_form("the names 0 and 1 of pandas", dump(ROWS, ("0", "1")), text="0", label="1")
text_form("coarse, of TREC", dump(ROWS, ("text", "coarse")), label="coarse")
text_form(
    "a title and a text, joined",
    dump([("A title", *row) for row in ROWS], ("title", "text", "label")),
    rows=[(f"A title\n\n{text}", label) for text, label in ROWS],
    typed={"text_column": "title,text"},
)
text_form(
    "Kaggle's SMS spam: v1, v2 and cp1252",
    dump([(y, t, "", "", "") for t, y in ROWS], ("v1", "v2", "", "", "")),
    encoding="cp1252",
    text="v2",
    label="v1",
)
# ------------------------------------------------------------------------------ no names
NAMELESS = {"header": None, "text": 1, "label": 0}
text_form(
    "Yelp: no names, label and text",
    dump([(y, t) for t, y in NUMBERED], None, quoting=csv.QUOTE_ALL),
    **NAMELESS,
)
text_form(
    "SMS spam: no suffix, no names, quotes are letters",
    "".join(f"{y}\t{t}\n" for t, y in SIMPLE),
    "",
    sep="\t",
    quoting=3,
    **NAMELESS,
)
text_form(
    "AG News: no names, title and description",
    dump([(y, "A title", t) for t, y in NUMBERED], None, quoting=csv.QUOTE_ALL),
    rows=[(f"A title\n\n{text}", label) for text, label in NUMBERED],
    typed={"text_column": "2,3", "label_column": "1"},
)
text_form(
    "Sentiment140: six columns without names",
    dump(
        [
            (y, i, "Mon Apr 06 22:19:45 PDT 2009", "NO_QUERY", "user", t)
            for i, (t, y) in enumerate(NUMBERED)
        ],
        None,
        quoting=csv.QUOTE_ALL,
    ),
    encoding="cp1252",
    header=None,
    text=5,
    label=0,
    typed={"text_column": "6", "label_column": "1"},
)
text_form(
    "CoLA: a TSV of four columns without names",
    "".join(f"gj04\t{y}\t\t{t}\n" for t, y in SIMPLE),
    ".tsv",
    sep="\t",
    quoting=3,
    header=None,
    text=3,
    label=1,
    typed={"text_column": "4", "label_column": "2"},
)
# ------------------------------------------------------------------------------ tabs
text_form(
    "SST-2: a TSV in which quotes are letters",
    "sentence\tlabel\n" + "".join(f"{t}\t{y}\n" for t, y in SIMPLE),
    ".tsv",
    sep="\t",
    quoting=3,
    text="sentence",
)
text_form(
    "a TSV with cells in quotes",
    dump([(f"{t}\tand\nmore\t", y) for t, y in ROWS], delimiter="\t"),
    ".tsv",
    sep="\t",
)
text_form(
    "a .txt with tabs", dump(SIMPLE, delimiter="\t", quotechar="\0"), ".txt", sep="\t", quoting=3
)
# ------------------------------------------------------------------------------ JSON
LINES = "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in ROWS)
text_form("JSON, an object a line", LINES, ".jsonl", rows=ROWS)
text_form("the same, called .ndjson", LINES, ".ndjson", rows=ROWS)
text_form("the same, called .json", LINES, ".json", rows=ROWS)
text_form("the same, without a suffix", LINES, "", rows=ROWS)
text_form(
    "JSON, a list of objects",
    json.dumps([{"text": t, "label": y} for t, y in ROWS], indent=1),
    ".json",
    rows=ROWS,
)
text_form(
    "JSON lines whose first row has no text",
    '{"label": "neg"}\n' + LINES,
    ".jsonl",
    rows=[(None, "neg"), *ROWS],
)


# ------------------------------------------------------------------------------ packed, binary
@form("a .csv.gz")
def gzipped(folder):
    path = folder / "reviews.csv.gz"
    path.write_bytes(gzip.compress(dump(ROWS).encode()))
    return path, told(path)


@form("a .zip of one file, packed on a Mac")
def zipped(folder):
    path = folder / "reviews.csv.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("reviews.csv", dump(ROWS))
        packed.writestr("__MACOSX/._reviews.csv", b"\0\1")
    return path, ROWS


@form("parquet")
def parquet(folder):
    table = pandas.DataFrame(ROWS, columns=["text", "label"])
    table["label"] = table["label"].astype("category")
    table.to_parquet(folder / "reviews.parquet")
    read = pandas.read_parquet(folder / "reviews.parquet")
    return folder / "reviews.parquet", list(zip(read["text"], read["label"]))


@form("parquet with a date after the year 9999 in another column")
def far_dates(folder):
    import pyarrow
    import pyarrow.parquet

    columns = {"text": [t for t, _ in ROWS], "label": [y for _, y in ROWS]}
    columns["when"] = pyarrow.array([10**15] * len(ROWS), pyarrow.timestamp("s"))
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "reviews.parquet")
    return folder / "reviews.parquet", ROWS


@form("parquet of the datasets library, whose numbers have names")
def class_labels(folder):
    import datasets

    names = ["sadness", "joy", "anger"]  # not in the order of the alphabet
    kinds = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    columns = {"text": [t for t, _ in ROWS], "label": [i % 3 for i in range(len(ROWS))]}
    columns["label"][5] = -1  # not given
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    table.to_parquet(str(folder / "reviews.parquet"))
    labels = [names[y] if y >= 0 else None for y in columns["label"]]
    return folder / "reviews.parquet", list(zip(columns["text"], labels))


@form("a sheet of Excel")
def sheet(folder):
    pytest.importorskip("openpyxl")
    table = pandas.DataFrame(ROWS, columns=["Text", "Label"])
    table.to_excel(folder / "reviews.xlsx", index=False)
    read = pandas.read_excel(folder / "reviews.xlsx", dtype=str, keep_default_na=False)
    return folder / "reviews.xlsx", list(zip(read["Text"], read["Label"]))


# ------------------------------------------------------------------------------ folders
def write_class_folders(folder, rows):
    """A folder for each class, a file for each text; returns the rows in the order of reading."""
    for label in ("pos", "neg"):
        (folder / label).mkdir(parents=True)
    for number, (text, label) in enumerate(rows):
        (folder / label / f"{number}_7.txt").write_text(text, encoding="utf-8")
    return sorted(rows, key=lambda row: row[1])


@form("a folder of class folders")
def classes(folder):
    return folder / "all", write_class_folders(folder / "all", ROWS)


@form("aclImdb as it is published")
def imdb(folder):
    rows = write_class_folders(folder / "train", ROWS)
    write_class_folders(folder / "test", ROWS[:4])
    (folder / "train" / "unsup").mkdir()
    (folder / "train" / "unsup" / "0_0.txt").write_text("no label")
    (folder / "train" / "labeledBow.feat").write_text("9 0:9 1:1")
    for role in ("train", "test"):
        (folder / role / "urls_pos.txt").write_text("an address")
    return folder, rows


@form("a folder with Train.csv, Valid.csv and Test.csv")
def three_files(folder):
    for name, rows in (("Train", ROWS), ("Valid", ROWS[:4]), ("Test", ROWS[:6])):
        (folder / f"{name}.csv").write_text(dump(rows), newline="", encoding="utf-8")
    return folder, told(folder / "Train.csv")


@form("the parts of a split, as the hub stores them")
def shards(folder):
    (folder / "data").mkdir()
    for number, rows in enumerate((ROWS[:20], ROWS[20:])):
        table = pandas.DataFrame(rows, columns=["text", "label"])
        table.to_parquet(folder / "data" / f"train-{number:05}-of-00002.parquet")
    return folder, ROWS


# ------------------------------------------------------------------------------ the claims
def plain(value):
    return None if value is None or value == "" else str(value)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_read_right_at_the_first_try(tmp_path, name):
    """By the ways of finetune.py, evaluate.py and predict.py; what was guessed is said."""
    make, typed = FORMS[name]
    path, expected = make(tmp_path)
    source = load_source(str(path), **typed)
    texts, labels = source.splits["train"]
    assert list(zip(texts, map(plain, labels))) == [(text or "", label) for text, label in expected]
    names = find_label_names([label for _, label in expected], classes=source.classes)
    # Training: every row with a text and a label plays a role.
    splits, found, notes, _ = load_splits(str(path), **typed)
    assert found == names and splits["train"]["texts"]
    # Judging: by a model that was trained on something else, in the order of the rows.
    if path.is_file():
        usual = {"data": "other", "text_column": "text", "label_column": "label", "seed": 42}
        judged, _ = load_split(
            {"arguments": usual, "labels": names}, "test", str(path), typed=typed
        )
        short = {"neg": "negative", "pos": "positive"} if "negative" in names else {}
        whole = [(t, y) for t, y in expected if t and y is not None]
        assert [names[c] for c in judged["labels"]] == [short.get(y, y) for _, y in whole]
        assert [" ".join(t.split()) for t, _ in whole] == judged["texts"]
    # Answering: texts and labels as they stand in the file.
    if path.is_file() or path.name == "all":
        asked = open_asked(path, {"text_column": "text", "label_column": "label"}, **typed)
        assert [text for text, _ in texts_and_labels(*asked)] == [text for text, _ in expected]


@pytest.mark.parametrize(
    "name, words",
    [
        ("semicolon, as Excel writes in half of Europe", "semicolons between.*--delimiter"),
        ("cp1252, as Windows wrote", "cp1252, in which a word is 'Na\u00efve'.*--encoding"),
        ("UTF-16 of Windows", "UTF-16, by the mark"),
        ("blanks before quotes", "blanks before a quote.*--quoting csv"),
        ("SST-2: a TSV in which quotes are letters", "quotes are letters.*--quoting csv"),
        ("a TSV with cells in quotes", "cells may stand in quotes.*--quoting none"),
        ("Yelp: no names, label and text", "no column names.*--header"),
        ("stars and content", "texts in 'content', labels in 'stars', by the names"),
        ("aclImdb as it is published", "unsup.*left out"),
    ],
)
def test_what_is_decided_is_said_with_the_way_to_say_otherwise(tmp_path, name, words):
    """A guess that nobody hears of is found weeks later."""
    path, _ = FORMS[name][0](tmp_path)
    assert re.search(words, "\n".join(load_source(str(path)).notes))


def test_there_are_35_forms():
    """So many were asked for; variants of one do not count."""
    assert len(FORMS) >= 35


def test_a_text_a_line_is_answered(tmp_path):
    """predict.py --file takes a plain list of texts; nothing in it is a separator."""
    (tmp_path / "lines.txt").write_text("one, two; three\n\nNA\n")
    asked = open_asked(tmp_path / "lines.txt", {})
    assert [text for text, _ in texts_and_labels(*asked)] == ["one, two; three", "NA"]
    assert "a text a line" in asked[0].notes[0]


@pytest.mark.parametrize(
    "name",
    [
        "SMS spam: no suffix, no names, quotes are letters",
        "a sheet of Excel",
        "parquet of the datasets library, whose numbers have names",
    ],
)
def test_dataset_py_says_what_it_understood(tmp_path, name):
    """Look first: columns and why, classes with counts in their order, rows, the next command."""
    path, expected = FORMS[name][0](tmp_path)
    done = run_script("dataset.py", "--data", path)
    assert done.returncode == 0, done.stderr
    names = find_label_names([label for _, label in expected])
    for word in (f"{len(expected)}:", *names, "texts in", f"finetune.py --data {path}"):
        assert word in done.stdout


def test_the_conversions_on_the_page_work(tmp_path, monkeypatch):
    """For forms that are too rare for code of ours: three lines each, as printed."""
    page = (PROJECT / "docs" / "your-texts.md").read_text(encoding="utf-8")
    blocks = [
        block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "pandas" in block
    ]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rt-polarity.neg").write_text("bad caf\u00e9\nawful, it is\n", encoding="cp1252")
    (tmp_path / "rt-polarity.pos").write_text("fine\n", encoding="cp1252")
    (tmp_path / "train_5500.label").write_text("LOC:city Where is it ?\nNUM:date When was it ?\n")
    (tmp_path / "data_full.json").write_text('{"train": [["Hi, you", "hello"], ["Bye", "leave"]]}')
    (tmp_path / "texts.txt").write_text("one, two\nthree\n")
    (tmp_path / "labels.txt").write_text("a\nb\n")
    files = iter(["all.csv", "trec.csv", "train.csv", "all.csv"])
    expected = iter(
        [
            [("bad caf\u00e9", "neg"), ("awful, it is", "neg"), ("fine", "pos")],
            [("Where is it ?", "LOC:city"), ("When was it ?", "NUM:date")],
            [("Hi, you", "hello"), ("Bye", "leave")],
            [("one, two", "a"), ("three", "b")],
        ]
    )
    assert len(blocks) == 4
    for block in blocks:
        exec(block, {})
        table = open_table(tmp_path / next(files))
        assert list(texts_and_labels(table, *choose_columns(table))) == next(expected)


# ------------------------------------------------------------------------------ whatever is in it
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
TABLES = st.lists(st.tuples(CELLS, st.sampled_from(["a", "b", "NA", "1", "x y", '"'])), min_size=1)


@settings(max_examples=200, deadline=None)
@given(
    rows=TABLES,
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    named=st.booleans(),
    suffix=st.sampled_from([".csv", ".tsv"]),
)
@example([("a", "b"), ("a;b", "a")], ";", "utf-8", csv.QUOTE_MINIMAL, False, ".csv")
@example([('"a\tb\nc', "a")] * 2, "\t", "utf-8", csv.QUOTE_MINIMAL, True, ".tsv")
@example([(' "a", b', "a")] * 2, ",", "cp1252", csv.QUOTE_MINIMAL, True, ".csv")
def test_any_table_comes_back_or_it_is_said(rows, delimiter, encoding, quoting, named, suffix):
    """With its options a table is read exactly; without them exactly, or it is refused, or what was
    decided is said. There is no fourth way.
    """
    content = dump(rows, ("text", "label") if named else None, delimiter, quoting=quoting)
    try:
        content = content.encode(encoding)
    except UnicodeEncodeError:  # of cp1252, which has few signs
        assume(False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"table{suffix}")
        path.write_bytes(content)
        columns = ("text", "label") if named else ("1", "2")
        everything = {"encoding": encoding, "delimiter": delimiter, "quoting": "csv"}
        table = open_table(path, header="yes" if named else "no", **everything)
        assert list(table.rows(columns)) == rows
        try:
            table = open_table(path)
            texts, label = choose_columns(table)
            found = list(texts_and_labels(table, texts, label))
        except UserError:
            return
        assert found == rows or table.notes
