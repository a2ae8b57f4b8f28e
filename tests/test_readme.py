"""README.md: every figure is measured and recorded, or names its source.

Figures with these units outside of the generated sections have to be in KNOWN. (Numbers that are
written as words are not found.)
"""

import json
import random
import re
import runpy
import shlex

import pytest
from conftest import PROJECT

from extras.kept import command_line
from support.options import parse_arguments

README = (PROJECT / "README.md").read_text(encoding="utf-8")
TABLES = runpy.run_path(str(PROJECT / "docs" / "results" / "tables.py"))
MARK = "docs/results/tables.py writes this"
SECTION = re.compile(rf"<!-- (\w+): {MARK} -->\n(.*?)<!-- \1 ends -->", re.S)

# What a run was told, and not what came out.
CHOSEN = "subset seed epochs max_length lr batch_size accumulate warmup n attention_dropout clip"
CHOSEN = f"{CHOSEN} weight_decay head_epochs train_layers train_reviews threads".split()

# Figures outside of the generated sections: what they are, and so why nobody measured them.
KNOWN = {
    "268 MB": "the size of DistilBERT's file on the hub",
    "92.82 %": "quoted: Sanh et al. 2019, named beside it",
    "95 %": "the confidence of all intervals",
    "66 million": "DistilBERT's weights",
    "50 %": "chance, of two classes",
    "33 %": "macro F1 of one class: (2/3 + 0) / 2",
    "2 s": "a message of support/hub.py",
    "5 points": "one review of twenty",
}


def test_the_tables_are_the_recorded_ones():
    """Figures that were typed go stale; these are written by `python -m docs.results.tables`."""
    assert TABLES["rewrite"](README) == README
    assert set(TABLES["SECTIONS"]) == {name for name, _ in SECTION.findall(README)}


@pytest.mark.parametrize("name", sorted(TABLES["SECTIONS"]))
def test_one_altered_digit_is_found(name):
    """Tried with five or so digits of every section."""
    section = re.search(rf"<!-- {name}: {MARK}.*?<!-- {name} ends -->", README, re.S)
    digits = [section.start() + match.start() for match in re.finditer(r"\d", section[0])]
    assert digits
    for at in digits[:: max(1, len(digits) // 5)]:
        altered = README[:at] + str((int(README[at]) + 1) % 10) + README[at + 1 :]
        assert TABLES["rewrite"](altered) == README != altered


def test_the_one_command_beside_a_row_repeats_its_runs():
    """extras/sweep.py's, typed again, has the options of every recorded run of that name."""
    files = (PROJECT / "docs" / "results").glob("run-*.json")
    for name in {path.stem.removeprefix("run-").rpartition("-")[0] for path in files} - {"demo"}:
        found = TABLES["runs"](name)
        command = shlex.split(TABLES["sweep_command"](found))
        assert command[:3] == ["python", "-m", "extras.sweep"]
        words = command[3:]
        end = words.index("--")
        vary = dict(word.split("=", 1) for word in words[:end] if "=" in word)
        recorded = [one["run"]["arguments"] for one in found]
        # An option of the day: today it is a command, extras.sanity.
        assert not any(one.pop("sanity", False) for one in recorded)
        assert vary.pop("seed").split(",") == [str(one["seed"]) for one in recorded]
        for one in recorded:
            typed = [f"--{key}={value}" for key, value in (vary | {"seed": one["seed"]}).items()]
            again = vars(parse_arguments("", words[end + 1 :] + typed))
            assert again | {"out": one["out"]} == one, name


FROM_FILES = sorted(set(TABLES["SECTIONS"]) - {"width"})  # that one is computed


@pytest.mark.parametrize("name", FROM_FILES)
def test_other_results_make_another_section(name, tmp_path, monkeypatch):
    """The other way round: most of a section's figures change when those in the files do."""

    def altered(value, key=""):
        if isinstance(value, dict):
            return {k: altered(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [altered(v, key) for v in value]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or key in CHOSEN:
            return value
        return type(value)(value * chance.uniform(0.7, 0.95))

    for path in sorted((PROJECT / "docs" / "results").glob("*.json")):
        chance = random.Random(path.name)
        record = altered(json.loads(path.read_text(encoding="utf-8")))
        (tmp_path / path.name).write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.setitem(TABLES["read"].__globals__, "RESULTS", tmp_path)
    before = re.search(rf"<!-- {name}: .*?-->\n(.*?)\n<!-- {name} ends", README, re.S)[1]
    figures = [
        re.findall(r"\d[\d,.]*(?:e-\d+)?", re.sub(r"`.*?`", "", text))
        for text in (before, TABLES["SECTIONS"][name]())
    ]
    assert len(figures[0]) == len(figures[1])
    changed = sum(one != other for one, other in zip(*figures))
    assert changed > len(figures[0]) / 3, f"{changed} of {len(figures[0])}"


def test_no_figure_is_typed():
    """Shares, times and sizes outside of the generated sections are known, and no measurements."""
    text = re.sub(r"```.*?```", "", SECTION.sub("", README), flags=re.S)
    units = r"(?:%|points|x\b|GFLOP/s|reviews/s|GiB|MB|minutes?|seconds?|s\b|ms\b|times|million)"
    found = {" ".join(figure.split()) for figure in re.findall(rf"\d[\d,.]*\s?{units}", text)}
    assert found <= set(KNOWN), found - set(KNOWN)


def test_recorded_runs_are_whole_and_name_no_machine():
    """Command, versions, hardware, data, sizes, history, result, memory; no folder of anybody's."""
    files = sorted((PROJECT / "docs" / "results").glob("run-*.json"))
    assert files
    for path in files:
        one = json.loads(path.read_text(encoding="utf-8"))
        run, figures = one["run"], one["evaluated"]["figures"]
        assert {"arguments", "versions", "device", "data_fingerprint", "splits"} <= set(run)
        assert run["history"] and run["results"]["peak_bytes"] > 0
        assert sum(map(sum, figures["confusion"])) == figures["n"]
        assert not re.search(r'"(/|[A-Z]:)', json.dumps(one)), path


def test_a_run_that_stands_in_two_tables_has_one_result():
    """Beside Trainer's stands the very run of the first table."""
    (found,) = TABLES["read"]("accuracy-all.json")
    (ours,) = [run for run in found["runs"] if run["way"].startswith("`finetune.py`")]
    (recorded,) = TABLES["read"]("run-imdb-all-42.json")
    figures = recorded["evaluated"]["figures"]
    assert (ours["correct"], ours["n"]) == (figures["correct"], figures["n"])
    assert f"{recorded['run']['splits']['train']['reviews']:,}" in found["title"]


@pytest.mark.parametrize(
    "words",
    [
        "--epochs 3 --subset 2000",
        "--lr 2e-05 --truncation tail --head-epochs 2 --train-layers 3 --dropout 0.0",
        "--demo --epochs 2 --seed 7 --precision fp32",
        "--data 'a file.csv' --text-column 'the text' --patience 1",
    ],
)
def test_the_command_beside_a_row_repeats_the_run(words):
    """It is made from run.json's arguments; typed again, it gives the same ones."""
    args = vars(parse_arguments("", shlex.split(words)))
    command = shlex.split(command_line(args))
    assert command[:2] == ["python", "finetune.py"]
    assert vars(parse_arguments("", command[2:])) == args
    assert len(command) - 2 == len(shlex.split(words)), "nothing that is the default anyway"
