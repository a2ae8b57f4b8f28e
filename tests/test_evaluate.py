"""Chapter 5: figures that equal the reference's, also for odd questions."""

import csv

import pytest
import torch
from conftest import make_examples_of_lengths, make_model
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

from dataset import make_collate
from evaluate import predict_logits, score, wilson_interval
from support.saved import print_scores, save_predictions, warnings_for

CPU = torch.device("cpu")


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("kind", ["random", "one class", "one answer", "perfect"])
def test_every_figure_equals_scikit_learns(classes, kind):
    """On random inputs, and on those that divide by zero."""
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(257, classes, generator=generator)
    labels = torch.randint(0, classes, (257,), generator=generator)
    if kind == "one class":
        labels[:] = 1
    if kind == "one answer":
        logits[:, 0] += 100
    if kind == "perfect":
        labels = logits.argmax(-1)
    names = [f"class {c}" for c in range(classes)]
    figures = score(logits, labels.tolist(), names)

    predicted, every = logits.argmax(-1).numpy(), list(range(classes))
    p, r, f, n = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    assert figures["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    there = labels.unique().tolist()  # a class that does not occur cannot be found
    assert figures["macro_f1"] == pytest.approx(
        f1_score(labels, predicted, labels=there, average="macro", zero_division=0)
    )
    assert figures["confusion"] == confusion_matrix(labels, predicted, labels=every).tolist()
    for c, name in enumerate(names):
        one = figures["per_class"][name]
        assert [one["precision"], one["recall"], one["f1"], one["n"]] == pytest.approx(
            [p[c], r[c], f[c], n[c]]
        )
    if kind != "one answer":  # scikit-learn cuts probabilities near 0 off, and so changes their log
        expected = log_loss(labels, logits.double().softmax(-1).numpy(), labels=every)
        assert figures["loss"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "correct, n", [(0, 1), (1, 1), (3, 3), (88, 100), (22_000, 25_000), (0, 50)]
)
def test_the_interval_is_wilsons(correct, n):
    """The reference is scipy's."""
    expected = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_class_that_is_never_recognised_raises_a_warning():
    """An accuracy of 90 % is an empty result where nine in ten reviews are of one class."""
    logits = torch.tensor([[0.0, 1.0]] * 9 + [[1.0, 0.0]])
    names = ["negative", "positive"]
    found = warnings_for(score(logits, [1] * 10, names))
    assert any("every review is 'positive'" in warning for warning in found)
    found = warnings_for(score(torch.tensor([[0.0, 1.0]] * 4), [1, 1, 1, 0], names))
    assert any("not one of the 1 reviews of negative was" in warning for warning in found)


def test_a_model_that_is_no_better_than_one_answer_for_all_raises_a_warning():
    """Else a run that learned nothing ends like a success. 6 of 10 may be luck; 240 of 400, not."""
    names = ["negative", "positive"]
    for times, expected in ((1, 1), (40, 0)):
        logits = torch.eye(2).repeat(5 * times, 1)  # its answers: negative, positive, ...
        labels = [0, 1, 0, 1, 0, 1, 1, 0, 1, 0] * times  # six of ten are right
        found = warnings_for(score(logits, labels, names))
        assert len(found) == expected
        assert all("no better than always 'negative'" in one for one in found), "as in print_scores"


def test_the_macro_f1_of_one_answer_for_all_is_scikit_learn_s(capsys):
    """Also where a class has no review: then it counts neither here nor in the model's figure."""
    names, labels = ["negative", "neutral", "positive"], [0] * 6 + [2] * 4
    logits = torch.eye(3)[torch.tensor(labels)]
    print_scores(score(logits, labels, names), "test")
    expected = f1_score(labels, [0] * 10, average="macro", zero_division=0)
    assert f"always one: {expected:.2%}" in capsys.readouterr().out


def test_accuracy_is_counted_over_all_reviews_not_averaged_over_batches():
    """Batches of 4 and 1: the mean of batch means would be 50 %, the truth is 80 %."""
    labels = [0, 0, 0, 0, 1]
    figures = score(torch.tensor([[1.0, 0.0]] * 5), labels, ["a", "b"])
    assert figures["accuracy"] == 0.8 and figures["correct"] == 4


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_logits_come_back_in_the_order_of_the_data(batch_size):
    """Inside, reviews are sorted by length; a row that ends up elsewhere gets another's verdict."""
    model, collate = make_model(loud=True), make_collate(0)
    examples = make_examples_of_lengths([9, 30, 4, 17, 17, 5, 21])
    logits = predict_logits(model, examples, collate, CPU, batch_size=batch_size)
    for example, row in zip(examples, logits):
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([example["input_ids"]])).logits[0]
        assert torch.allclose(row, alone, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_eval_mode_is_set_and_the_mode_before_is_restored(training):
    """Dropout while measuring gives a new answer each time; none while training overfits."""
    model = make_model(dropout=0.5).train(training)
    examples = make_examples_of_lengths([9, 30, 4])
    first, again = (predict_logits(model, examples, make_collate(0), CPU) for _ in range(2))
    assert torch.equal(first, again) and model.training == training
    broken = lambda examples: 1 / 0  # noqa: E731  also when it fails half-way
    with pytest.raises(ZeroDivisionError):
        predict_logits(model, examples, broken, CPU)
    assert model.training == training


def test_predictions_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """A run that dies must not leave half a file under the name of a whole one."""
    path = tmp_path / "predictions.csv"
    split = {"texts": ['a "quoted", text\nof two lines', "\u00fc"], "labels": [1, 0]}
    logits, names = torch.tensor([[0.0, 0.0], [0.0, 1.0]]), ["negative", "positive"]
    save_predictions(path, logits, split, names)
    with open(path, encoding="utf-8", newline="") as file:
        written = list(csv.reader(file))
    assert written[0] == ["text", "label", "predicted", "score"]
    assert written[1] == [split["texts"][0], "positive", "negative", "0.5"]
    assert written[2][:3] == [split["texts"][1], "negative", "positive"]

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_predictions(path, logits, {"texts": ["x", "y"], "labels": [0, 0]}, names)
    monkeypatch.undo()
    with open(path, encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == written
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.csv"]
