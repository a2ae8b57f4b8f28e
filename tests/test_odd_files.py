"""Files that once were read wrong in silence: now they are read right, refused, or it is said."""

import json
import shutil
import zipfile

import pytest
from conftest import run_script

from dataset import load_split, load_splits
from extras.kept import command_line
from support.errors import UserError
from support.reading import open_table, texts_and_labels
from support.rows import open_asked, predict_chunks
from support.tables import load_source

NUMBERED = {"text_column": "1", "label_column": "2"}  # of a model whose file had no names


def answered(path, arguments=None, **typed):
    """The first two columns of what predict.py --file would write."""
    asked = open_asked(path, arguments or {}, **typed)
    chunks = predict_chunks(asked, lambda texts: [("x", 0.5)] * len(texts), str)
    return [row[:2] for chunk in chunks for row in chunk]


def write_csv(path, rows):
    path.write_text("\n".join(["text,label", *(f"{text},{label}" for text, label in rows)]))


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_a_text_is_never_cut_at_a_separator(tmp_path):
    """A row with more cells than the others is not a row of its first cells."""
    path = write(
        tmp_path / "one.csv", "I loved it\nI hated it\nI loved it\nI loved it, not at all\n"
    )
    for typed in ({}, {"header": "no"}):
        with pytest.raises(UserError, match="line 4: more cells than columns"):
            answered(path, **typed)
    path = write(tmp_path / "two.csv", "good film,1\nbad film,0\n" * 10 + "good, slow, dull,1\n")
    with pytest.raises(UserError, match="line 21: more cells"):
        load_source(str(path)).splits
    # Empty lines and a spreadsheet's "sep=" count as well: an editor shows that number.
    path = write(tmp_path / "blank.csv", "\n \nsep=,\ntext,label\nfine,1\nbad, so bad,0\n")
    with pytest.raises(UserError, match="line 6: more cells"):
        load_source(str(path)).splits
    trailing = write(tmp_path / "three.csv", "text,label\nfoo,1,\nbar,0,,\n")
    assert load_source(str(trailing)).splits["train"] == (["foo", "bar"], ["1", "0"])


def test_a_place_among_columns_counts_only_where_it_holds_texts(tmp_path):
    """The model's file had the texts first; in another one the labels may come first."""
    path = write(tmp_path / "a.csv", "neg,a film that is bad\npos,a film that is good\n" * 3)
    assert answered(path, NUMBERED)[0] == ("a film that is bad", "")
    path = write(tmp_path / "b.csv", "0,1\na film that is bad,neg\na film that is good,pos\n")
    assert answered(path, NUMBERED)[0] == ("a film that is bad", "")


def test_columns_that_were_typed_hold_for_all_splits_and_afterwards(tmp_path):
    """A title and a text without names, in train and test: nothing is typed a second time."""
    rows = [f'"{i % 2 + 1}","Title {i}","A longer text about number {i}"' for i in range(60)]
    write(tmp_path / "train.csv", "\n".join(rows))
    write(tmp_path / "test.csv", "\n".join(row.replace("longer", "quite long") for row in rows))
    for columns in ("2,3", "2"):
        how = {"text_column": columns, "label_column": "1"}
        splits, names, _, source = load_splits(str(tmp_path), **how)
        assert len(splits["test"]["texts"]) == 60 and splits["test"]["texts"][0].startswith("Title")
        made = how | {"data": str(tmp_path), "seed": 42}
        run = {"arguments": made, "labels": names, "data_fingerprint": source.fingerprint}
        split, notes = load_split(run, "test")
        assert split == splits["test"] and not any("warning" in note for note in notes)
        made["text_column"] = "2,3"  # of another file the same places, if texts are there
        assert len(load_split(run, "test", str(tmp_path / "test.csv"))[0]["texts"]) == 60


def test_a_last_letter_decides_nothing_about_the_others(tmp_path):
    """A cp1252 file whose only accent is its last byte is no UTF-8 file with a mistake."""
    path = write(tmp_path / "a.csv", "label,text\n1,fine\n0,un caf\u00e9", "cp1252")
    assert load_source(str(path)).splits["train"][0] == ["fine", "un caf\u00e9"]


def test_predict_takes_no_column_for_labels_that_nobody_named(tmp_path):
    """Numbers of users and rows were written as labels."""
    path = write(
        tmp_path / "a.csv", "1001,Great film it is\n1002,Bad film it is\n1003,So so it is\n"
    )
    assert answered(path)[0] == ("Great film it is", "")


def test_row_1_is_not_lost_where_a_label_is_called_like_a_column(tmp_path):
    """ "comment" and "question" are classes here."""
    path = write(tmp_path / "a.csv", "I agree,comment\nwhy so,question\nyes indeed,comment\n")
    assert [text for text, _ in answered(path)] == ["I agree", "why so", "yes indeed"]


