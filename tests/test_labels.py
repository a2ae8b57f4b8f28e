"""A label keeps its identity: it is never taken for another class without a word.

Each case here once gave wrong figures and exit code 0.
"""

import json
import os
import subprocess
import sys

import pytest
from conftest import PROJECT, run_script

from dataset import load_split, load_splits
from support.errors import UserError
from support.rows import open_asked, predict_chunks
from support.tables import find_label_names, label_indices, load_source

NAMES = ["negative", "positive"]


def indices(labels, names=NAMES, **more):
    """(class numbers, what was said) of a column of labels."""
    notes = []
    return label_indices(labels, names, "file", notes, **more), " ".join(notes)


def write_rows(path, labels, header="text,label"):
    path.write_text("\n".join([header, *(f"film {i},{y}" for i, y in enumerate(labels))]))
    return str(path)


def emotions(folder, labels):
    """A parquet file whose numbers have names, in an order that is not the alphabet's."""
    import datasets

    kinds = {
        "text": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["sadness", "joy", "anger"]),
    }
    columns = {"text": [f"film {i}" for i in range(len(labels))], "label": labels}
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    table.to_parquet(str(folder / "train.parquet"))
    return str(folder / "train.parquet")


def test_the_order_of_the_classes_is_that_of_the_data_set(tmp_path):
    """It was the alphabet's, so numbers of a file meant other classes: 33 % instead of 100 %."""
    data = emotions(tmp_path, [0, 1, 2] * 20)
    splits, names, _, source = load_splits(data)
    assert names == source.classes == ["sadness", "joy", "anger"]
    numbers = write_rows(tmp_path / "numbers.csv", [0, 1, 2] * 4)
    run = {"labels": names, "numbers": source.classes}
    run["arguments"] = {"data": data, "text_column": "text", "label_column": "label", "seed": 42}
    read, notes = load_split(run, "test", numbers)
    assert read["labels"] == [0, 1, 2] * 4
    assert any("0 as sadness, 1 as joy, 2 as anger" in note for note in notes)
    # The model knows what its numbers stand for, so some of them are enough.
    some = write_rows(tmp_path / "some.csv", [2, 2, 1])
    assert load_split(run, "test", some)[0]["labels"] == [2, 2, 1]


def test_numbers_are_positions_only_where_they_are_exactly_those():
    """And then it is said."""
    assert indices(["0", 1, "1.0"]) == (
        [0, 1, 1],
        "file: the label is a number: 0 as negative, 1 as positive; else: --labels 0=...",
    )
    for labels in (
        ["1", "2"],
        ["-1", "1"],
        ["1", "2", "3", "4", "5"],
        ["1"],
        ["0"],
        ["0", "1", "2"],
        ["0", "1", "positive"],
    ):
        with pytest.raises(UserError, match="not among the classes negative, positive.*--labels"):
            indices(labels)
    assert indices(["1", "2"], renames="1=negative,2=positive")[0] == [0, 1]
    with pytest.raises(UserError, match="not among the classes 1, 2"):
        indices(["0", "1"], ["1", "2"])


def test_a_file_of_answers_holds_the_files_own_labels(tmp_path):
    """predict.py does not know what a 1 means, so it writes a 1."""
    write_rows(tmp_path / "a.csv", ["1", "2", "pos", "NA", ""])
    asked = open_asked(tmp_path / "a.csv", {})
    (rows,) = predict_chunks(asked, lambda texts: [("negative", 0.5)] * len(texts), str)
    assert [row[1] for row in rows] == ["1", "2", "pos", "NA", ""]


def test_a_leading_zero_makes_a_name():
    """01 and 1 are two products; 1 and 1.0 are one class, written by two programs."""
    assert find_label_names(["01", "1", "1.0", 1, "007"]) == ["01", "1", "007"]
    assert indices(["1.0", "01"], ["01", "1"])[0] == [1, 0]


