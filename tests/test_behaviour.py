"""Appendix Q: sentences in families, and pairs that differ in little."""

import json

import pytest
from conftest import run_script

from extras.behaviour import FAMILIES, print_behaviour, print_pairs, sentences
from support.errors import UserError

NAMES = ["negative", "positive"]


def test_there_are_sixty_sentences_of_both_kinds_in_families():
    """A family of one class would reward a model that always says it (sarcasm is never praise)."""
    rows = sentences()
    assert len(rows) >= 60 and len({sentence for _, sentence, _ in rows}) == len(rows)
    for family in FAMILIES:
        kinds = {truth for own, _, truth in rows if own == family}
        assert kinds == {0, 1} or family == "sarcasm"


def test_a_row_counts_its_own_family(capsys):
    """Whoever always says positive is right in exactly the positive ones."""
    print_behaviour(lambda texts: [("positive", 0.9)] * len(texts), NAMES)
    lines = capsys.readouterr().out.splitlines()
    for family in FAMILIES:
        truths = [truth for own, _, truth in sentences() if own == family]
        line = next(line for line in lines if line.startswith(family))
        assert f"{sum(truths):>3} of {len(truths):<2}" in line
    with pytest.raises(UserError, match="spam"):
        print_behaviour(None, ["ham", "spam"])


def test_a_pair_counts_when_both_are_right(tmp_path, capsys):
    """Who reads one word alone gets half of each pair right, and no pair."""
    path = tmp_path / "pairs.tsv"
    rows = ["original\toriginal_label\tchanged\tchanged_label"]
    rows += ["a good film\tpositive\ta good nap\t0"] * 3 + ["bad\t0\tgood\t1"]
    path.write_text("\n".join(rows))
    print_pairs(lambda texts: [(NAMES["good" in text], 0.9) for text in texts], NAMES, path)
    output = capsys.readouterr().out
    assert "4 pairs" in output and "is negative: a good nap" in output
    assert [line.split()[-1] for line in output.splitlines() if "right" in line] == [
        "100.0%",
        "25.0%",
        "25.0%",
    ]
    for bad, message in (("good\t7\tbad\t0", "not among"), ("\t1\tbad\t0", "two texts")):
        path.write_text("\n".join([rows[0], bad]))
        with pytest.raises(UserError, match=message):
            print_pairs(None, NAMES, path)


def test_evaluate_py_asks_both(rehearsed, tmp_path):
    """On a saved model; a missing file is one line."""
    words = ("evaluate.py", "--model", rehearsed[0])
    results = tmp_path / "families.json"
    done = run_script(*words, "--behaviour", "--results", results)
    assert done.returncode == 0 and "sarcasm" in done.stdout, done.stderr
    families = json.loads(results.read_text())["families"]
    right, n = (sum(row[key] for row in families.values()) for key in ("right", "n"))
    assert f"{right:>3} of {n}" in done.stdout.splitlines()[-1] and n == 61
    done = run_script(*words, "--pairs", tmp_path / "no.tsv")
    assert done.returncode == 2 and "not a file" in done.stderr
    done = run_script(*words, "--behaviour", "--save", tmp_path / "all.csv")
    assert done.returncode == 2 and "leave out --save" in done.stderr
