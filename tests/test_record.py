"""docs/results/record.py and differences.py: how figures are recorded, and when two differ."""

import copy
import csv
import json
import os
import random
import re
import sys

import pytest
from conftest import PROJECT, run_script
from scipy.stats import ttest_1samp

from dataset import load_splits
from docs.results import changes, differences, learned, record, tables, unlabelled
from docs.results.differences import difference, gain, only_right
from extras.compare import difference_interval, mcnemar
from support import demo


PARTS = ("evaluated", "validated")


@pytest.fixture
def recording(tmp_path, monkeypatch):
    """record(name, test) for a rehearsal of a few seconds; results and models go to tmp_path."""
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(record, "MODELS", tmp_path / "recorded")
    monkeypatch.setattr(record, "RUNS", {"tiny": "--demo --epochs 1 --subset 60 --lr 1e-3"})
    monkeypatch.setattr(record, "ASKED", {"cut": ("tiny", "--subset 30 --max-length 8")})
    monkeypatch.setattr(record, "WHOLE", ("tiny",))
    monkeypatch.setattr(record, "LOOKED_INTO", ("tiny",))
    monkeypatch.setattr(record, "COUNTED", {"counted": f"--data {demo.REVIEWS} --subset 60"})
    monkeypatch.setattr(record, "FEW", 30)

    def run(name, test):
        record.record(name, 42, test)
        return json.loads(record.path_of(name, 42).read_text(encoding="utf-8"))

    return run


def rights(part):
    """The share of reviews that were right, by the bits."""
    return int(part["right"], 16).bit_count() / part["figures"]["n"]


@pytest.mark.slow
def test_validation_is_recorded_before_anybody_reads_test(recording, tmp_path):
    """Defaults are chosen in between. So a first record must not hold what would spoil the choice;
    the second one takes the very same model.
    """
    before = recording("tiny", test=False)
    assert "evaluated" not in before and "test" not in before["run"]["results"]
    assert not (tmp_path / "recorded" / "tiny-42" / "answers-test.json").exists()
    weights = (tmp_path / "recorded" / "tiny-42" / "model.safetensors").read_bytes()
    after = recording("tiny", test=True)
    assert after["validated"] == before["validated"]
    assert after["run"]["history"] == before["run"]["history"], "not trained again"
    assert (tmp_path / "recorded" / "tiny-42" / "model.safetensors").read_bytes() == weights
    for part in ("validated", "evaluated"):
        assert rights(after[part]) == after[part]["figures"]["accuracy"], part
    assert after["evaluated"]["figures"]["n"] == 400, "all of test"
    assert sum(one["n"] for one in after["families"].values()) == 61
    loss = after["evaluated"]["figures"]["loss"]
    assert after["calibration"]["before"]["loss"][0] == pytest.approx(loss, rel=1e-5)
    for when in ("before", "after"):
        for value, low, high in after["calibration"][when].values():
            assert 0 <= low <= high and abs(value - (low + high) / 2) < 0.1
    # The same model, asked otherwise.
    cut = recording("cut", test=True)
    assert cut["run"]["history"] == before["run"]["history"]
    assert cut["evaluated"]["figures"]["n"] == 30
    # And counting words, asked about the same reviews. Those 30 are found among all answers.
    counted = recording("counted", test=True)["evaluated"]
    every, cut_rows = (
        list(csv.DictReader(open(tmp_path / "recorded" / f"{name}-42.csv", encoding="utf-8")))
        for name in ("counted", "cut")
    )
    assert [counted[n]["figures"]["n"] for n in ("30", "400")] == [30, 400]
    right = {row["text"]: row["label"] == row["predicted"] for row in every}
    wanted = [right[row["text"]] for row in cut_rows]
    assert counted["30"]["right"] == record.pack(wanted) and 0 < sum(wanted) < 30
    assert counted["400"]["figures"]["correct"] == sum(
        row["label"] == row["predicted"] for row in every
    )
    assert not re.search(r'"(/|[A-Z]:)', json.dumps([after, cut])), "no folder of anybody's"