@pytest.mark.parametrize("word", ["NA", "N/A", "null", "None", "nan", ""])
def test_words_for_nothing_are_no_label_where_others_are(tmp_path, word):
    """They became a class of their own. In the text column they are texts."""
    data = write_rows(tmp_path / "a.csv", ["yes", "no"] * 20 + [word] * 3)
    with open(data, "a") as file:
        file.write("\nNA,yes")
    splits, names, notes, _ = load_splits(data)
    assert names == ["no", "yes"]
    assert "NA" in sum((list(split["texts"]) for split in splits.values()), [])
    assert any("3 rows" in note for note in notes)
    if word:
        _, names, _, _ = load_splits(data, labels=f"{word}={word}")
        assert names == sorted(["no", "yes", word])
        assert find_label_names([word, "0"] * 2 + ["1"]) == ["0", "1"]
        classes = [word, "against", "favor"]  # a schema that names it says that it is a class
        assert find_label_names(classes * 2, classes=classes) == classes


def test_upper_and_lower_case_are_one_class_where_the_model_has_one():
    """Somebody's test file says Positive: the model has never heard of it, it was said."""
    found, said = indices(["Positive", "POSITIVE", "negative", "Neg"])
    assert found == [1, 1, 0, 0] and "'POSITIVE' is read as 'positive'" in said
    assert indices(["neg", "Pos", "neu"], ["NEG", "NEU", "POS"])[0] == [0, 2, 1]
    assert indices(["neg", "pos"], ["Negative", "Positive"])[0] == [0, 1]
    with pytest.raises(UserError, match="not among"):
        indices(["pOSITIVE"], ["Positive", "positive"])


def test_classes_that_differ_in_case_alone_are_reported(tmp_path):
    """In training they are two classes, which is hardly meant."""
    from support.tables import require_all_classes

    data = write_rows(tmp_path / "a.csv", ["good", "Good", "bad"] * 20)
    splits, names, notes, _ = load_splits(data)
    require_all_classes(splits, names, notes)
    assert names == ["Good", "bad", "good"] and any("--labels Good=good" in note for note in notes)
    assert load_splits(data, labels="Good=good")[1] == ["good", "bad"]


def test_only_imdbs_pair_is_written_out():
    """neg, neu and pos stay what they are: negative, neu and positive read like a mistake."""
    assert find_label_names(["neg", "pos"]) == ["negative", "positive"]
    assert find_label_names(["neg", "neu", "pos"]) == ["neg", "neu", "pos"]
    assert find_label_names(["neg", "positive"]) == ["neg", "positive"]


def test_minus_one_is_not_given(tmp_path):
    """So the datasets library writes it, in test splits whose answers are kept secret."""
    data = emotions(tmp_path, [0, 1, 2, -1] * 10)
    assert load_source(data).splits["train"][1].count(None) == 10
    assert indices(["0", "1", "-1"], ["0", "1"])[0] == [0, 1, None]
    assert indices(["0", "1", "-1"], numbers=["negative", "positive"])[0] == [0, 1, None]
    with pytest.raises(UserError, match="labels here are -1, 0, 1"):  # perhaps 0 is neutral
        indices(["0", "1", "-1"])
    write_rows(tmp_path / "test.csv", [-1] * 4)
    _, _, notes, source = load_splits(str(tmp_path))
    assert "test: has no labels, so it is left out" in notes and "test" not in source.splits
    assert find_label_names(["-1", "1"] * 5) == ["-1", "1"], "two classes of a train file"


def test_151_small_classes_train_and_a_test_split_may_lack_one(tmp_path):
    """Eight rows each are few, and no reason to refuse; a split is measured on what it has."""
    from support.tables import require_all_classes

    data = write_rows(tmp_path / "a.csv", [f"intent {i % 151}" for i in range(151 * 8)])
    splits, names, notes, _ = load_splits(data)
    require_all_classes(splits, names, notes)
    assert len(names) == 151 and set(splits["train"]["labels"]) == set(range(151))
    rare = write_rows(tmp_path / "b.csv", ["a", "b"] * 30 + ["c"])
    splits, names, notes, _ = load_splits(rare)
    require_all_classes(splits, names, notes)
    assert 2 in splits["train"]["labels"] and 2 not in splits["test"]["labels"]
    assert any(note.startswith("warning: no test review is c") for note in notes)


