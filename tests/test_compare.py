"""One model against another, and against counting words."""

import csv
import json
import os
import sys

import numpy
import pytest
import torch
from conftest import PROJECT, run_script
from scipy.stats import binomtest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import BernoulliNB

import dataset
from dataset import load_splits
from extras import baseline
from extras.compare import difference_interval, mcnemar
from support.errors import UserError


# ------------------------------------------------------------------------------ compare
@pytest.mark.parametrize("a, b", [(0, 0), (1, 0), (5, 5), (3, 17), (120, 90), (900, 1100)])
def test_mcnemar_is_scipy_s_exact_binomial_test(a, b):
    """The trusted reference, for few and for many reviews."""
    expected = binomtest(a, a + b, 0.5).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)


def test_the_interval_of_a_difference_is_that_of_its_reviews():
    """Each review is worth 1, -1 or 0; the interval is that of the mean of these and of one more
    of each kind."""
    only_a, only_b, n = 30, 12, 400
    more = [1.0] * (only_a + 1) + [-1.0] * (only_b + 1) + [0.0] * (n - only_a - only_b)
    values = torch.tensor(more).double()
    mean, error = values.mean().item(), values.std(correction=0).item() / len(more) ** 0.5
    difference, low, high = difference_interval(only_a, only_b, n)
    assert difference == (only_a - only_b) / n
    assert (low, high) == pytest.approx((mean - 1.959964 * error, mean + 1.959964 * error))


@pytest.mark.parametrize("n, a, b", [(40, 6, 2), (100, 5, 0), (400, 30, 12)])
def test_the_interval_holds_the_true_difference_in_95_of_100_samples(n, a, b):
    """The textbook's, without the additional reviews, does not where few of them decide."""
    random = numpy.random.default_rng(0)
    counts = random.multinomial(n, [a / n, b / n, 1 - (a + b) / n], size=4000)
    held = textbook = 0
    for only_a, only_b, _ in counts.tolist():
        _, low, high = difference_interval(only_a, only_b, n)
        held += low <= (a - b) / n <= high
        mean = (only_a - only_b) / n
        error = 1.959964 * ((only_a + only_b) / n - mean**2) ** 0.5 / n**0.5
        textbook += mean - error <= (a - b) / n <= mean + error
    assert held / len(counts) > 0.94
    assert (n, a, b) != (100, 5, 0) or textbook / len(counts) < 0.94


def write(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("text", "label", "predicted", "score"), *rows])


def test_two_files_of_the_same_reviews_are_compared(tmp_path):
    """And two files of other reviews are not, whatever their accuracies."""
    rows = [(f"film {i}", "positive", "positive" if i % 4 else "negative", 0.9) for i in range(40)]
    better = [(text, label, label, 0.8) for text, label, _, _ in rows]
    write(tmp_path / "a.csv", better)
    write(tmp_path / "b.csv", rows)
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    done = run_script("extras.compare", *files, "--results", tmp_path / "counts.json")
    assert done.returncode == 0, done.stderr
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert [counts.pop("a"), counts.pop("b")] == [os.path.relpath(path, PROJECT) for path in files]
    assert counts == {"n": 40, "both": 30, "only_a": 10, "only_b": 0}
    assert "a - b: +25.00 points" in done.stdout and "only a right: 10" in done.stdout
    assert f"p = {binomtest(10, 10, 0.5).pvalue:.3g}" in done.stdout
    assert "a is better" in done.stdout and "10 reviews on which they disagree" in done.stdout
    for path, more in (("a", better), ("b", rows)):  # predict.py's row for a text that is missing
        write(tmp_path / f"{path}2.csv", [*more, ("", "", "", "")])
    done = run_script("extras.compare", tmp_path / "a2.csv", tmp_path / "b2.csv")
    assert "40 reviews, 1 without an answer left out" in done.stdout
    write(tmp_path / "c.csv", rows[:-1])
    write(tmp_path / "d.csv", [*rows[1:], rows[0]])
    write(tmp_path / "e.csv", [("film", "", "positive", 1)])
    write(tmp_path / "f.csv", [])
    for other, message in (("c", "39"), ("d", "row 1"), ("e", "no label"), ("f", "no rows")):
        done = run_script("extras.compare", files[1], tmp_path / f"{other}.csv")
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    # predict.py --out keeps the labels of the file, which may be other words than the answers.
    write(tmp_path / "g.csv", [(text, "1", said, 0.9) for text, _, said, _ in rows])
    done = run_script("extras.compare", tmp_path / "g.csv", tmp_path / "g.csv")
    assert done.returncode == 2 and "labels such as '1', and answers such as 'neg" in done.stderr
    before = files[0].read_bytes()
    done = run_script("extras.compare", *files, "--results", files[0])
    assert done.returncode == 2 and files[0].read_bytes() == before, "no file that is read is lost"


# ------------------------------------------------------------------------------ the floor
@pytest.fixture(scope="module")
def splits():
    return load_splits(str(PROJECT / "support" / "demo_reviews"))[:2]


def test_naive_bayes_weights_are_scikit_learn_s():
    """Its table of words has 1 or 0 in each cell, as BernoulliNB wants it; three classes."""
    generator = numpy.random.default_rng(0)
    there, labels = generator.integers(0, 2, (90, 40)), numpy.arange(90) % 3
    ratios = baseline.log_ratios(there.T @ numpy.eye(3)[labels])
    for c in range(3):
        log_shares = BernoulliNB(alpha=1.0).fit(there, labels == c).feature_log_prob_
        difference = log_shares[1] - log_shares[0] - ratios[:, c]
        # Shares of texts there, shares of words here: they differ by a constant for each class.
        assert difference.std() < 1e-12


