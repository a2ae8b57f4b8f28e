"""docs/exercises.md: every answer fits the chapters as they are, and does what the page says."""

import re
import sys
import types

import pytest
import torch
from conftest import PROJECT, make_examples_of_lengths, make_model

import dataset
import evaluate
from support.unfinished import Run

CHAPTERS = ["dataset", "model", "evaluate", "finetune", "predict"]
PAGE = (PROJECT / "docs" / "exercises.md").read_text(encoding="utf-8")
# Number, question and answer.
EXERCISE = r"^\*\*(\d\.\d) .+?\*\*(.*?)<details><summary>Answer</summary>\n(.*?)^</details>$"
EXERCISES = re.findall(EXERCISE, PAGE, re.M | re.S)
ANSWERS = {number: answer for number, _, answer in EXERCISES}


def solve(number):
    """{path: source} of the chapters that an answer changes. Its line numbers do not matter."""
    (diff,) = re.findall(r"^```diff\n(.*?)^```$", ANSWERS[number], re.M | re.S)
    changed = {}
    for part in re.split(r"^--- a/", diff, flags=re.M)[1:]:
        path, _, rest = part.partition("\n")
        source = (PROJECT / path).read_text(encoding="utf-8")
        for hunk in re.split(r"^@@ ", rest, flags=re.M)[1:]:
            head, *lines = hunk.splitlines(keepends=True)
            # The first sign is no part of a line. (An empty line is one of context.)
            lines = [(line[0].strip(), line[1:] or "\n") for line in lines]
            old, new = ("".join(text for sign, text in lines if sign != no) for no in "+-")
            sizes = [str(text.count("\n")) for text in (old, new)]
            assert re.findall(r",(\d+)", head) == sizes, f"{path}: git apply refuses {head}"
            assert source.count(old) == 1, f"{path} has not exactly one place like this:\n{old}"
            source = source.replace(old, new)
        changed[path] = source
    return changed


@pytest.fixture
def load(monkeypatch):
    """load("1.3", "dataset"): a changed chapter as a module, which later ones import."""

    def load(number, name):
        module = types.ModuleType(name)
        exec(compile(solve(number)[f"{name}.py"], f"{name}.py", "exec"), vars(module))
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return load


# ------------------------------------------------------------------------------ the page
def test_each_chapter_has_three_exercises_with_a_folded_answer():
    """Guess first: an answer that lies open has been read before the question."""
    numbers = [f"{chapter}.{n}" for chapter in range(1, 6) for n in (1, 2, 3)]
    assert [number for number, *_ in EXERCISES] == numbers
    assert PAGE.count("<details>") == PAGE.count("```diff") == len(numbers)
    heads = re.findall(r"^## Chapter (\d), \[(\w+)\.py\]\(\.\./\2\.py\)$", PAGE, re.M)
    assert heads == [(str(n), name) for n, name in enumerate(CHAPTERS, start=1)]
    for number, question, answer in EXERCISES:
        assert "Guess" in question and "```bash\n" in question, f"{number}: guess, then look"
        assert len(answer.rpartition("```")[2].split()) > 20, f"{number}: and why?"
    assert max(map(len, PAGE.splitlines())) <= 100


@pytest.mark.parametrize("number", ANSWERS)
def test_every_answer_fits_the_chapters_and_compiles(number):
    """Who edits a chapter has to take its answers along, or the reader's diff does not apply."""
    changed = solve(number)
    assert changed and len(re.findall(r"^[-+](?!--|\+\+)", ANSWERS[number], re.M)) <= 15
    for path, source in changed.items():
        compile(source, path, "exec")
        assert max(map(len, source.splitlines())) <= 100


# ------------------------------------------------------------------------------ what it claims
def test_masking_hides_ordinary_tokens_and_nothing_else(load):
    """1.3: a hidden [CLS] would hide the place where the verdict is read off."""
    examples = make_examples_of_lengths([4, 400, 90])
    before, changed = dataset.make_collate(0)(examples), load("1.3", "dataset")
    torch.manual_seed(0)
    after = changed.make_collate(0, 4, range(5))(examples)
    hidden, ordinary = after["input_ids"] != before["input_ids"], before["input_ids"] >= 5
    assert not hidden[~ordinary].any() and (after["input_ids"][hidden] == 4).all()
    assert 0.1 < hidden.sum() / ordinary.sum() < 0.2
    for name in ("attention_mask", "labels"):
        assert torch.equal(after[name], before[name])


def test_masking_is_for_training_alone(load, arguments):
    """1.3: validation has to read whole texts, as users write them."""
    load("1.3", "dataset")
    loop, model, seen = load("1.3", "finetune").fine_tune, make_model(), {True: [], False: []}
    model.register_forward_pre_hook(
        lambda module, _, inputs: seen[module.training].append(inputs["input_ids"]),
        with_kwargs=True,
    )
    examples, names = make_examples_of_lengths([12] * 20), ["negative", "positive"]
    split = {"examples": examples, "labels": [example["label"] for example in examples]}
    splits = {"train": split, "validation": split}
    known = types.SimpleNamespace(pad_token_id=0, mask_token_id=4, all_special_ids=[0, 1, 2, 3, 4])
    args = arguments("--epochs", "1", "--batch-size", "4", "--lr", "5e-5")
    loop(model, known, splits, names, args, torch.device("cpu"), "fp32", Run(args))
    train, validation = (torch.cat(seen[training]) for training in (True, False))
    assert len(train) == len(validation) == 20
    assert (train == 4).any() and not (validation == 4).any()


def test_without_the_mask_an_answer_depends_on_its_batch(load):
    """3.1: and with it on the text alone."""
    collate, cpu = dataset.make_collate(0), torch.device("cpu")
    asked = make_model(loud=True), make_examples_of_lengths([4, 30, 11, 23]), collate, cpu
    ways = evaluate.predict_logits, load("3.1", "evaluate").predict_logits
    seeing, blind = ((way(*asked) - way(*asked, batch_size=1)).abs().max() for way in ways)
    assert seeing < 1e-4 and blind > 0.05


def test_the_table_of_intervals_is_computed():
    """3.3: the rows that the page prints, from both formulas."""
    changed = {}
    exec(compile(solve("3.3")["evaluate.py"], "evaluate.py", "exec"), changed)
    rows = [re.split(" {2,}", line) for line in ANSWERS["3.3"].splitlines()]
    for right in (18, 19, 20):
        both = (f(right, 20) for f in (changed["wilson_interval"], evaluate.wilson_interval))
        assert [str(right), *("{:.2%} to {:.2%}".format(*interval) for interval in both)] in rows
