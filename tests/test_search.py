"""A search: every setting with every seed, once; stopped, it goes on as if it never had been."""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from statistics import mean, stdev
from types import SimpleNamespace

import pytest
import torch
from conftest import PROJECT, run_script

from extras import search, search_page, trial
from support.errors import Hopeless, UserError
from support.files import read_json

DEMO = ("--", "--demo", "--data", PROJECT / "support" / "demo_reviews", "--subset", "40")
GRID = ("truncation=head,tail", "seed=1,2", "--grid", "--test", "50", *DEMO, "--epochs", "1")


def figures_of(folder, **options):
    """{folder: run.json} of the runs of a search that were trained with these options."""
    found = {path.parent: read_json(path) for path in folder.glob("*/run.json")}
    same = set(options.items())
    return {path: run for path, run in found.items() if same <= typed(run)}


def typed(run):
    return {(k, v) for k, v in run["arguments"].items() if not isinstance(v, (list, dict))}


@pytest.fixture
def here(monkeypatch):
    """Test in this process, and not in a new one that imports torch anew."""

    def run_here(command):
        words = [os.fsdecode(word) for word in command]
        return run_script(*words[1:])

    monkeypatch.setattr(trial.subprocess, "run", run_here)
    return {"module": search}


def test_a_grid_tries_all_goes_on_and_adds_up(tmp_path, monkeypatch, here):
    """Four runs; those that are done are not made again; the table is that of their files."""
    where = ("--folder", tmp_path / "s")
    first = run_script("extras.search", *where, GRID[0], "seed=1", *GRID[2:], **here)
    assert first.returncode == 0, first.stderr
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("*/run.json")}
    done = run_script("extras.search", *where, *GRID, **here)
    assert done.returncode == 0, done.stderr
    assert len(made) == 2 and len(figures_of(tmp_path / "s")) == 4
    assert all(path.stat().st_mtime_ns == before for path, before in made.items())
    again = run_script("extras.search", *where, *GRID, **here)
    assert again.stdout.partition("chosen by")[2] == done.stdout.partition("chosen by")[2]
    assert "trial" not in again.stdout.partition("chosen by")[0], "nothing was left to do"
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("truncation=")]
    assert [float(row[1][:-1]) for row in rows] == sorted((float(r[1][:-1]) for r in rows))[::-1]
    for row in rows:
        runs = figures_of(tmp_path / "s", truncation=row[0].partition("=")[2])
        held_out = [run["results"]["validation"]["accuracy"] for run in runs.values()]
        tested = [read_json(f"{path}-test50.json") for path in runs]
        tested = [one["evaluated"]["figures"]["accuracy"] for one in tested]
        shown = [mean(held_out), stdev(held_out), mean(tested), stdev(tested)]
        assert row[1:3] + row[4:] == [f"{one:.2%}" for one in shown] and row[3] == "2"
    other = run_script("extras.search", *where, *GRID, "--lr", "1e-9", **here)
    assert other.returncode == 0 and len(figures_of(tmp_path / "s")) == 8, "others, beside them"