def test_a_wrong_label_ends_in_one_line(rehearsed, tmp_path):
    """Both lists, and what to type."""
    data = write_rows(tmp_path / "a.csv", ["1", "2"] * 5)
    done = run_script("evaluate.py", "--model", rehearsed[0], "--data", data)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "classes negative, positive; the labels here are 1, 2" in done.stderr
    words = "--labels", "1=negative,2=positive", "--results", tmp_path / "r.json"
    done = run_script("evaluate.py", "--model", rehearsed[0], "--data", data, *words)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "r.json").read_text())["evaluated"]["figures"]
    assert [one["n"] for one in figures["per_class"].values()] == [5, 5]


def test_a_label_can_be_left_out():
    """A neutral class that the model has never heard of is neither negative nor positive."""
    with pytest.raises(UserError, match="Leave rows out with --labels=2=$"):
        indices(["0", "4", "2"], ["0", "4"])
    found, said = indices(["0", "4", "2"], ["0", "4"], renames="2=")
    assert found == [0, 1, None] and "1 rows with '2' as label have none, as was asked" in said
    assert find_label_names(["a", "b", "c"], "c=,a=x") == ["x", "b"]


def test_a_file_like_that_of_the_training_has_no_names_either(tmp_path):
    """Two rows say too little to tell. The model knows columns 1 and 2, so row 1 is a row."""
    (tmp_path / "two.tsv").write_text("ham\tMy aunt is late\nspam\tWin a prize\n")
    asked = open_asked(tmp_path / "two.tsv", {"text_column": "2", "label_column": "1"})
    (rows,) = predict_chunks(asked, lambda texts: [("ham", 0.5)] * len(texts), str)
    assert [row[:2] for row in rows] == [("My aunt is late", "ham"), ("Win a prize", "spam")]


def test_the_likeliest_columns_are_named(tmp_path):
    """By what they hold: not one that is mostly empty, nor one of confidences or of user names."""
    rows = [
        f"{i},{i / 7:.3f},{'abc'[i % 3]},{'' if i % 50 else 'a'},user{i},Text {i} is long enough"
        for i in range(200)
    ]
    path = tmp_path / "tweets.csv"
    path.write_text("\n".join(["id,confidence,airline_feeling,feeling_gold,name,said", *rows]))
    with pytest.raises(UserError, match="--text-column said --label-column airline_feeling; or"):
        load_source(str(path))
    sorted_rows = "\n".join(
        f'"0",{i},"NO_QUERY",user{i % 90},"Text {i} is long"' for i in range(200)
    )
    path.write_text(sorted_rows + '\n"4",1,"NO_QUERY",user1,"The end is long"')
    with pytest.raises(UserError, match="--text-column 5 --label-column 1$"):
        load_source(str(path))


def test_text_that_spills_into_columns_without_a_name_is_said(tmp_path):
    """As in Kaggle's SMS file, where commas cut some messages."""
    path = tmp_path / "spam.csv"
    path.write_text("v1,v2,,\nham,all here,,\nspam,cut, in three, pieces\n")
    assert any("1 rows go on in columns" in note for note in load_source(str(path)).notes)


@pytest.mark.slow
def test_standard_input_is_read_strictly(rehearsed):
    """Where no locale is set Python lets any bytes pass, and the model is asked about rubbish."""
    words = [sys.executable, "predict.py", "--model", str(rehearsed[0])]
    how = {"cwd": PROJECT, "env": os.environ | {"LC_ALL": "C"}, "input": b"caf\xe9 is good\n"}
    done = subprocess.run(words, capture_output=True, **how)
    assert (
        done.returncode == 2 and b"standard input is not UTF-8: name its --encoding" in done.stderr
    )
    done = subprocess.run([*words, "--encoding", "latin-1"], capture_output=True, **how)
    assert done.returncode == 0 and done.stdout
    done = subprocess.run(words, capture_output=True, **how | {"input": b"\xef\xbb\xbffine\n"})
    assert done.stdout.rstrip().endswith(b"  fine")
