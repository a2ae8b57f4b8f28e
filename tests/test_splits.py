"""Chapter 2: no split knows another, and a file of one's own is read as it was meant."""

import re
from collections import Counter
from pathlib import Path

import pytest
from conftest import PROJECT

from support.errors import UserError
from dataset import draw, hold_out, load_splits
from evaluate import load_split
from support.reading import read_rows
from support.tables import find_label_names, load_table


def write_csv(path, rows, header="text,label"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


# ------------------------------------------------------------------------------ splits
@pytest.fixture
def films(tmp_path):
    """A file like IMDB: sorted by label, a film's reviews in one run, some texts twice."""
    rows = [
        f"review {i} of film {label}{film},{label}"
        for label in ("neg", "pos")
        for film in range(100)
        for i in range(10)
    ]
    rows[5] = rows[900]  # a copy far away under the same label
    return write_csv(tmp_path / "films.csv", rows)


def test_validation_and_test_share_no_text_and_no_run_of_rows_with_train(films):
    """A film on both sides lets a model score by recognising the film."""
    splits, names, _, _ = load_splits(films, seed=3)
    assert names == ["negative", "positive"]
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        texts = set(splits[one]["texts"]), set(splits[other]["texts"])
        assert texts[0] and texts[1] and not texts[0] & texts[1]
        seen = [{text.split("film ")[1] for text in side} for side in texts]
        assert not seen[0] & seen[1], "a whole film lies on one side, or was left out"


def test_a_held_out_split_is_one_contiguous_run_of_each_label():
    """Runs, not random rows: see hold_out()."""
    split = {"texts": [f"t{i}" for i in range(400)], "labels": [0] * 200 + [1] * 200}
    splits = {"train": split}
    hold_out(splits, "validation", seed=7, notes=[])
    numbers = [int(text[1:]) for text in splits["validation"]["texts"]]
    for label in (0, 1):
        rows = [n for n in numbers if n // 200 == label]
        assert rows == list(range(rows[0], rows[0] + 20))
    kept = {int(text[1:]) for text in splits["train"]["texts"]}
    assert all(n + step not in kept for n in numbers for step in (-1, 1)), "a gap on either side"


def test_folds_are_disjoint_cover_all_rows_and_keep_their_gaps(films):
    """Each row is judged once, by a model that has not seen it, nor its neighbours."""
    rows = Path(films).read_text().splitlines()
    Path(films).write_text("\n".join(row for i, row in enumerate(rows) if i != 6))  # the copy
    whole = load_splits(films, seed=3)[0]
    labelled = sorted([*whole["train"]["texts"], *whole["validation"]["texts"]])
    judged, sizes, test = [], set(), None
    for number in range(1, 6):
        splits, _, notes, _ = load_splits(films, seed=3, fold=f"{number}/5")
        held_out, trained = (set(splits[role]["texts"]) for role in ("validation", "train"))
        assert not held_out & trained
        films_of = [{text.split("film ")[1] for text in side} for side in (held_out, trained)]
        assert not films_of[0] & films_of[1], "whole films, as without folds"
        judged += splits["validation"]["texts"]
        sizes |= {splits["validation"]["labels"].count(label) for label in (0, 1)}
        assert test in (None, splits["test"]), "and the test reviews are always the same"
        test = splits["test"]
        assert any(re.match(r"validation: held out 3\d\d train rows in blocks", n) for n in notes)
    assert len(judged) == len(set(judged)) and max(sizes) - min(sizes) <= 1
    # Rows of the gap beside --seed's own validation are in neither of its two; here they are.
    assert set(labelled) < set(judged) and not set(judged) & set(test["texts"])
    every = set(load_table(films, clean=str).splits["train"][0])
    beside_test = len(every) - len(set(judged)) - len(test["texts"])
    assert 0 < beside_test <= 4 * 30, "all rows, but for test and the gaps around it"


@pytest.mark.parametrize("rows, folds", [(7, 3), (10, 5), (23, 10), (1234, 7)])
def test_folds_of_any_size_meet_without_a_gap_of_their_own(rows, folds):
    """Where one block ends the next one starts, whatever can or cannot be divided."""
    found = []
    for number in range(1, folds + 1):
        splits = {"train": {"texts": [str(i) for i in range(rows)], "labels": [0] * rows}}
        hold_out(splits, "validation", 1, [], f"{number}/{folds}")
        block = [int(text) for text in splits["validation"]["texts"]]
        gap = min(30, len(block) // 10)
        left = {int(text) for text in splits["train"]["texts"]}
        assert left == {i for i in range(rows) if i < block[0] - gap or i > block[-1] + gap}
        found += block
    assert found == list(range(rows))


def test_a_model_of_a_fold_is_judged_on_its_own_validation_rows(films):
    """evaluate.py --split validation has to find the rows that were held out then."""
    splits, names, _, source = load_splits(films, seed=3, fold="2/5")
    usual = {"data": films, "text_column": "text", "label_column": "label", "seed": 3}
    run = {"arguments": usual | {"fold": "2/5"}, "labels": names}
    run["data_fingerprint"] = source.fingerprint
    chosen, notes = load_split(run, "validation")
    assert list(chosen["texts"]) == list(splits["validation"]["texts"])
    assert not any("warning" in note for note in notes)


def test_folds_of_data_with_a_validation_split_are_refused(tmp_path):
    """Which rows should be judged: theirs or ours? Nobody guesses."""
    for name in ("train", "validation"):
        write_csv(tmp_path / f"{name}.csv", [f"{name} {i},{i % 2}" for i in range(40)])
    with pytest.raises(UserError, match="leave --fold out"):
        load_splits(str(tmp_path), fold="1/5")


def test_copies_of_test_and_validation_texts_leave_train(tmp_path):
    """Exact duplicates are leaked answers, also when they differ in white space or <br /> only."""
    train = [f"text number {i},{i % 2}" for i in range(60)]
    write_csv(tmp_path / "train.csv", train)
    write_csv(tmp_path / "test.csv", ["text<br />number  7,1", "another,0", "text number 8,0"])
    held_out = ["text number<br />9,1", "text number 10,0", "a third,1", "another,0"]
    write_csv(tmp_path / "validation.csv", held_out)
    splits, _, notes, _ = load_splits(str(tmp_path))
    assert len(splits["test"]["texts"]) == 3, "test keeps every row"
    assert splits["validation"]["texts"] == ["text number 9", "text number 10", "a third"]
    left = set(splits["train"]["texts"])
    assert not left & {f"text number {i}" for i in (7, 8)}, "copies of test"
    assert not left & {f"text number {i}" for i in (9, 10)}, "copies of validation"
    assert len(left) == 56
    assert "validation: dropped 1 exact copies of test reviews" in notes
    assert "train: dropped 4 exact copies of test or validation reviews" in notes


def test_a_subset_is_drawn_equally_from_each_class_and_from_everywhere():
    """`select(range(1000))` on IMDB is all negative: the classic empty result."""
    labels = [0] * 900 + [1] * 100
    rows = draw(labels, 150, seed=0, equal=True)
    assert Counter(labels[i] for i in rows) == {0: 75, 1: 75}
    assert max(rows[:75]) > 600, "not the first rows"
    assert Counter(labels[i] for i in draw(labels, 600, 0, equal=True)) == {0: 500, 1: 100}
    shares = Counter(labels[i] for i in draw(labels, 100, 0, equal=False))
    assert shares == {0: 90, 1: 10}, "a split that is measured keeps the classes' own shares"
    assert draw(labels, 150, 0, True) != draw(labels, 150, 1, True)
    assert draw(labels, 5000, 0, True) == list(range(1000))


def test_every_seed_reads_the_same_test_reviews():
    """Else no two runs could be compared, and their deviation would be that of the draw as well."""
    data = str(PROJECT / "support" / "demo_reviews")
    one, other = (load_splits(data, seed=seed, subset=50)[0] for seed in (1, 2))
    assert one["test"] == other["test"]
    assert one["train"] != other["train"] and one["validation"] != other["validation"]


def test_changed_data_is_noticed_through_a_link_as_well(tmp_path):
    """Training knows the path as it was typed; a link on the way there must not hide the change."""
    folder, link = tmp_path / "real", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    rows = [f"film {i},{i % 2}" for i in range(60)]
    (folder / "a.csv").write_text("\n".join(["text,label", *rows]))
    arguments = {"data": str(link / "a.csv"), "text_column": "text", "label_column": "label"}
    run = {"arguments": arguments | {"seed": 42}, "labels": ["0", "1"], "data_fingerprint": "other"}
    for path in (link, folder):
        notes = load_split(run, "test", str(path / "a.csv"))[1]
        assert any("has changed since training" in note for note in notes)


def test_other_columns_divide_one_file_otherwise_and_that_is_said(tmp_path):
    """Rows are held out label by label: with a second annotator's, train rows stand in test."""
    rows = [f"film {i},{i % 2},{(i + (i % 7 == 0)) % 2}" for i in range(200)]
    path = write_csv(tmp_path / "a.csv", rows, header="text,label,second")
    arguments = {"data": path, "text_column": "text", "label_column": "label", "seed": 42}
    run = {"arguments": arguments, "labels": ["0", "1"]}
    run["data_fingerprint"] = load_splits(path)[3].fingerprint
    assert not any("warning" in note for note in load_split(run, "test")[1])
    notes = load_split(run, "test", typed={"label_column": "second"})[1]
    assert any("warning: the columns have changed since training" in note for note in notes)


def test_rows_without_text_or_label_are_dropped_and_counted(tmp_path):
    """Silence would leave the reader wondering where 3 of 43 rows went."""
    rows = [f"text {i},{i % 2}" for i in range(40)] + [",1", "   ,0", "no label,"]
    _, _, notes, _ = load_splits(write_csv(tmp_path / "x.csv", rows))
    assert any("dropped 3 rows" in note for note in notes)


# ------------------------------------------------------------------------------ files and labels
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_dialects_are_read(tmp_path, delimiter):
    """Spreadsheets of half the world write semicolons, and start the file with a mark (BOM)."""
    path = tmp_path / "x.csv"
    text = (
        delimiter.join(["text", "label"]) + "\n" + delimiter.join(['"two\nlines, and ""x"""', "1"])
    )
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert list(read_rows(path)) == [{"text": 'two\nlines, and "x"', "label": "1"}]


def test_quotes_inside_a_cell_and_empty_columns_of_a_spreadsheet_are_no_errors(tmp_path):
    """Strict about a quote that is never closed, and about nothing else."""
    path = write_csv(tmp_path / "x.csv", ['He said "hi" to me,1,,'], header="text,label,,")
    assert [(row["text"], row["label"]) for row in read_rows(path)] == [('He said "hi" to me', "1")]


def test_a_test_file_without_answers_is_left_aside(tmp_path):
    """Competitions hand those out; nothing can be measured on them."""
    write_csv(tmp_path / "train.csv", [f"text {i},{i % 2}" for i in range(60)])
    write_csv(tmp_path / "test.csv", ["a,", "b,"])
    splits, _, _, _ = load_splits(str(tmp_path))
    assert set(splits["test"]["labels"]) == {0, 1}, "held out from train instead"
    write_csv(tmp_path / "test.csv", ["a", "b"], header="text")
    splits, _, notes, _ = load_splits(str(tmp_path))
    assert set(splits["test"]["labels"]) == {0, 1} and "test: has no labels" in notes[0]


def test_every_file_type_gives_the_same_rows(tmp_path):
    """One table, four formats."""
    import json

    import pyarrow
    import pyarrow.parquet

    rows = [{"text": "good, really", "label": "yes"}, {"text": "bad", "label": "no"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_csv(tmp_path / "x.csv", ['"good, really",yes', "bad,no"])
    (tmp_path / "x.tsv").write_text("text\tlabel\ngood, really\tyes\nbad\tno\n")
    for kind in ("parquet", "jsonl", "csv", "tsv"):
        assert list(read_rows(tmp_path / f"x.{kind}")) == rows


def test_label_names_are_found_in_numbers_and_in_names():
    """The names go with the model, into every output; LABEL_1 tells nobody anything."""
    assert find_label_names(["pos", "neg", None, ""]) == ["negative", "positive"]
    assert find_label_names([10, 2, "1", 2.0]) == ["1", "2", "10"], "numbers by size"
    assert find_label_names(["c", "a", "b"]) == ["a", "b", "c"]
    with pytest.raises(UserError, match="whole number"):
        find_label_names(["0.5", "1"])


def test_names_that_python_would_read_as_one_number_stay_apart():
    """float() takes 1_1, 1e1 and 11 for numbers, and 17 digits for others; 007 is an agent."""
    apart = ["1_1", "11", "1e1", "10", "12345678901234567", "12345678901234568", "01", "1", "007"]
    assert set(find_label_names(apart)) == set(apart)
    assert set(find_label_names(["7", "+7", 7.0, "-0", ".", float("nan")])) == {"7", "0", "."}


def test_a_quote_that_runs_on_does_not_join_two_rows_of_a_tsv(tmp_path):
    """Few TSV files have quoted cells: a quotation goes on from one review to the next."""
    path = tmp_path / "x.tsv"
    path.write_text('text\tlabel\n"I liked it\tpos\nit was bad"\tneg\n')
    assert [row["text"] for row in read_rows(path)] == ['"I liked it', 'it was bad"']


def test_a_file_without_splits_is_divided_by_the_rules_of_each_role(tmp_path):
    """Train has as many of each class; what is measured has the file's shares. And every seed has
    the same test reviews, also where no test file comes with the data.
    """
    rows = [f"text {i},{int(i % 10 == 0)}" for i in range(2000)]
    data = write_csv(tmp_path / "x.csv", rows)
    one, other = (load_splits(data, seed=seed, subset=100)[0] for seed in (1, 2))
    assert Counter(one["train"]["labels"]) == {0: 50, 1: 50}
    for role in ("validation", "test"):
        assert Counter(one[role]["labels"]) == {0: 90, 1: 10}, role
    assert one["test"] == other["test"] and one["validation"] != other["validation"]
    one, other = (load_splits(data, seed=seed)[0] for seed in (1, 2))
    assert one["test"] == other["test"] and one["validation"] != other["validation"]