def test_a_search_does_not_touch_test_and_its_command_repeats_its_best(tmp_path, here):
    """What is chosen by test cannot be tested by it. And what is printed has to be true."""
    words = ("lr=1e-4..1e-2", "batch-size=8,16", "--trials", "3", "--folder", tmp_path / "s")
    done = run_script("extras.search", *words, *DEMO, "--epochs", "2", **here)
    assert done.returncode == 0, done.stderr
    runs = figures_of(tmp_path / "s")
    assert len(runs) == 3 and "test" not in done.stdout.partition("chosen by")[0]
    for folder, run in runs.items():
        assert "test" not in run["results"] and not (folder / "answers-test.json").exists()
        assert 1e-4 <= run["arguments"]["lr"] <= 1e-2 and (folder / "model.safetensors").exists()
        assert not (folder / "checkpoints").exists()
    best = re.search(r"^the best: python (.*)$", done.stdout, re.M)[1].split()
    again = run_script(*best, "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    found = read_json(tmp_path / "again" / "run.json")["results"]["validation"]
    held_out = [run["results"]["validation"] for run in runs.values()]
    assert found in held_out and found["accuracy"] == max(one["accuracy"] for one in held_out)
    page = (tmp_path / "s" / "search.html").read_text()
    assert page.count("<svg") == 3 and "--batch-size" in page


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.slow
def test_a_search_that_was_killed_loses_and_repeats_nothing(grid, tmp_path):
    """kill -9 in the middle of the second trial; in the end all is as if it had not happened."""
    knobs = ("lr=1e-3,2e-3,3e-3", "--grid") if grid else ("lr=1e-4..1e-2", "--trials", "3")
    command = [*map(str, [*knobs, *DEMO]), "--epochs", "25", "--save-every", "0"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    words = [sys.executable, "-m", "extras.search", "--folder", str(killed), *command]
    started, nowhere = time.monotonic(), subprocess.DEVNULL
    process = subprocess.Popen(words, cwd=PROJECT, stdout=nowhere, stderr=nowhere)
    while not (done_of(killed) and list(killed.glob("*/checkpoints/[1-9]*/SHA256SUMS"))):
        assert process.poll() is None and time.monotonic() < started + 100
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = done_of(killed)
    (first,) = {path.parent for path in killed.glob("*/run.json")} - {
        path.parent for path in killed.glob("*/checkpoints")
    }
    made = (first / "model.safetensors").stat().st_mtime_ns
    # In a process of its own: what a run has loaded belongs to what it goes on with.
    done = run_script(*words[2:], env=dict(os.environ))
    assert done.returncode == 0 and "resumed    after step" in done.stdout
    again = run_script("extras.search", "--folder", whole, *command, module=search)
    assert again.returncode == 0
    found = done_of(killed)
    assert sorted(found) == sorted(done_of(whole)) and len(found) == 3 and len(before) == 1
    assert found[:1] == before and made == (first / "model.safetensors").stat().st_mtime_ns


def done_of(folder):
    """[(params, value), ...] of the finished trials, in their order, as SQLite holds them."""
    if not (folder / "study.db").exists():
        return []
    ask = """SELECT param_name, param_value, value FROM trials JOIN trial_params USING (trial_id)
             JOIN trial_values USING (trial_id) WHERE state = 'COMPLETE' ORDER BY trials.number"""
    try:
        with contextlib.closing(sqlite3.connect(folder / "study.db")) as database:
            return database.execute(ask).fetchall()
    except sqlite3.OperationalError:  # it is being made
        return []


def test_a_hopeless_trial_is_stopped_and_one_that_fails_is_passed_over(tmp_path, monkeypatch):
    """A rate at which the loss is no number costs one trial, not the search."""
    tried = []

    def train(words, folder, watch):
        rate = float(words[-1].partition("=")[2])
        tried.append(rate)
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "arguments.json").touch()
        if len(tried) == 3:
            raise Hopeless("the loss is nan")
        figures = {"accuracy": 0.9 if len(tried) < 7 else 0.6, "n": 100}
        for epoch in (1, 2, 3):
            watch(epoch, figures)
        (folder / "finished").touch()
        return figures

    monkeypatch.setattr(search, "train", train)
    words = ("lr=1e-5..1e-3", "--trials", "8", "--folder", tmp_path / "s", *DEMO, "--epochs", "4")
    done = run_script("extras.search", *words, module=search)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("this setting failed: the loss is nan") == 1
    assert done.stdout.count("stopped: at this epoch half of the others were better") == 2
    assert len(tried) == 8 and len(list((tmp_path / "s").glob("*/finished"))) == 5
    assert len(list((tmp_path / "s").glob("*/checkpoints"))) == 6, "those stopped early are gone"
    assert "Crosses" in (tmp_path / "s" / "search.html").read_text()
    again = run_script("extras.search", *words, module=search)
    assert len(tried) == 8 and again.returncode == 0, "also those that failed are over"


def test_the_last_epoch_of_a_run_stops_nothing(tmp_path):
    """There is nothing left to save, and its figures would be lost."""
    told, words = [], [str(word) for word in DEMO[1:]]
    for _ in range(2):  # the second time it is only read
        found = trial.train([*words, "--epochs", "3"], tmp_path / "a", lambda n, _: told.append(n))
        assert told == [1, 2] and found["n"] > 0


def test_a_trial_is_compiled_when_that_is_asked_for(tmp_path, monkeypatch):
    """Its record says so, and its speed would be believed."""
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda model, **how: asked.append(how))
    words = [*map(str, DEMO[1:]), "--epochs", "1", "--compile"]
    trial.train(words, tmp_path / "a", lambda number, _: None)
    assert asked == [{"dynamic": True}]
    card = (tmp_path / "a" / "README.md").read_text()
    assert "chose the epoch. " in card, "and no test split was read, so the card does not say it"


