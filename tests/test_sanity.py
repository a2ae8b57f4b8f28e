"""Sanity: each question can be answered with no."""

import types

import pytest
import torch
from conftest import make_examples_of_lengths, make_model, run_script

from extras import sanity
import finetune

CPU = torch.device("cpu")
NAMES = ["negative", "positive"]


@pytest.fixture
def ask(arguments, capsys):
    """Ask all four. Returns (exit code, the lines that were printed)."""

    def run(model, examples, *words, precision="fp32"):
        args = arguments("--lr", "1e-2", *words)
        parts = {"train": {"examples": examples[::2]}, "validation": {"examples": examples[1::2]}}
        tokenizer = types.SimpleNamespace(pad_token_id=0)
        code = sanity.check_sanity(model, tokenizer, parts, NAMES, args, CPU, precision)
        return code, capsys.readouterr().out.splitlines()

    return run


def examples_of(count, leak=False):
    """Random token ids and labels that have nothing to do with them; leak: id 30 says the label."""
    rows = make_examples_of_lengths([6 + i % 9 for i in range(count)])
    generator = torch.Generator().manual_seed(3)
    for row in rows:
        row["label"] = int(torch.randint(2, (1,), generator=generator))
        if leak:
            row["input_ids"][1:5] = [30 + row["label"]] * 4
    return rows


def test_sound_code_passes_and_nothing_is_trained(ask):
    """The model afterwards is the model before: copies were trained."""
    model = make_model(dropout=0.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    code, lines = ask(model, examples_of(400))
    assert code == 0 and [line[:4] for line in lines] == ["ok  "] * 4, lines
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_classes_of_unequal_size_are_no_false_alarm(ask):
    """One review in ten is of the other class: to call all of them the same is still chance."""
    rows = examples_of(400)
    rows = [row for i, row in enumerate(rows) if row["label"] == 0 or i % 10 < 2]
    code, lines = ask(make_model(dropout=0.0), rows)
    assert code == 0, lines


def test_a_class_that_validation_lacks_does_not_stop_the_questions(ask):
    """A misspelt label in two rows is such a class, and this is where one looks for it."""
    train, validation = examples_of(200), [row for row in examples_of(600) if row["label"] == 0]
    pairs = zip(train, validation)  # ask() gives every second one to validation
    code, lines = ask(make_model(dropout=0.0), [row for pair in pairs for row in pair])
    assert len(lines) >= 4 and "validation reviews right" in " ".join(lines)


def test_a_short_review_closes_once():
    """A second [SEP] would be another text."""
    assert sanity.shorten([2, 5, 6, 3]) == [2, 5, 6, 3]
    assert sanity.shorten([2, *range(100), 3])[-2:] == [sanity.SHORT - 3, 3]


def test_a_learning_rate_that_is_far_too_low_is_noticed(ask):
    """Eight reviews that cannot be learned by heart: hours would not help either."""
    code, lines = ask(make_model(dropout=0.0), examples_of(200), "--lr", "1e-9")
    assert code == 1 and lines[1].startswith("NO") and "learning rate" in lines[1]


def test_a_head_that_is_too_sure_at_the_start_is_noticed(ask):
    """The first loss is no guess any more."""
    model = make_model(dropout=0.0)
    with torch.no_grad():
        model.classifier.bias += torch.tensor([5.0, -5.0])
    code, lines = ask(model, examples_of(200))
    assert code == 1 and lines[0].startswith("NO")


def test_a_loop_that_trains_on_other_labels_than_it_is_given_is_noticed(ask, monkeypatch):
    """Here it looks up the true ones, which stand in the texts; the sound loop finds nothing."""
    examples = examples_of(400, leak=True)

    sound = finetune.fine_tune

    def broken(model, tokenizer, splits, *rest):
        rows = splits["train"]["examples"]
        rows = [row | {"label": row["input_ids"][1] - 30} for row in rows]
        return sound(model, tokenizer, {"train": {"examples": rows}}, *rest)

    code, lines = ask(make_model(dropout=0.0), examples)
    assert code == 0, lines
    monkeypatch.setattr(finetune, "fine_tune", broken)
    code, lines = ask(make_model(dropout=0.0), examples)
    assert code == 1 and [line[:2] for line in lines] == ["ok", "ok", "NO", "ok"], lines


def test_a_device_that_computes_something_else_is_noticed(ask, monkeypatch):
    """A broken kernel must not be blamed on the learning rate."""
    answers, asked = sanity.predict_logits, []

    def broken(model, rows, collate, device, precision="fp32", *rest):
        asked.append(precision)
        wrong = 0.5 if precision == "bf16" else 0
        return answers(model, rows, collate, device) + wrong

    monkeypatch.setattr(sanity, "predict_logits", broken)
    code, lines = ask(make_model(dropout=0.0), examples_of(200), precision="bf16")
    assert code == 1 and lines[3].startswith("NO") and "bf16" in asked


def test_the_command_writes_no_model(rehearsed, tmp_path):
    """It is asked before anything is begun, also where a finished model stands."""
    done = run_script("extras.sanity", "--demo", "--out", tmp_path / "out")
    assert done.returncode == 0 and done.stdout.count("\nok  ") == 4, done.stdout + done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["untrained"]


def test_it_is_not_asked_about_a_run_that_goes_on(tmp_path):
    """The first loss of trained weights is no guess, and nothing is wrong with that."""
    done = run_script("extras.sanity", "--resume", tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
