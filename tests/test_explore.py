"""What a page about a data set says has to be in the data."""

import csv
import random
import re
from collections import Counter

import pytest
from conftest import PROJECT, run_script

from extras import explore
from extras.doubt import doubt
from support.tables import load_table

DEMO = PROJECT / "support" / "demo_reviews"


@pytest.fixture
def reviews(tmp_path):
    """A folder with train and test: copies in and between them, HTML, an empty row."""
    rows = [(f"the film number {i} was {'a joy' if i % 2 else 'dull'}", i % 2) for i in range(60)]
    rows[7] = rows[5]  # twice, with the same label
    rows[9] = (rows[4][0], 1 - rows[4][1])  # twice, with another one
    rows[11] = ("", 1)
    rows[13] = ("it was <b>fun</b><br />and  long", 1)
    test = [rows[2], (rows[3][0], 1 - rows[3][1]), ("quite another text", 0)]
    for name, some in (("train", rows), ("test", test)):
        with open(tmp_path / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *some])
    return tmp_path


def test_copies_html_and_rows_are_those_of_the_files(reviews):
    """Rows keep the numbers of their file, also behind one that is left out."""
    notes = []
    splits, names, html = explore.load(str(reviews), notes)
    assert explore.find_copies(splits) == [
        ("twice in train", 2, 1),
        ("twice in test", 0, 0),
        ("in train and in test", 2, 1),
    ]
    assert html == {True: 1, False: 62} and names == ["0", "1"]
    train = splits["train"]
    assert train["rows"] == [i for i in range(1, 61) if i != 12]
    assert train["texts"][train["rows"].index(14)] == "it was <b>fun</b> and long"
    assert any("dropped 1 rows" in note for note in notes)


def test_losses_are_shares_of_texts_and_of_tokens():
    """Of lengths 100, 200, 300 and 400 a cut at 256 takes from two, and 188 of 1,000 tokens."""
    assert explore.losses([100, 200, 300, 400], (256, 512)) == [
        (256, 0.5, pytest.approx(0.188)),
        (512, 0.0, 0.0),
    ]


def test_swapped_labels_are_among_the_most_doubted():
    """Of 1,000 rows 40 were swapped on purpose; by chance 1.6 of the 40 most doubted are.

    (These reviews are short and full of negations, which a counter of words cannot follow. On real
    ones it does better: docs/explore.md.)
    """
    texts, labels = load_table(DEMO / "train.csv", clean=str).splits["train"]
    rows = random.Random(0).sample(range(len(texts)), 1000)
    texts, labels = [texts[i] for i in rows], [int(labels[i] == "positive") for i in rows]
    swapped = set(random.Random(1).sample(range(1000), 40))
    doubted, telling = doubt(texts, [c ^ (i in swapped) for i, c in enumerate(labels)], 40)
    assert sum(i in swapped for i, *_ in doubted) >= 10
    assert [own for _, own, _ in doubted] == sorted(own for _, own, _ in doubted)
    assert Counter(telling) == {0: telling[0], 1: telling[1]}
    assert not set(telling[0]) & set(telling[1]), "no word speaks for both"


def test_a_label_is_judged_by_a_model_that_has_not_seen_it():
    """Else the wrong label of a strange text would look right: it was learned by heart."""
    texts = [f"{'good' if i % 2 else 'bad'} film {i}" for i in range(100)]
    texts += ["good good odd", "good odd"]  # odd stands in these two alone
    labels = [i % 2 for i in range(100)] + [0, 0]
    doubted, _ = doubt(texts, labels, 2)
    assert {i for i, *_ in doubted} == {100, 101} and all(other == 1 for *_, other in doubted)


def test_telling_words_are_those_of_their_class_where_another_has_no_text():
    """Class 0 may have lost its rows, because they were empty."""
    texts = [f"{'good' if i % 2 else 'bad'} film {i}" for i in range(60)]
    _, telling = doubt(texts, [1 + i % 2 for i in range(60)], 2)
    assert set(telling) == {1, 2}
    assert telling[1][0].startswith("bad") and telling[2][0].startswith("good")


def test_a_label_with_a_slip_in_it_comes_first_and_harms_no_other():
    """A class of one row cannot be learned. All others judge it, and are judged as usual."""
    texts = [f"{'good' if i % 2 else 'bad'} film {i}" for i in range(100)] + ["good film"]
    labels = [i % 2 for i in range(100)] + [2]
    labels[7] = 0  # "good"
    doubted, telling = doubt(texts, labels, 5)
    assert [(i, other) for i, _, other in doubted] == [(100, 1), (7, 1)]
    assert doubted[0][1] == 0 and set(telling) == {0, 1, 2}
    assert doubt(["some words"] * 3, [0, 0, 1], 5) == ([], {}), "too few to say anything"


def test_the_page_holds_it_all_and_shows_texts_as_texts(reviews, tmp_path, rehearsed):
    """A review with a <script> in it is shown and not run."""
    with open(reviews / "train.csv", "a") as file:
        file.write('"<script>alert(1)</script> was dull",0\n')
    model = ("--model", rehearsed[0] / "untrained", "--out", tmp_path / "page.html")
    done = run_script("extras.explore", "--data", reviews, *model, "--save", tmp_path / "a.csv")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page and page.count("<svg") == 1
    titles = "Rows and classes,Length,Copies,HTML,Telling words,Labels to doubt".split(",")
    assert all(f"<h3>{title}</h3>" in page for title in titles)
    assert "2 in train and in test, 1 of them with another label" in " ".join(done.stdout.split())
    rows = list(csv.DictReader(open(tmp_path / "a.csv", encoding="utf-8")))
    whole = list(csv.DictReader(open(reviews / "train.csv", encoding="utf-8")))
    for row in rows:
        there = whole[int(row["row"]) - 1]
        assert (row["text"], row["label"]) == (explore.clean(there["text"]), there["label"])
        assert re.fullmatch(r"0\.\d{4}", row["probability"])
    assert 0 < len(rows) <= 40


@pytest.mark.parametrize(
    "words, told",
    [
        (["--data", "nowhere.csv"], "nowhere.csv"),
        (["--max-length", "2"], "3 or more"),
        (["--out", "a.html", "--save", "a.html"], "choose another name"),
        (["--doubts", "0"], "--doubts 0: has to be 1 or more"),
        (["--data", DEMO, "--out", DEMO / "train.csv"], "choose another name"),
        (["--data", DEMO, "--model", "nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_bad_input_gets_one_line(words, told):
    """Before minutes of work, and nothing is written."""
    done = run_script("extras.explore", *words)
    assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1