def test_the_dots_of_a_path_are_no_range():
    """Two files of the folder above are two values, as two names are."""
    space, _ = search.read_space(["data=../a.csv,../b.csv"], [], False)
    assert space["data"].choices == ("../a.csv", "../b.csv")


def test_rates_are_searched_by_factors_and_counts_by_steps():
    """Between 1e-5 and 1e-3 lies 1e-4, and not 5e-4."""
    space, repeats = search.read_space(
        ["lr=2e-5..1e-4", "epochs=2..4", "dropout=0..0.3", "seed=1,2", "fold=1/2,2/2"], [], False
    )
    assert space["lr"].log and not space["epochs"].log and not space["dropout"].log
    assert (space["epochs"].low, space["epochs"].high) == (2, 4)
    assert repeats == [
        (("seed", seed), ("fold", fold)) for seed in ("1", "2") for fold in ("1/2", "2/2")
    ]


def test_the_table_names_a_row_of_seeds_alone_and_shows_losses_as_losses(tmp_path, capsys):
    """A row without a name looks like a mistake, and 35 % is no loss."""
    state = SimpleNamespace(name="COMPLETE")
    one = SimpleNamespace(
        params={}, value=0.35, user_attrs={"values": [0.3, 0.4], "reviews": 10}, state=state
    )
    worse = SimpleNamespace(**vars(one) | {"params": {"clip": 2}, "value": 0.5}, distributions={})
    study = SimpleNamespace(trials=[worse, one], best_trial=one)
    args = SimpleNamespace(test=None, grid=True, folder=tmp_path, vary=["seed=1,2", "fold=1/2,2/2"])
    words = ["--select", "loss", "--seed=1", "--fold=1/2"]
    search_page.conclude(study, args, lambda params: [words], "loss")
    printed = capsys.readouterr().out
    row = re.search(r"^\(as typed\) +0.3500 +0.0707 +2$", printed, re.M)
    assert row, "mean and deviation of two runs"
    assert printed.index("(as typed)") < printed.index("clip=2"), "the lower loss is the better one"
    assert "the best: python finetune.py --select loss\n" in printed, "seeds were not chosen"


