"""The recipe notices when it fails: before a run, and after it."""

import json

import pytest
import torch
from conftest import run_script

from dataset import load_splits
from evaluate import score
from extras.kept import command_line
from support.options import choose_recipe, parse_arguments
from support.saved import warnings_for


def recipe(steps, classes, width=768, *words):
    """(epochs, rate, what was said) for so many steps an epoch."""
    args, notes = parse_arguments("", list(words)), []
    choose_recipe(args, steps, classes, width, notes)
    return args.epochs, args.lr, " ".join(notes)


@pytest.mark.parametrize(
    "steps, classes, width, expected",
    [
        (1407, 2, 768, (2, 5e-5)),  # IMDB, 22,500 reviews
        (125, 2, 384, (3, 5e-5)),  # --subset 2000
        (563, 77, 384, (4, 2e-4)),  # 9,000 rows of 77 intents
        (150, 77, 768, (13, 1e-4)),
        (9, 3, 768, (20, 5e-5)),  # 135 rows: as many epochs as it dares
    ],
)
def test_epochs_and_rate_follow_steps_and_classes(steps, classes, width, expected):
    """300 steps, 20 more a class, 2 to 20 epochs. Two epochs of 10,000 rows in 77 classes ended 21
    points below counting words, without a word.
    """
    epochs, rate, said = recipe(steps, classes, width)
    assert (epochs, rate) == expected
    assert bool(said) == (expected != (2, 5e-5)), "what is not usual is said"


def test_what_is_typed_counts():
    """And then nothing is said about it."""
    assert recipe(9, 77, 768, "--epochs", "1", "--lr", "1e-5") == (1, 1e-5, "")
    assert recipe(9, 2, 768, "--epochs", "4")[:2] == (4, 5e-5)


def test_a_run_notes_what_it_has_chosen(workplace, tmp_path):
    """run.json and --resume need the numbers, and its plan says them."""
    out = tmp_path / "model"
    words = f"--model {workplace / 'encoder'} --data {workplace / 'good.csv'} --max-length 12"
    done = run_script("finetune.py", *words.split(), "--batch-size", "2", "--out", out)
    assert done.returncode == 0, done.stderr
    run = json.loads((out / "run.json").read_text())
    made = run["arguments"]
    assert run["recipe"] == {"epochs": 15, "lr": 5e-5}
    command = command_line(run)
    assert "--batch-size 2" in command and "--epochs" not in command and "--lr" not in command
    assert (made["epochs"], made["lr"]) == (15, 5e-5), "24 steps an epoch"
    assert "recipe: --epochs 15, for 340 steps" in " ".join(done.stdout.split())
    assert f"python -m extras.baseline --like {out}" in done.stdout


def figures_of(said, labels, classes):
    """The figures of a model that says `said`."""
    logits = torch.nn.functional.one_hot(torch.tensor(said), classes).float() * 5
    return score(logits, labels, [f"c{c}" for c in range(classes)])


def test_warnings_hold_for_any_number_of_classes():
    """Never answered; no better than the commonest class; a train loss that is half a guess's."""
    labels = [i % 40 for i in range(400)]
    good = warnings_for(figures_of(labels, labels, 40), train_loss=0.5)
    assert not good
    lazy = warnings_for(figures_of([0] * 400, labels, 40), train_loss=3.0)
    said = " ".join(lazy)
    assert "no better than always 'c0'" in said and "3.00, where a guess has 3.69" in said
    assert "not one of the 390 reviews of c1, c2, c3, c4 or 35 others was recognised" in said
    assert len(warnings_for(figures_of(labels, labels, 40), train_loss=1.9)) == 1


def test_a_split_without_a_class_is_measured_on_what_it_has():
    """Its row is empty, and its F1 of 0 does not pull the mean down."""
    figures = figures_of([0, 0, 1, 1], [0, 0, 1, 1], 3)
    assert figures["macro_f1"] == 1.0 and figures["accuracy"] == 1.0
    assert any("no review here is c2" in warning for warning in warnings_for(figures))


def test_a_balanced_draw_from_an_unbalanced_file_is_said(tmp_path):
    """`--subset` takes as many of each class, which changes the shares; --keep-shares does not."""
    path = tmp_path / "x.csv"
    path.write_text("text,label\n" + "".join(f"text {i},{int(i % 10 == 0)}\n" for i in range(2000)))
    splits, _, notes, _ = load_splits(str(path), subset=100)
    assert splits["train"]["labels"].count(1) == 50
    assert any(note.startswith("train: drawn equally, 50 0 and 50 1 of") for note in notes)
    splits, _, notes, _ = load_splits(str(path), subset=100, keep_shares=True)
    assert splits["train"]["labels"].count(1) == 10
    assert not any("drawn equally" in note for note in notes)