@pytest.mark.parametrize(
    "words, said", [(["lr-9"], "is no run"), (["few"], "--test"), (["trainer-2000-42"], "--test")]
)
def test_a_run_that_cannot_be_recorded_so_is_refused(words, said, monkeypatch):
    """A mistyped name; and test is not read by somebody who asked for validation."""
    monkeypatch.setattr(record, "record", lambda *given: pytest.fail("recorded"))
    done = run_script("docs.results.record", *words, module=record)
    assert done.returncode == 2 and said in done.stderr


def test_what_is_recorded_is_left_as_it_is(monkeypatch):
    """Asked once more for validation, a tested run would lose its figures of test."""
    monkeypatch.setattr(record, "record", lambda *given: pytest.fail("recorded again"))
    assert run_script("docs.results.record", "demo-42", module=record).returncode == 0


@pytest.mark.parametrize("n", [1, 4, 7, 25_000])
def test_answers_are_packed_without_loss(n):
    """Four in a digit. The digits at the end may hold more than there are answers: those are 0."""
    right = [random.Random(n).random() < 0.9 for _ in range(n)]
    packed = record.pack(right)
    assert len(packed) == -(-n // 4)
    assert [digit == "1" for digit in f"{int(packed, 16):0{4 * len(packed)}b}"][:n] == right


@pytest.mark.slow
def test_the_second_model_learns_from_the_sure_answers_alone(tmp_path, monkeypatch):
    """The labelled reviews are the first model's; what is added is what it was sure of, with its
    labels; and no copy of a review that tests or validates is among them.
    """
    monkeypatch.chdir(PROJECT)
    models, splits = tmp_path / "recorded", load_splits(str(demo.REVIEWS))[0]
    texts = {role: split["texts"] for role, split in splits.items()}
    new = [f"{text} It was {i} minutes long." for i, text in enumerate(texts["train"][:200])]
    offered = {"text": [*new, *texts["test"][:50], *texts["validation"][:50], *new[:20]]}
    for name, value in (
        ("MODELS", models),
        ("UNLABELLED", {300: "tiny"}),
        ("RUNS", {"tiny": "--demo --epochs 15 --subset 300"}),
        ("MINILM", f"--model {models / 'tiny-42'}"),
        ("FEW", 30),
        ("DATA", str(demo.REVIEWS)),
        ("OFFERED", 150),
        ("SURE", 0.7),
        ("load_dataset", lambda data, split: offered),
    ):
        monkeypatch.setattr(unlabelled, name, value)
    monkeypatch.setattr(sys, "argv", ["", "300", "--results", str(tmp_path / "r.json")])
    unlabelled.main()
    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))

    def rows(name):
        with open(models / f"unlabelled-300-42-{name}.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    asked, answers, learned_from = rows("data"), rows("data-answers"), rows("data/train")
    assert len(asked) == 150 and {row["text"] for row in asked} <= set(new)
    sure = [(row["text"], row["predicted"]) for row in answers if float(row["score"]) >= 0.7]
    assert 0 < len(sure) < 150, "else this would show nothing"
    pairs = [(row["text"], row["label"]) for row in learned_from]
    assert pairs[300:] == sure and {text for text, _ in pairs[:300]} <= set(texts["train"])
    first = json.loads((models / "tiny-42" / "run.json").read_text(encoding="utf-8"))
    second = json.loads((models / "unlabelled-300-42" / "run.json").read_text(encoding="utf-8"))
    assert first["splits"]["train"]["reviews"] == 300
    assert second["splits"]["train"]["reviews"] == len(pairs) == 300 + found["unlabelled"]["kept"]
    assert found["evaluated"]["figures"]["n"] == 30
    assert rights(found["evaluated"]) == found["evaluated"]["figures"]["accuracy"]
    unlabelled.main()  # typed once more it does nothing twice, and says the same
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["run"] == found["run"]


# ------------------------------------------------------------------------------ two rows
def made_up(shares, n=5000, first=0):
    """Runs of three seeds: the first, second, ... of which gets such a share of n reviews right."""
    found = []
    for seed, share in enumerate(shares, start=42):
        right = [i < share * n for i in range(n)]
        random.Random(first + seed).shuffle(right)
        part = {"figures": {"n": n, "correct": sum(right)}, "right": record.pack(right)}
        found.append({"run": {"arguments": {"seed": seed}}, "evaluated": part})
    return found


@pytest.mark.parametrize(
    "shares, others, verdict",
    [
        ([0.90, 0.91, 0.90], [0.85, 0.86, 0.85], "better"),
        ([0.85, 0.86, 0.85], [0.90, 0.91, 0.90], "worse"),
        ([0.90, 0.91, 0.84], [0.85, 0.86, 0.85], "may be luck"),  # one seed says the opposite
        ([0.89, 0.91, 0.86], [0.85, 0.86, 0.85], "may be luck"),  # they say it, but vary too much
        ([0.881, 0.882, 0.883], [0.880, 0.880, 0.880], "may be luck"),  # too few reviews for that
        ([0.880, 0.880, 0.880], [0.880, 0.880, 0.880], "may be luck"),
    ],
)
def test_a_difference_is_claimed_only_beyond_both_kinds_of_luck(shares, others, verdict):
    """The luck of the test reviews, which the interval shows, and that of training, which the
    seeds show. A table that says "better" for less would mislead."""
    said = gain(made_up(shares), made_up(others, first=100))
    assert said.endswith(verdict)
    points = 100 * (sum(shares) - sum(others)) / 3
    assert said.startswith(f"{points:+.2f} ± ")


def test_the_interval_is_extras_compare_s():
    """For one seed to the last digit; three seeds that answer alike do not make it narrower."""
    one, other = made_up([0.90] * 3), made_up([0.88] * 3, first=100)
    only_a, only_b, n = only_right(one[0], other[0], "evaluated")
    value, low, high = (100 * x for x in difference_interval(only_a, only_b, n))
    assert gain(one[:1], other[:1]).startswith(f"{value:+.2f} ({low:+.2f} to {high:+.2f})")
    assert (low > 0) == (mcnemar(only_a, only_b) < 0.05) == ("better" in gain(one, other))
    assert gain(one[:1], other[:1]).endswith(": too few seeds"), "which may be a lucky one"
    alike = [copy.deepcopy(found[0]) for found in (one, other) for _ in range(3)]
    for at, run in enumerate(alike):
        run["run"]["arguments"]["seed"] = at % 3
    assert f"({low:+.2f} to {high:+.2f})" in gain(alike[:3], alike[3:])


def test_three_seeds_are_not_taken_for_more_reviews():
    """All answer the same test reviews, and two seeds may hold out the same ones for validation."""
    one, other = made_up([0.90] * 3), made_up([0.88] * 3, first=100)
    for run in (*one, *other):
        run["validated"] = run["evaluated"]
    for part in PARTS:
        three, alone = difference(one, other, part), difference(one[:1], other[:1], part)
        assert three[2] - three[1] == pytest.approx(alone[2] - alone[1], rel=0.05)


def test_nothing_gained_is_no_minus():
    """-0.00 would look like a loss. It is a sum that rounding has not brought to 0 exactly."""
    assert differences.in_points([-1e-9, 0.0, 0.0], -1, 1).startswith("+0.00 ± ")


def test_the_luck_of_the_seeds_is_judged_by_student_s_t():
    """The verdict turns where scipy's test of the three differences has p = 0.05."""
    for second in (0.87, 0.875, 0.88, 0.885, 0.89):
        one, other = made_up([0.90, second, 0.90]), made_up([0.85] * 3, first=100)
        points, _, _, verdict = difference(one, other)
        assert (verdict == "better") == (ttest_1samp(points, 0).pvalue < 0.05), second


def test_only_the_same_seeds_are_compared():
    """Another seed draws other train reviews: the difference would be one of the draw as well."""
    three, others = made_up([0.8, 0.9, 0.8]), made_up([0.7, 0.8, 0.9], first=100)
    assert gain(three, others[1:2]) == gain(three[1:2], others)
    assert gain(three, others[1:2]).startswith("+10.00 (")


@pytest.fixture
def known(monkeypatch):
    """Runs of some names, in place of the recorded ones: what they got right is known exactly."""
    names = ("few", "epochs-6", "batch-32", "warmup-0", "512", "256-head")
    shares = ([0.88] * 3, [0.80] * 3, [0.92] * 3, [0.88, 0.88, 0.89], [0.95], [0.84] * 3)
    known = {name: made_up(s, first=100 * at) for at, (name, s) in enumerate(zip(names, shares))}
    for run in sum(known.values(), []):
        run["run"]["device"] = {"precision": "fp32"}
    for module in (changes, differences):
        monkeypatch.setattr(module, "having", lambda name, *given, **how: known.get(name, []))
    monkeypatch.setattr(changes, "minutes_on", lambda found: "1")
    monkeypatch.setattr(changes, "made_on", lambda found: "")
    return known


def test_the_short_answer_has_the_best_change_first_and_nothing_of_one_seed(known):
    """Who reads three lines should read what helps most; one seed may be a lucky one."""
    rows = changes.changed().splitlines()[2:]
    names = ["--batch-size 32", "--warmup 0", "--truncation head", "--epochs 6"]
    assert [row.split("`")[1] for row in rows] == names
    for row, verdict in zip(rows, ["better", "may be luck", "worse", "worse"], strict=True):
        assert row.split(" | ")[2] == verdict


def test_a_run_in_16_bits_is_compared_with_its_like(known):
    """bf16 moves a figure by itself. An option must not be praised or blamed for it. Only the row
    that tells of fp32 is compared with bf16.
    """
    known |= {"bf16": made_up([0.83] * 3, first=700), "dropout": made_up([0.86] * 3, first=800)}
    known["fp32"] = known["few"]
    for run in (*known["bf16"], *known["dropout"]):
        run["run"]["device"] = {"precision": "bf16"}
    points = {row[0]: sum(row[1]) / 3 for row in changes.changes()}
    assert points["`--attention-dropout 0.1`"] == pytest.approx(3)
    assert points["`--precision fp32`"] == pytest.approx(5)
    assert points["`--truncation head`"] == pytest.approx(-4), "it is in fp32"
    rows = {row.split("`")[1]: row for row in changes.experiments().splitlines()[2:-2]}
    assert "+3.00" in rows["--attention-dropout 0.1"] and "+5.00" in rows["--precision fp32"]
    assert not re.search(r"[+-]\d", rows["--precision bf16"]), "the others are compared with it"
    names = ["bf16", "few", "fp32", "dropout", "256-head"]
    rows = dict(row[::2] for row in differences.against(names, "few"))
    assert [rows[name][:5] for name in names] == ["", "", "+5.00", "+3.00", "-4.00"]


def test_the_guesses_that_came_true_are_told_apart_from_the_others(known):
    """Six epochs were to be better, large batches and no warm-up worse. Reading the head alone was
    to be worse, and is. What may be luck proves no guess wrong. Of one seed (512 tokens) nothing is
    said.
    """
    known["bf16"] = made_up([0.88] * 3, first=700)  # of the first row nothing is guessed
    last = changes.experiments().splitlines()[-1]
    assert last == (
        "Guesses that came true: `--truncation head`. Guesses that did not: `--epochs 6`, "
        "`--batch-size 32`. Guesses that stay open: `--warmup 0`."
    )


# ------------------------------------------------------------------------------ DistilBERT itself
def test_without_the_hub_distilbert_s_command_says_so_and_writes_nothing(tmp_path):
    """It is for a machine that reaches the hub. (This one plays dead: HF_HUB_OFFLINE.)"""
    known = sorted(record.RESULTS.glob("*.json"))
    env = os.environ | {"HF_HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    done = run_script("docs.results.distilbert", cwd=tmp_path, env=env)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: no answer from" in done.stderr and "distilbert-base-uncased" in done.stderr
    assert sorted(record.RESULTS.glob("*.json")) == known


@pytest.mark.parametrize(
    "correct, where", [(23_000, "above"), (23_205, "in"), (23_400, "below")]
)
def test_a_measured_row_of_distilbert_is_set_beside_the_paper_s(
    correct, where, tmp_path, monkeypatch
):
    """92.82 %: is it within what 25,000 reviews can tell?"""
    found = json.loads((record.RESULTS / "run-imdb-all-42.json").read_text(encoding="utf-8"))
    figures = found["evaluated"]["figures"] | {"correct": correct}
    figures["accuracy_interval"] = list(tables.wilson_interval(correct, 25_000))
    found["evaluated"]["figures"] = figures
    (tmp_path / "run-distilbert-all-42.json").write_text(json.dumps(found), encoding="utf-8")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    rows = learned.distilbert().splitlines()
    assert rows[-2].endswith("| not measured yet |")
    assert f"{correct / 25_000:.2%}" in rows[-1]
    assert rows[-1].endswith(f"the paper's 92.82 % lies {where} this interval |")
