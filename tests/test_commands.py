"""The five commands as a user types them: the rehearsal, then one's own files."""

import csv
import json
import os
import random
import re
import shutil
import sys

import pytest
from conftest import PROJECT, run_script
from sklearn.metrics import accuracy_score

REVIEWS = PROJECT / "support" / "demo_reviews"


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------------------ the rehearsal
def test_the_rehearsal_learns_what_the_made_up_reviews_say(rehearsed):
    """At least 90 % on reviews that share no sentence with training, and a loud word about it."""
    folder, output = rehearsed
    run = json.loads((folder / "run.json").read_text())
    assert run["results"]["test"]["accuracy"] >= 0.9
    assert run["results"]["test"]["n"] >= 200 and run["splits"]["train"]["reviews"] >= 1000
    assert output.lower().count("rehearsal") >= 2, "at the start and at the end"
    assert run["results"]["reviews_per_second"] > 0
    best = run["results"]["best_epoch"]
    accuracies = [epoch["validation"]["accuracy"] for epoch in run["history"]]
    assert accuracies[best - 1] == max(accuracies), "validation chose the epoch"


def test_the_made_up_test_reviews_share_no_sentence_with_train():
    """Otherwise the rehearsal's figure would measure memory."""
    sentences = {}
    for side in ("train", "test"):
        texts = [row["text"] for row in read_csv(REVIEWS / f"{side}.csv")]
        parts = [re.split(r"(?<=[.!?])\s+|<br /><br />", text) for text in texts]
        sentences[side] = {s.strip() for text in parts for s in text if len(s.split()) > 2}
    assert len(sentences["test"]) > 200
    assert not sentences["train"] & sentences["test"]


@pytest.mark.slow
def test_shuffled_labels_teach_nothing(tmp_path):
    """If a model scored well after training on noise, the test would be leaking.

    With the true labels these four epochs are enough for over 80 %, so a leak would show.
    """
    rows = read_csv(REVIEWS / "train.csv")
    labels = [row["label"] for row in rows]
    random.Random(0).shuffle(labels)
    with open(tmp_path / "train.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((row["text"], label) for row, label in zip(rows, labels))
    shutil.copy(REVIEWS / "test.csv", tmp_path)
    out = tmp_path / "noise"
    done = run_script(
        *("finetune.py", "--demo", "--data", tmp_path, "--out", out, "--epochs", 4), "--seed", 1
    )
    assert done.returncode == 0, done.stderr
    accuracy = json.loads((out / "run.json").read_text())["results"]["test"]["accuracy"]
    assert 0.38 < accuracy < 0.62


def test_evaluate_repeats_the_result_of_training(rehearsed, tmp_path):
    """Same split, same figure; and the saved predictions give it to scikit-learn too."""
    folder, _ = rehearsed
    results = json.loads((folder / "run.json").read_text())["results"]
    done = run_script("evaluate.py", "--model", folder, "--save", tmp_path / "p.csv")
    assert done.returncode == 0, done.stderr
    assert f"accuracy   {results['test']['accuracy']:.2%}" in done.stdout
    rows, data = read_csv(tmp_path / "p.csv"), read_csv(REVIEWS / "test.csv")
    assert list(rows[0]) == ["text", "label", "predicted", "score"]
    assert [row["label"] for row in rows] == [row["label"] for row in data], "order of the data"
    ours = accuracy_score([r["label"] for r in rows], [r["predicted"] for r in rows])
    assert ours == pytest.approx(results["test"]["accuracy"])
    done = run_script("evaluate.py", "--model", folder, "--split", "validation")
    assert f"accuracy   {results['validation']['accuracy']:.2%}" in done.stdout


def test_evaluate_finds_the_data_again_and_notices_when_it_has_changed(tmp_path):
    """From another folder, too. A changed file is divided anew, and trained rows may be in test."""
    (tmp_path / "data").mkdir()
    source = tmp_path / "data" / "mine.csv"
    rows = read_csv(REVIEWS / "train.csv")
    with open(source, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *(row.values() for row in rows)])
    script = PROJECT / "finetune.py"
    words = ("--demo", "--data", "mine.csv", "--epochs", 1, "--out", tmp_path / "mine")
    done = run_script(script, *words, "--subset", 200, cwd=tmp_path / "data")
    assert done.returncode == 0, done.stderr
    for words in ([], ["--data", "data/mine.csv"]):
        done = run_script(PROJECT / "evaluate.py", "--model", "mine", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "300 reviews" in done.stdout and "has changed" not in done.stdout
    with open(source, "a", encoding="utf-8") as file:
        file.write("Another film.,positive\n")
    done = run_script(PROJECT / "evaluate.py", "--model", "mine", cwd=tmp_path)
    assert "has changed since training" in done.stdout


# ------------------------------------------------------------------------------ predictions
def test_predict_takes_arguments_lines_and_files_and_agrees_with_itself(rehearsed, tmp_path):
    """Three ways in, one answer."""
    folder, _ = rehearsed
    texts = ["I loved it.", "What a waste of time!", "The plot is not dull, it's great; really :)"]
    by_argument = run_script("predict.py", "--model", folder, "--json", *texts)
    answers = [json.loads(line) for line in by_argument.stdout.splitlines()]
    assert [answer["text"] for answer in answers] == texts
    assert all(set(a) == {"text", "label", "score"} for a in answers)
    assert all(a["label"] in ("negative", "positive") and 0.5 <= a["score"] <= 1 for a in answers)
    assert [a["label"] for a in answers[:2]] == ["positive", "negative"]

    by_line = run_script(
        "predict.py", "--model", folder, "--json", input="\n".join([texts[0], "", *texts[1:]])
    )
    lines = [json.loads(line) for line in by_line.stdout.splitlines()]
    assert [one["label"] for one in lines] == [one["label"] for one in answers]
    assert [o["score"] for o in lines] == pytest.approx([a["score"] for a in answers], abs=1e-5)

    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    with open(source, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["text"], [texts[0]], [""], *zip(texts[1:])])
    done = run_script("predict.py", "--model", folder, "--file", source, "--out", out)
    assert done.returncode == 0 and "3 of 4 rows predicted" in done.stdout
    rows = read_csv(out)
    assert [row["text"] for row in rows] == [texts[0], "", *texts[1:]]
    assert [row["predicted"] for row in rows if row["text"]] == [a["label"] for a in answers]
    assert rows[1]["predicted"] == rows[1]["score"] == ""