def test_the_baseline_keeps_up_with_tf_idf(splits):
    """The usual recipe on the same reviews: it should be at most half a point ahead."""
    parts, names = splits
    classify, weights, words, _ = baseline.train_baseline(parts, names)
    truth = torch.tensor(parts["test"]["labels"])
    ours = (classify(parts["test"]["texts"]).argmax(dim=-1) == truth).float().mean().item()
    vectors = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    model = LogisticRegression(C=10, max_iter=1000)
    model.fit(vectors.fit_transform(parts["train"]["texts"]), parts["train"]["labels"])
    theirs = model.score(vectors.transform(parts["test"]["texts"]), parts["test"]["labels"])
    assert ours >= theirs - 0.005 and ours > 0.7
    assert weights.shape == (len(words), 2)
    assert weights[words.index("brilliant"), names.index("positive")] > 0


@pytest.mark.parametrize("classes", [2, 3])
def test_its_logits_are_those_of_probabilities(classes):
    """What takes a model's logits [N, C] takes these too: softmax gives the probabilities."""
    kinds = ["an awful film", "a fine film", "a so-so film"][:classes]
    texts = [f"{kinds[i % classes]} {i // 5}" for i in range(60)]
    split = {"texts": texts, "labels": [i % classes for i in range(60)]}
    splits = {"train": split, "validation": split}
    classify, weights, words, _ = baseline.train_baseline(splits, ["bad", "good", "so"][:classes])
    logits = classify(texts)
    assert logits.dtype == torch.float32 and logits.shape == (60, classes)
    assert logits.argmax(dim=-1).tolist() == split["labels"]
    assert weights.shape == (len(words), classes)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(split["labels"]))
    assert loss < 0.3, "right, and sure of it"


def test_a_text_of_unknown_words_has_no_features_and_an_answer_all_the_same(splits):
    """The sum of nothing is 0: the bias alone decides."""
    classify, *_ = baseline.train_baseline(*splits)
    logits = classify(["zzzz", "", "a brilliant film"])
    assert logits.isfinite().all() and torch.equal(logits[0], logits[1])


def test_what_the_baseline_cannot_count_gets_one_line(splits, monkeypatch, tmp_path):
    """No two texts that share a word; no scikit-learn, which is no part of requirements.txt."""
    parts = {"train": {"texts": ["one", "two"], "labels": [0, 1]}} | {"validation": None}
    with pytest.raises(UserError, match="nothing to count"):
        baseline.train_baseline(parts, splits[1])
    done = run_script("extras.baseline", "--subset", "0")
    assert done.returncode == 2 and "--subset 0" in done.stderr
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)  # as if it were not installed
    done = run_script("extras.baseline", "--data", PROJECT / "support" / "demo_reviews")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "pip install -r requirements-extra.txt" in done.stderr


def test_a_subset_is_the_one_that_finetune_draws_and_is_loaded_once(monkeypatch, tmp_path):
    """Else the two would be compared by what they have read; and IMDB is 100 MB to read twice."""
    data, loaded, learned = str(PROJECT / "support" / "demo_reviews"), [], []
    load_source, train_baseline = dataset.load_source, baseline.train_baseline
    monkeypatch.setattr(
        dataset, "load_source", lambda *w, **how: loaded.append(w) or load_source(*w, **how)
    )
    monkeypatch.setattr(
        baseline,
        "train_baseline",
        lambda splits, names: learned.append(splits) or train_baseline(splits, names),
    )
    words = ("--data", data, "--subset", "200", "--seed", "7")
    done = run_script("extras.baseline", *words, module=baseline)
    assert done.returncode == 0 and len(loaded) == 1, done.stderr
    drawn, _, _, _ = load_splits(data, seed=7, subset=200)
    whole, _, _, _ = load_splits(data, seed=7)
    assert learned[0] == {"train": drawn["train"], "validation": drawn["validation"]} | {
        "test": whole["test"]
    }


def test_a_baseline_like_a_model_learns_from_the_same_reviews(rehearsed, tmp_path):
    """--like saves typing five options again, and getting one of them wrong."""
    like, typed = tmp_path / "like.json", tmp_path / "typed.json"
    assert run_script("extras.baseline", "--like", rehearsed[0], "--results", like).returncode == 0
    data = ("--data", PROJECT / "support" / "demo_reviews")
    assert run_script("extras.baseline", *data, "--results", typed).returncode == 0
    one, other = (json.loads(path.read_text()) for path in (like, typed))
    run = json.loads((rehearsed[0] / "run.json").read_text())
    assert one["test"] == other["test"]
    assert one["data_fingerprint"] == run["data_fingerprint"] == other["data_fingerprint"]


def test_the_baseline_prints_and_writes_what_evaluate_py_would(tmp_path):
    """The same figures, from the same functions, on the same split."""
    words = ("--data", PROJECT / "support" / "demo_reviews", "--save", tmp_path / "b.csv")
    done = run_script("extras.baseline", *words, "--results", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "b.json").read_text())
    assert f"accuracy   {record['test']['accuracy']:.2%}" in done.stdout
    assert "always 'negative': 50.00%" in done.stdout
    with open(tmp_path / "b.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert (right, len(rows)) == (record["test"]["correct"], record["test"]["n"])
