"""predict.py --file: every row in its order, none lost, none twice; a bad one stops nothing."""

import csv
import json
import signal
import subprocess
import sys
import time

import pytest
from conftest import PROJECT, run_script

from dataset import clean
from support.files import only_writer
from support.reading import read_rows
from support import rows
from support.errors import UserError

NAMES = ["negative", "positive"]


def classify(texts):
    """Stands for a model: as good as the text is long."""
    return [(NAMES[len(text) % 2], 0.5 + len(text) % 7 / 14) for text in texts]


def write(path, count, odd=()):
    """A file of `count` rows of different texts. odd: {row number: its text}."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        odd = dict(odd)
        writer.writerows((odd.get(i, f"film {i}" * (1 + i % 5)), i % 2) for i in range(count))


def answer(path, out, resume=False, classify=classify, identity=None):
    """predict.py --file without the model."""

    def chunks(skip):
        return rows.predict_chunks(asked, classify, clean, skip)

    asked = rows.open_asked(path, {})
    count = rows.count_rows(asked)
    identity = identity or {"the file": rows.file_digest(path)}
    return rows.write_predictions(out, count, chunks, identity, resume)


@pytest.mark.parametrize("after", [0, 1, 3, 4])
def test_a_stopped_file_goes_on_without_a_row_lost_or_double(tmp_path, after):
    """Stopped in any chunk, also with half of a chunk written behind what is certain."""
    write(tmp_path / "in.csv", 4500, {7: "", 2000: 'a "quoted"\nline', 4400: " \t"})
    assert answer(tmp_path / "in.csv", tmp_path / "whole.csv") == (4500, {"no text": 2})
    calls = []

    def stop(texts):
        calls.append(texts)
        if len(calls) > after:
            raise KeyboardInterrupt
        return classify(texts)

    with pytest.raises(KeyboardInterrupt):
        answer(tmp_path / "in.csv", tmp_path / "out.csv", classify=stop)
    assert not (tmp_path / "out.csv").exists(), "what has its name is whole"
    with open(tmp_path / "out.csv.unfinished", "a") as file:
        file.write('half a row, "and an open quo')
    assert answer(tmp_path / "in.csv", tmp_path / "out.csv", True) == (4500, {"no text": 2})
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv", "whole.csv"]


def test_what_was_begun_is_neither_overwritten_nor_mixed_with_another_file(tmp_path):
    """Half the answers of one model and half of another would look like a result."""
    write(tmp_path / "in.csv", 3000)
    calls = []

    def stop(texts):
        calls.append(texts)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return classify(texts)

    with pytest.raises(KeyboardInterrupt):
        answer(tmp_path / "in.csv", tmp_path / "out.csv", classify=stop)
    begun = (tmp_path / "out.csv.unfinished").read_bytes()
    for words, message in (
        ({}, "--resume goes on with it"),
        ({"resume": True, "identity": {"the file": 1}}, "the file changed since"),
    ):
        with pytest.raises(UserError, match=message):
            answer(tmp_path / "in.csv", tmp_path / "out.csv", **words)
    with (
        only_writer(tmp_path / "out.csv.unfinished.lock", "out.csv"),
        pytest.raises(UserError, match="wait"),
    ):
        answer(tmp_path / "in.csv", tmp_path / "out.csv", True)
    assert (tmp_path / "out.csv.unfinished").read_bytes() == begun
    for damage in ("{", '{"rows": 1}', json.dumps({"identity": {}, "bytes": 10**9})):
        (tmp_path / "out.csv.unfinished.json").write_text(damage)
        with pytest.raises(UserError, match="start over"):
            answer(tmp_path / "in.csv", tmp_path / "out.csv", True, identity={"": None})


def test_answers_read_whole_and_cut_are_not_mixed_in_a_file(tmp_path, rehearsed, monkeypatch):
    """--windows reads long texts otherwise, so it is one of the options that may not change."""
    write(tmp_path / "in.csv", 3000)
    words = ("predict.py", "--model", rehearsed[0], "--file", tmp_path / "in.csv")
    words += ("--out", tmp_path / "out.csv", "--resume")
    whole = rows.write_whole

    def stop(*given):
        whole(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(rows, "write_whole", stop)
    assert run_script(*words, "--windows").returncode == 130
    monkeypatch.undo()
    done = run_script(*words)
    assert done.returncode == 2 and "the options changed since" in done.stderr
    assert run_script(*words, "--windows").returncode == 0


def test_a_row_that_cannot_be_used_gets_an_error_and_keeps_its_place(tmp_path, rehearsed):
    """One odd row in a million must not cost the night; and the count says that it was there."""
    texts = ["good \ud83d film", None, 7, ["a"], "", " \t\n", "\u200b\u200d", "\0", "good"]
    lines = [json.dumps({"text": text}) for text in texts] + ['{"other": "x"}']
    (tmp_path / "odd.jsonl").write_text("\n".join(lines), encoding="utf-8")
    words = ("predict.py", "--model", rehearsed[0], "--file", tmp_path / "odd.jsonl")
    done = run_script(*words, "--out", tmp_path / "out.csv")
    assert done.returncode == 0 and "2 of 10 rows predicted" in done.stdout, done.stderr
    assert "6 rows have an error instead: no text\n" in done.stderr
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["text", "label", "predicted", "score", "error"]
    errors = [
        "",
        "no text",
        "no text, but int",
        "no text, but list",
        *["no text"] * 4,
        "",
        "no text",
    ]
    assert [row["error"] for row in found] == errors
    assert [bool(row["predicted"]) for row in found] == [not error for error in errors]
    assert [bool(row["score"]) for row in found] == [not error for error in errors]
    done = run_script(*words, "--json")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer.get("error", "") for answer in answers] == errors


def test_a_killed_prediction_goes_on(tmp_path, rehearsed):
    """The whole command, with SIGKILL; a million rows are in tests/kill_rows.py."""
    write(tmp_path / "in.csv", 12_000)
    words = ["predict.py", "--model", rehearsed[0], "--file", tmp_path / "in.csv", "--out"]
    started = subprocess.Popen(
        [sys.executable, *map(str, words), str(tmp_path / "out.csv")],
        cwd=PROJECT,
        stderr=subprocess.DEVNULL,
    )
    notes = tmp_path / "out.csv.unfinished.json"
    while not notes.exists() or json.loads(notes.read_text())["rows"] < 2000:
        assert started.poll() is None
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert run_script(*words, tmp_path / "out.csv").returncode == 2, "not without --resume"
    done = run_script(*words, tmp_path / "out.csv", "--resume")
    assert done.returncode == 0 and "12,000 of 12,000" in done.stdout, done.stderr
    with open(tmp_path / "out.csv", newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == [
            row["text"] for row in read_rows(tmp_path / "in.csv")
        ]
    done = run_script(*words, tmp_path / "out.csv", "--resume")
    assert done.returncode == 0 and "is done" in done.stdout


def test_a_file_of_answers_is_done_for_its_own_texts_only(rehearsed, tmp_path):
    """Another file that is older must not be called answered, nor the same one with a row more."""
    words = ["predict.py", "--model", rehearsed[0], "--out", tmp_path / "out.csv", "--resume"]
    texts = ["fine", "", "two\nlines, and a comma", "x" * 200_000, "\ud800"]
    for name, some in (("a", texts), ("b", texts[:-1]), ("c", ["other", *texts[1:]])):
        lines = [json.dumps({"text": text}) + "\n" for text in some]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    assert run_script(*words, "--file", tmp_path / "a.jsonl").returncode == 0
    assert "is done" in run_script(*words, "--file", tmp_path / "a.jsonl").stdout
    for name in "bc":
        done = run_script(*words, "--file", tmp_path / f"{name}.jsonl")
        assert done.returncode == 2 and "answers to other texts" in done.stderr


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_in_the_dialects_people_have(tmp_path, mark, delimiter, end):
    """Spreadsheets of three countries, an invisible mark at the start, an empty first line."""
    texts = ["plain", f"with{delimiter} one", 'a "quote"', "two\nlines", "\u05e9\u05dc\u05d5\u05dd"]
    path = tmp_path / "in.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(mark + end)
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
        writer.writerow(["text", "label", "a, b; c\td"])
        writer.writerows((text, 1, "") for text in texts)
    found = list(read_rows(path))
    assert [row["text"] for row in found] == texts
    assert list(found[0]) == ["text", "label", "a, b; c\td"]