@pytest.mark.slow
def test_predict_imports_nothing_that_loading_the_model_does_not(rehearsed):
    """Starting is nearly all of the time that one sentence takes: seconds, against a tenth of one.

    Whoever imports datasets on the way adds half a second. And transformers itself has to wait
    for the first folder, or --help and every typing error would take as long.
    """
    code = """if True:
        import sys, torch
        before = set(sys.modules)
        import predict
        print(*set(sys.modules) - before)
        from transformers import DistilBertForSequenceClassification
        DistilBertForSequenceClassification.from_pretrained(sys.argv[1])
        before = set(sys.modules)
        sys.argv = ["predict.py", "--model", sys.argv[1], "--json", "Loved it"]
        predict.main()
        print(*set(sys.modules) - before)
    """
    done = run_script("-c", code, rehearsed[0], env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    at_import, answer, at_work = (line.split() for line in done.stdout.split("\n")[:3])
    assert '"Loved' in answer, "it has really predicted"
    own = {path.stem for path in PROJECT.glob("*.py")} | {"support", "tqdm"}
    own |= sys.stdlib_module_names
    assert {name.split(".")[0] for name in at_import} <= own
    # What reads the tokenizer; the reference, a bare model, has none.
    assert {name.split(".")[0] for name in at_work} <= own | {"tokenizers", "transformers"}
    assert len(at_work) < 30, sorted(at_work)


@pytest.mark.slow
def test_any_text_gets_an_answer_and_any_row_keeps_its_place(rehearsed, tmp_path):
    """Half an emoji, a row without the column, a number for a text: no reason to stop."""
    texts = [
        "good \ud83d film",
        None,
        7,
        "[SEP] [PAD]",
        "\u05e9\u05dc\u05d5\u05dd \U0001f600",
        "a" * 100_000,
    ]
    lines = [json.dumps({"text": text}) for text in texts] + ['{"other": "x"}']
    (tmp_path / "odd.jsonl").write_text("\n".join(lines), encoding="utf-8")
    words = ("--model", rehearsed[0], "--file", tmp_path / "odd.jsonl", "--out", tmp_path / "o.csv")
    done = run_script("predict.py", *words)
    assert done.returncode == 0 and "4 of 7 rows predicted" in done.stdout, done.stderr
    predicted = [row["predicted"] != "" for row in read_csv(tmp_path / "o.csv")]
    assert predicted == [True, False, False, True, True, True, False]
    done = run_script(
        *("predict.py", "--model", rehearsed[0], "good \U0001f600"),
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
    )
    assert done.returncode == 0, done.stderr


def test_three_classes_with_names_of_ones_own(tmp_path, rehearsed):
    """Nothing in the code knows that there are two classes, or what they are called."""
    rows = [
        (f"{word} number {i}", label)
        for label, word in (
            ("spam", "win money now"),
            ("ham", "see you at lunch"),
            ("eggs", "omelette"),
        )
        for i in range(40)
    ]
    with open(tmp_path / "mail.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("body", "kind"), *rows])
    out = tmp_path / "mail"
    columns = ("--text-column", "body", "--label-column", "kind")
    done = run_script(
        *("finetune.py", "--demo", "--data", tmp_path / "mail.csv", *columns, "--out", out),
        *("--epochs", 12, "--batch-size", 8),
    )
    assert done.returncode == 0, done.stderr
    run = json.loads((out / "run.json").read_text())
    assert run["labels"] == ["eggs", "ham", "spam"]
    assert run["results"]["test"]["accuracy"] > 0.9
    done = run_script("predict.py", "--model", out, "win money")
    assert done.stdout.startswith("spam")
