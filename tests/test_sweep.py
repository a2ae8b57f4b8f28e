"""Every value with every seed, once."""

import json
import os
import re
import shutil
from statistics import mean, stdev

import pytest
from conftest import PROJECT, run_script

from extras import sweep

WORDS = ("truncation=head,tail", "seed=1,2", "--test", "50", "--", "--demo")
WORDS += ("--data", PROJECT / "support" / "demo_reviews", "--epochs", "1", "--subset", "40")


def test_a_sweep_tries_all_goes_on_and_adds_up(tmp_path, monkeypatch):
    """Four runs; those that are done are not made again; the table is that of their files."""

    def run_here(command):  # and not in a new process, which imports torch anew
        words = [os.fsdecode(word) for word in command]  # fails where a real process would
        return run_script(*words[2 if words[1] == "-m" else 1 :], cwd=tmp_path)

    monkeypatch.setattr(sweep.subprocess, "run", run_here)
    monkeypatch.setattr(sweep.signal, "signal", lambda *_: None)  # Ctrl-C is the tests' own
    options = {"cwd": tmp_path, "module": sweep}
    first = run_script("extras.sweep", *WORDS[:1], "seed=1", *WORDS[2:], **options)
    assert first.returncode == 0, first.stderr
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").glob("*.json")}
    other = run_script("extras.sweep", *WORDS[:1], "seed=1", *WORDS[2:], "--lr", "1e-9", **options)
    assert other.returncode == 2 and "was made with --lr" in other.stderr
    done = run_script("extras.sweep", *WORDS, **options)
    assert done.returncode == 0, done.stderr
    assert len(made) == 4 and done.stdout.count("$ python finetune.py") == 2
    assert all(path.stat().st_mtime_ns == before for path, before in made.items())
    for value in ("head", "tail"):
        found = [
            json.loads(
                (tmp_path / "sweep" / f"truncation={value},seed={seed}-test50.json").read_text()
            )
            for seed in (1, 2)
        ]
        shares = [one["evaluated"]["figures"]["accuracy"] for one in found]
        row = re.search(rf"^truncation={value} .*", done.stdout, re.M)[0].split()[1:]
        assert row[1:3] == [f"{mean(shares):.2%}", f"{stdev(shares):.2%}"] and row[-1] == "2"
        held_out = [one["run"]["results"]["validation"]["accuracy"] for one in found]
        assert row[0] == f"{mean(held_out):.2%}"
        assert [one["run"]["arguments"]["truncation"] for one in found] == [value] * 2
    shutil.rmtree(tmp_path / "sweep" / "truncation=head,seed=1")
    again = run_script("extras.sweep", *WORDS[:1], "seed=1", *WORDS[2:], "--epochs", "2", **options)
    figures = tmp_path / "sweep" / "truncation=head,seed=1-test50.json"
    assert json.loads(figures.read_text())["run"]["arguments"]["epochs"] == 2, "no stale figures"
    assert again.returncode == 2 and "choose another --folder" in again.stderr  # seed=1, tail


def test_a_sweep_over_seeds_alone_names_its_row(tmp_path, monkeypatch):
    """It tells how much is luck. A row without a name looks like a mistake."""
    monkeypatch.setattr(sweep, "run_once", lambda folder, words, test: [0.8, 0.9, 0.7])
    options = {"cwd": tmp_path, "module": sweep}
    done = run_script("extras.sweep", "seed=1,2", "--", "--demo", **options)
    rows = done.stdout.splitlines()
    assert re.split(r"\s{2,}", rows[-1])[:2] == ["(as typed)", "80.00%"] and rows[-1][-1] == "2"
    done = run_script("extras.sweep", "lr=1e-4,2e-4", "seed=1,2", "--", "--demo", **options)
    assert [row.split()[0] for row in done.stdout.splitlines()[-2:]] == ["lr=1e-4", "lr=2e-4"]


@pytest.mark.parametrize(
    "words",
    [
        ["seed"],
        ["seed=1,"],
        ["seed=1,1"],
        ["seed=1", "seed=2"],
        [],
        ["lr=1,x"],
        ["out=a"],
        ["seed=1", "--test", "0"],
        ["seed=1", "--", "--overwrite"],
        ["seed=1", "--", "--out", "a"],
        ["seed=1", "--", "--batch-size", "0"],
    ],
)
def test_what_is_no_setting_gets_one_line(words, tmp_path):
    """Before anything is trained."""
    done = run_script("extras.sweep", "--folder", tmp_path / "s", *words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_a_run_that_fails_ends_the_sweep_with_its_exit_code(tmp_path):
    """What it says is what is wrong; nothing is recorded."""
    words = ("seed=1,2", "--folder", tmp_path / "s", "--", "--data", "nowhere.csv")
    done = run_script("extras.sweep", *words, env=dict(os.environ))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert not list((tmp_path / "s").glob("*.json"))
