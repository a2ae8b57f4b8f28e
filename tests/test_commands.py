"""The five commands as a user types them: the rehearsal, one's own files, the README's lines."""

import ast
import contextlib
import csv
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import distribution

import pytest
from conftest import PROJECT, run_script
from packaging.requirements import Requirement
from sklearn.metrics import accuracy_score

REVIEWS = PROJECT / "demo_reviews"


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
    assert f"accuracy  {results['test']['accuracy']:.2%}" in done.stdout
    rows, data = read_csv(tmp_path / "p.csv"), read_csv(REVIEWS / "test.csv")
    assert list(rows[0]) == ["text", "label", "predicted", "score"]
    assert [row["label"] for row in rows] == [row["label"] for row in data], "order of the data"
    ours = accuracy_score([r["label"] for r in rows], [r["predicted"] for r in rows])
    assert ours == pytest.approx(results["test"]["accuracy"])
    done = run_script("evaluate.py", "--model", folder, "--split", "validation")
    assert f"accuracy  {results['validation']['accuracy']:.2%}" in done.stdout


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
    own = {path.stem for path in PROJECT.glob("*.py")} | {"tqdm"} | sys.stdlib_module_names
    assert {name.split(".")[0] for name in at_import} <= own
    # What reads the tokenizer; the reference, a bare model, has none.
    assert {name.split(".")[0] for name in at_work} <= own | {"tokenizers", "transformers"}
    assert len(at_work) < 30, sorted(at_work)


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