@pytest.mark.parametrize(
    "words, told",
    [
        (["seed"], "say what to vary"),
        (["seed=1,"], "say what to vary"),
        (["seed=1,1"], "say what to vary"),
        (["seed=1", "seed=2"], "say what to vary"),
        ([], "required"),
        (["lr=1,x"], "invalid float"),
        (["lr=1e-5.."], "say what to vary"),
        (["lr=1e-3..1e-5"], "no range of numbers"),
        (["lr=1e-5..2..3"], "invalid float|say what to vary"),
        (["batch-size=8..16", "--grid"], "write a list here"),
        (["seed=1..3"], "write a list here"),
        (["truncation=head..tail"], "no range of numbers"),
        (["out=a"], "leave out --out"),
        (["seed=1", "--test", "-1"], "1 or more"),
        (["seed=1", "--trials", "0"], "1 or more"),
        (["see=1,2"], "no option --see"),
        (["seed=1", "--folder", "what?"], "without . and %"),
        (["seed=1", "--", "--overwrite"], "leave out --out"),
        (["seed=1", "--", "--out", "a"], "leave out --out"),
        (["seed=1", "--", "--batch-size", "0"], "has to be"),
        (["fold=1/5,6/5"], "write it like 2/5"),
    ],
)
def test_what_is_no_setting_gets_one_line(words, told, tmp_path):
    """Before anything is trained."""
    done = run_script("extras.search", "--folder", tmp_path / "s", *words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert re.search(told, done.stderr), done.stderr
    assert not (tmp_path / "s").exists()


def test_what_other_settings_cannot_mend_ends_the_search_and_is_tried_again(tmp_path, monkeypatch):
    """A full disk is no property of a learning rate: nothing may be counted as tried."""
    tried = []

    def train(words, folder, watch):
        tried.append(words)
        raise UserError("the disk is full")

    monkeypatch.setattr(search, "train", train)
    words = ("lr=1e-4,1e-3", "--grid", "--folder", tmp_path / "s", *DEMO)
    for times in (1, 2):
        done = run_script("extras.search", *words, module=search)
        assert done.returncode == 2 and done.stderr == "error: the disk is full\n"
        assert len(tried) == times

    def fail(*_):
        raise UserError("--lr 1e-3: is too much for this model")

    monkeypatch.setattr(search, "train", fail)
    done = run_script("extras.search", *words, module=search)
    assert done.stdout.count("this setting failed") == 2
    assert done.returncode == 2 and "no trial came to its end" in done.stderr


def test_changed_data_are_searched_anew(tmp_path, monkeypatch):
    """Old figures for new labels would be wrong, and nobody would see it."""
    tried = []

    def train(words, folder, watch):
        tried.append(folder)
        return {"accuracy": 0.5, "n": 10}

    monkeypatch.setattr(search, "train", train)
    data = tmp_path / "a.csv"
    words = ("lr=1e-4,1e-3", "--grid", "--folder", tmp_path / "s", "--", "--data", data)
    for content, runs in (("text,label", 2), ("text,label", 2), ("text,label\n", 4)):
        data.write_text(content)
        done = run_script("extras.search", *words, module=search)
        assert done.returncode == 0 and len(set(tried)) == len(tried) == runs, done.stderr


def test_labels_that_changed_places_in_a_folder_are_other_data(tmp_path):
    """Files with the same names and sizes: only what they hold tells that they are others."""
    args, marks = SimpleNamespace(data=str(tmp_path), model="no/such", demo=False), set()
    for content in ("fine,1\nbad,0\n", "fine,0\nbad,1\n"):
        (tmp_path / "train.csv").write_text(content)
        marks.add(trial.mark_of(args))
    assert len(marks) == 2


@pytest.mark.parametrize("equal", [False, True])
def test_the_page_says_which_option_matters_where_any_does(equal, tmp_path, monkeypatch):
    """With all figures equal nothing can be said, and the library's own words are not shown."""

    def train(words, folder, watch):
        options = dict(word[2:].split("=") for word in words if "=" in word)
        good = 0.9 if options["batch-size"] == "8" else 0.6
        return {"accuracy": 0.5 if equal else good, "n": 100}

    monkeypatch.setattr(search, "train", train)
    words = ("lr=1e-4..1e-2", "batch-size=8,16", "--trials", "12", "--folder", tmp_path, *DEMO)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        done = run_script("extras.search", *words, module=search)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "search.html").read_text()
    best = re.search(r"^the best: .* --batch-size=(\d+)$", done.stdout, re.M)[1]
    assert equal or best == "8"
    shares = re.findall(r"(\d+)% of the variance", page)
    assert shares == ([] if equal else shares[:2]) and (equal or int(shares[0]) > 90)
    assert equal or page.index("<h3>batch-size") < page.index("<h3>lr"), "the weightiest first"


def test_a_damaged_study_gets_one_line(tmp_path):
    """And says what to do."""
    (tmp_path / "study.db").write_text("garbage")
    done = run_script("extras.search", "lr=1e-4,1e-3", "--grid", "--folder", tmp_path, *DEMO)
    assert done.returncode == 2 and "study.db cannot be read" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_that_cannot_begin_ends_the_search_with_its_exit_code(tmp_path):
    """What it says is what is wrong; no other setting would fare better."""
    words = ("seed=1,2", "--folder", tmp_path / "s", "--", "--data", "nowhere.csv")
    done = run_script("extras.search", *words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert not list((tmp_path / "s").glob("*/run.json"))