def test_names_that_were_only_assumed_are_said(tmp_path):
    """A first row that looks like nothing in particular may be a row."""
    path = write(tmp_path / "a.csv", "I love it\nI hate it\nSo so\n")
    with pytest.raises(UserError, match="or, if the first row holds no names: --no-header"):
        answered(path)
    assert len(answered(path, header="no")) == 3


def test_a_file_in_two_encodings_is_refused(tmp_path):
    """One Latin-1 line at the end turned every other accent into two signs."""
    head = "text,label\n" + "the café was nice,pos\n" * 20 + "plain rows,neg\n" * 6000
    path = tmp_path / "mixed.csv"
    path.write_bytes(head.encode() + "one last naïve line,pos\n".encode("latin-1"))
    with pytest.raises(UserError, match="is UTF-8, but not in line 6022"):
        load_source(str(path))


def test_class_folders_are_taken_whole_or_it_is_said(tmp_path):
    """A class whose files end in .TXT was left out; a folder of an editor became one."""
    for name, files in {
        "pos": ("1.txt", "2.txt"),
        "neg": ("1.TXT", "notes"),
        ".git": ("1.txt",),
    }.items():
        (tmp_path / name).mkdir()
        for file in files:
            write(tmp_path / name / file, f"{name} {file}")
    source = load_source(str(tmp_path))
    assert source.splits["train"][1] == ["neg", "pos", "pos"]
    assert any("1 files that do not end in .txt" in note for note in source.notes)
    write(tmp_path / "train.csv", "text,label\na,x\nb,y\n")
    assert load_source(str(tmp_path)).splits["train"][1] == ["x", "y"], "a file named train counts"


def test_repeated_column_names_are_no_rows(tmp_path):
    """As `cat a.csv b.csv` makes them: "label" became a class."""
    one = "text,label\ngood,pos\nbad,neg\n"
    source = load_source(str(write(tmp_path / "a.csv", one + "\ufeff" + one)))
    assert source.splits["train"][1] == ["pos", "neg"] * 2
    assert any("1 rows repeat the column names" in note for note in source.notes)


def test_a_quote_that_swallows_rows_is_said(tmp_path):
    """It opens in one row and closes in another, perhaps because it means inches."""
    rows = '1,"Great screen\n0,dull\n1,nice\n0,the monitor has 15"\n' + "1,fine\n" * 20
    source = load_source(str(write(tmp_path / "a.csv", "label,text\n" + rows)))
    assert any("looks like a row" in n and "--quoting none" in n for n in source.notes)
    assert len(load_source(str(tmp_path / "a.csv"), quoting="none").splits["train"][1]) == 24


def test_splits_may_have_other_column_names(tmp_path):
    """Those of test were written down as train's, and no command found its data again."""
    rows = "".join(f"film {i},{i % 2}\n" for i in range(60))
    write(tmp_path / "train.csv", "text,label\n" + rows)
    write(tmp_path / "test.csv", "Review,Stars\n" + rows.replace("film", "play"))
    _, names, _, source = load_splits(str(tmp_path))
    assert (source.text_column, source.label_column) == ("text", "label")
    made = {"data": str(tmp_path), "text_column": "text", "label_column": "label", "seed": 42}
    run = {"arguments": made, "labels": names, "data_fingerprint": source.fingerprint}
    split, notes = load_split(run, "test")
    assert len(split["texts"]) == 60 and not any("warning" in note for note in notes)


def test_numbers_of_a_class_label_fit_or_are_refused(tmp_path):
    """-2 was the last but one name; 7 a traceback."""
    import pyarrow
    import pyarrow.parquet

    kinds = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": kinds}})}
    path = tmp_path / "a.parquet"
    for labels, expected in (
        ([0, 1, -1], ["bad", "good", None]),
        ([0.0, 1.0, None], ["bad", "good", None]),
        (["bad", "good", "bad"], ["bad", "good", "bad"]),
        ([0, 1, -2], None),
        ([0, 1, 7], None),
    ):
        table = pyarrow.table({"text": ["a", "b", "c"], "label": labels})
        pyarrow.parquet.write_table(table.replace_schema_metadata(about), path)
        if expected:
            assert load_source(str(path)).splits["train"][1] == expected
        else:
            with pytest.raises(UserError, match="where its classes are 0 to 1 \\(bad, good\\)"):
                load_source(str(path))
    write(tmp_path / "train.csv", "text,label\nfine,1\nbad,0\n" * 9)
    table = pyarrow.table({"text": ["a", "b"], "label": [0, 1]}).replace_schema_metadata(about)
    pyarrow.parquet.write_table(table, tmp_path / "test.parquet")
    with pytest.raises(UserError, match="'bad' is not among the classes 0, 1"):
        load_splits(str(tmp_path))  # the classes are those of train
    table = pyarrow.table({"text": ["a", "b", "c"], "label": [0, 1, 7]})
    for metadata in ("[]", "{bad"):
        pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": metadata}), path)
        assert load_source(str(path)).splits["train"][1] == [0, 1, 7]


