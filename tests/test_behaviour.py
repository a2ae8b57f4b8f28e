"""Sentences in families, and pairs that differ in little."""

import json

import pytest
from conftest import run_script

from extras.behaviour import print_behaviour, print_pairs, sentences
from support.errors import UserError

NAMES = ["negative", "positive"]
FAMILIES = dict.fromkeys(family for family, *_ in sentences())


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
    rows += ["a good film\tPositive\ta good nap\tnegative"] * 3 + ["bad\tNegative\tgood\tpos"]
    path.write_text("\n".join(rows))
    print_pairs(lambda texts: [(NAMES["good" in text], 0.9) for text in texts], NAMES, path)
    output = capsys.readouterr().out
    assert "4 pairs" in output and "is negative: a good nap" in output
    assert [line.split()[-1] for line in output.splitlines() if "right" in line] == [
        "100.0%",
        "25.0%",
        "25.0%",
    ]
    for bad, message in (
        ("good\t7\tbad\t0", "not among"),
        ("good\tpositive\tbad\t0", "not among"),  # a number among names may mean anything
        ("\t1\tbad\t0", "two texts"),
        ("<br />\t1\tbad\t0", "two texts"),  # nothing is left of it, and an answer means nothing
    ):
        path.write_text("\n".join([rows[0], bad]))
        with pytest.raises(UserError, match=message):
            print_pairs(None, NAMES, path)


@pytest.mark.slow
def test_the_command_asks_the_sentences_or_the_pairs(rehearsed, tmp_path):
    """On a saved model, in fp32 unless asked otherwise; what is wrong is one line."""
    words, results = ("extras.behaviour", "--model", rehearsed[0]), tmp_path / "figures.json"
    done = run_script(*words, "--results", results)
    assert done.returncode == 0 and "sarcasm" in done.stdout, done.stderr
    record = json.loads(results.read_text())
    assert list(record) == ["arguments", "versions", "precision", "families"]
    assert record["precision"] == "fp32"
    right, n = (sum(row[key] for row in record["families"].values()) for key in ("right", "n"))
    assert f"{right:>3} of {n}" in done.stdout.splitlines()[-1] and n == 61
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("original\toriginal_label\tchanged\tchanged_label\nI loved it\t1\tdull\t0\n")
    done = run_script(*words, "--pairs", pairs, "--results", results)
    assert "1 pairs" in done.stdout and "sarcasm" not in done.stdout, "only what was asked"
    assert json.loads(results.read_text())["pairs"]["n"] == 1
    before = pairs.read_bytes()
    for bad, message in (
        (["--pairs", tmp_path / "no.tsv"], "not a file"),
        (["--pairs", pairs, "--results", pairs], "is read"),
        (["--batch-size", "-1"], "1 or more"),
    ):
        done = run_script(*words, *bad)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert pairs.read_bytes() == before