# ------------------------------------------------------------------------------ stopping, network
def test_ctrl_c_says_which_command_goes_on_and_it_does(tmp_path):
    """An evening's work must not be lost because the laptop must move (more in test_resume.py)."""
    command = [sys.executable, "-u", "finetune.py", "--demo", "--out", tmp_path / "stop"]
    process = subprocess.Popen(
        [*map(str, command), "--epochs", "200"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("epoch 1 "):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert run_script("predict.py", "--model", tmp_path / "stop", "Loved it").returncode == 0
    command = errors.strip().splitlines()[-1].partition("To go on: ")[2].split()
    assert command == ["python", "finetune.py", "--resume", str(tmp_path / "stop")]
    done = run_script("resume.py", tmp_path / "stop")
    assert "--epochs=200" in done.stdout and done.stdout.count("whole; after step") >= 1


@pytest.mark.parametrize(
    "script, seconds",
    [("evaluate.py", 0.2), ("evaluate.py", 1), ("predict.py", 1), ("predict.py", 3)],
)  # predict.py then waits for lines
def test_ctrl_c_while_libraries_are_imported_is_one_line(rehearsed, script, seconds):
    """They can catch it, and complain that they are damaged: what is shown has to be the truth."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", script, "--model", rehearsed[0]],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:  # a line for each module
        if line.split()[-1] == "errors":
            break
    heard = []
    listener = threading.Thread(target=lambda: heard.extend(process.stderr))
    listener.start()
    time.sleep(seconds)
    for _ in range(3):  # a library may swallow one altogether: then it is pressed again
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
            break
    listener.join(timeout=60)
    said = [line for line in heard if not line.startswith("import time:")]
    assert process.returncode == 130, said
    assert said[-1] == "stopped with Ctrl-C\n" and not any("Traceback" in line for line in said)


def test_ctrl_c_while_an_object_is_deleted_ends_the_run(tmp_path):
    """Python cannot raise it there: it prints "Exception ignored in ..." and goes on."""
    shutil.copy(PROJECT / "errors.py", tmp_path)
    (tmp_path / "command.py").write_text(
        "import signal\n"
        "from errors import run_command\n"
        "class Pressed:\n"
        "    def __del__(self):\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "def main():\n"
        "    Pressed()\n"
        "    print('went on')\n"
        "run_command(main)\n"
    )
    words = [sys.executable, tmp_path / "command.py"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped with Ctrl-C\n")


def test_without_hub_and_cache_the_run_ends_at_once_and_names_two_ways_out(tmp_path):
    """The libraries would retry for 48 s and then print a page of traceback."""
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    for words in (["finetune.py", "--out", tmp_path / "m"], ["dataset.py", "Loved it"]):
        started = time.perf_counter()
        done = run_script(*words, env=environment)
        assert time.perf_counter() - started < 10
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
        assert "--demo" in done.stderr and "--model and --data" in done.stderr.replace("\n", " ")


# ------------------------------------------------------------------------------ the README
def readme_commands():
    """The lines of the README's bash blocks that run one of our files."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text.replace("\\\n", ""), flags=re.S)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if "python " in part or part.startswith("torchrun ")]


def test_what_the_four_packages_bring_along_is_pinned():
    """Else the next reader installs other versions, that nobody has run this with."""
    pinned = {}
    for name in ("requirements.txt", "constraints.txt"):
        for line in (PROJECT / name).read_text().splitlines():
            if "==" in line:
                package, _, version = line.partition("==")
                pinned[package] = version
    todo, found = ["torch", "transformers", "datasets", "tqdm"], {}
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name in found or name.startswith(("nvidia", "cuda", "triton")):  # torch pins those
            continue
        found[name] = distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
    assert len(found) > 40 and set(found) <= set(pinned), set(found) - set(pinned)
    for name, package in found.items():
        assert package.version.partition("+")[0] == pinned[name], name


def test_every_option_in_the_readme_exists():
    """A flag that was renamed must not live on in the README."""
    helps = {"finetune.py": run_script("finetune.py", "--help").stdout}
    for command in readme_commands():
        script = re.search(r"(\w+\.py)(.*)", command)
        if not script:
            assert command in ("python -m pytest -n 2", "python -m venv .venv"), command
            continue
        if script[1] not in helps:
            helps[script[1]] = run_script(script[1], "--help").stdout
        own, _, passed_on = script[2].partition(" -- ")  # sweep.py passes the rest to finetune.py
        for words, name in ((own, script[1]), (passed_on, "finetune.py")):
            for option in re.findall(r"(?<= )--[a-z-]+", f" {words}"):
                assert option in helps[name], command


@pytest.fixture
def copied(rehearsed, tmp_path):
    """A copy of the project, with the folder that the rehearsal made in it."""
    for path in PROJECT.glob("*.py"):
        shutil.copy(path, tmp_path)
    shutil.copytree(REVIEWS, tmp_path / "demo_reviews")
    shutil.copytree(rehearsed[0], tmp_path / "demo")
    return tmp_path


def test_every_file_shows_what_its_docstring_says(copied):
    """Under "Shows" stand a command and lines of its output, in their order; "..." leaves some out.

    A trained model's figures differ a little from machine to machine: they count as digits only.
    """
    shown = 0
    for path in sorted(PROJECT.glob("*.py")):
        block = re.search(r"^Shows     \$ python (.*?)(?=\n\n|\n\Z)", describe(path), re.S | re.M)
        if not block:
            continue
        command, *lines = block[1].split("\n")
        done = run_script(*shlex.split(command), cwd=copied)
        output = done.stdout + done.stderr

        def simplify(line):
            return (
                re.sub(r"[\d.,#]+", "0", line).split()
                if "demo" in command.split()
                else line.split()
            )

        rest = iter([simplify(line) for line in output.splitlines()])
        for line in lines:
            assert line == "          ..." or simplify(line) in rest, (command, line, output)
        shown += 1
    assert shown >= 18


def describe(path):
    """The docstring of a file."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False) or ""


def test_the_readmes_commands_without_network_run_as_printed(copied):
    """In their order."""
    # (Others are run by test_parallel.py, test_app.py and test_sweep.py.)
    commands = [c for c in readme_commands() if "demo" in c and "torchrun" not in c]
    commands = [c for c in commands if not re.search("finetune.py|app.py|sweep.py", c)]
    assert any("evaluate.py" in c for c in commands) and any("predict.py" in c for c in commands)
    for command in commands:
        if command.startswith("python "):  # in this process, which has torch already
            done = run_script(*shlex.split(command)[1:], cwd=copied)
        else:
            command = command.replace("python ", f"{sys.executable} ", 1)
            done = subprocess.run(
                command, shell=True, cwd=copied, capture_output=True, text=True, timeout=120
            )
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout.strip(), command