def test_a_column_is_a_text_or_a_label(tmp_path):
    """Else the answer stands in the text."""
    path = write(tmp_path / "a.csv", "text,label\na,1\nb,0\n")
    for columns in ("text,label", "label", "text,text"):
        with pytest.raises(UserError, match="text twice, or text and label at once"):
            load_source(str(path), text_column=columns)


def test_a_packed_file_is_what_its_name_inside_says(tmp_path):
    """reviews.csv in q4.zip is a CSV file."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "reviews.jsonl", '{"text": "a, b", "label": "x"}\n')
    shutil.make_archive(str(tmp_path / "q4"), "zip", tmp_path / "in")
    table = open_table(tmp_path / "q4.zip")
    assert list(texts_and_labels(table, ["text"], "label")) == [("a, b", "x")]


def test_a_text_may_be_a_number_in_a_sheet_too(tmp_path):
    """As in a CSV file: "1984" is a text of one word."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["text", "label"], [1984, 1], ["good", 0]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert load_source(str(tmp_path / "a.xlsx")).splits["train"] == (["1984", "good"], ["1", "0"])


def test_a_sheet_is_read_to_its_end_whatever_it_says_of_its_size(tmp_path):
    """Some programs write a wrong size, and rows behind it were lost without a word."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [["text", "label"], *([f"film {i}", i % 2] for i in range(30))]:
        book.active.append(row)
    book.save(tmp_path / "whole.xlsx")
    with zipfile.ZipFile(tmp_path / "whole.xlsx") as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    assert b'<dimension ref="A1:B31"' in parts[sheet]
    parts[sheet] = parts[sheet].replace(b'ref="A1:B31"', b'ref="A1:B11"')
    with zipfile.ZipFile(tmp_path / "told.xlsx", "w") as told:
        for name, content in parts.items():
            told.writestr(name, content)
    texts, _ = load_source(str(tmp_path / "told.xlsx")).splits["train"]
    assert len(texts) == 30


def test_a_missing_title_is_no_word(tmp_path):
    """pandas writes NaN for it, and "nan" is a word that the model would learn."""
    rows = [f'{{"title": NaN, "text": "good {i}", "label": {i % 2}}}' for i in range(4)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    texts, _ = load_source(str(tmp_path / "a.jsonl"), text_column="title,text").splits["train"]
    assert texts[0] == "good 0"


def test_a_packed_file_beside_the_unpacked_ones_does_not_matter(tmp_path):
    """As one has it after a download: the archive, and what came out of it."""
    for role in ("train", "test"):
        write_csv(tmp_path / f"{role}.csv", [(f"{role} {i}", i % 2) for i in range(6)])
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        for role in ("train", "test"):
            archive.write(tmp_path / f"{role}.csv", f"{role}.csv")
    assert set(load_source(str(tmp_path)).splits) == {"train", "test"}


def test_a_guess_about_any_part_of_a_split_is_said(tmp_path):
    """The second part alone may be in another encoding."""
    for part, text in enumerate(("plain", "caf\u00e9")):
        path = tmp_path / f"train-0000{part}-of-00002.csv"
        rows = "\n".join(f"{text} {i},{i % 2}" for i in range(6))
        path.write_bytes(f"text,label\n{rows}".encode("cp1252"))
    source = load_source(str(tmp_path))
    assert any("cp1252" in note for note in source.notes) and len(source.splits["train"][0]) == 12


def test_labels_below_zero_can_be_named_as_it_is_said(tmp_path):
    """argparse takes "-1=..." behind a blank for an option."""
    write_csv(tmp_path / "a.csv", [(f"film {i}", (-1, 1)[i % 2]) for i in range(60)])
    said = run_script("dataset.py", "--data", tmp_path / "a.csv").stdout
    assert "--labels=-1=...,1=..." in " ".join(said.split())
    named = "--labels=-1=negative,1=positive"
    done = run_script("dataset.py", "--data", tmp_path / "a.csv", named)
    assert done.returncode == 0 and named in done.stdout.splitlines()[-1]
    arguments = {"data": "a.csv", "labels": "-1=negative,1=positive", "demo": False}
    assert named in command_line({"arguments": arguments}), "and in a report"


def test_a_length_without_room_for_a_token_is_refused(rehearsed):
    """Every text got the same answer, or a traceback."""
    for length in ("1", "2"):
        words = "--model", rehearsed[0], "--max-length", length
        for done in (run_script("predict.py", *words, "fine"), run_script("evaluate.py", *words)):
            assert done.returncode == 2 and "has to be 3 or more" in done.stderr


def test_the_same_letter_in_two_encodings_of_it_is_one_class(tmp_path):
    """An accent may be a sign of its own, and nobody sees the difference."""
    rows = ["a,caf\u00e9", "b,cafe\u0301", "c,bar"] * 4
    _, names, _, _ = load_splits(str(write(tmp_path / "a.csv", "text,label\n" + "\n".join(rows))))
    assert names == ["bar", "caf\u00e9"]
