"""Reading all of a long review, and asking the model why it said so."""

import json
import math
import re
import shutil

import pytest
import torch
from conftest import FAMILIES, PROJECT, make_model, run_script

from dataset import encode, make_collate, special_ids
from support.tables import load_table
from support.windows import average, encode_windows, split_windows
from extras.explain import encode_words, explain, integrate_gradients, margin, paint, write_page
from predict import Classifier
from support.errors import UserError

CPU = torch.device("cpu")


# ------------------------------------------------------------------------------ windows
@pytest.mark.parametrize("length", [1, 9, 10, 11, 25, 100, 1003])
@pytest.mark.parametrize("room", [1, 2, 10, 254])
def test_windows_cover_every_token_and_are_full(length, room):
    """Neighbours overlap, and no window is a short rest."""
    windows = split_windows(length, room)
    assert {i for start, end in windows for i in range(start, end)} == set(range(length))
    assert all(end - start == min(room, length) for start, end in windows)
    assert len(windows) == len(set(windows)) and windows == sorted(windows)
    for (_, end), (start, _) in zip(windows, windows[1:]):
        assert start <= end - room // 4


def test_a_text_that_fits_is_one_window_and_the_mean_is_of_its_own_windows(tokenizer):
    """--windows changes nothing for short reviews, and never mixes two of them."""
    texts = ["the film was good", "a bad plot " * 30, "bad"]
    whole, _ = encode(texts, tokenizer, 10**9, "head")
    input_ids, owners, _ = encode_windows(whole, *special_ids(tokenizer), 20)
    cut, _ = encode(texts, tokenizer, 20, "head")
    assert owners[0] == 0 and owners[-1] == 2 and owners.count(1) > 3
    assert input_ids[0] == cut[0] and input_ids[-1] == cut[2]
    logits = torch.randn(len(owners), 2)
    for number in range(3):
        rows = [i for i, owner in enumerate(owners) if owner == number]
        assert torch.allclose(average(logits, owners, 3)[number], logits[rows].mean(dim=0))


def test_evaluate_and_predict_read_in_windows(rehearsed, tmp_path):
    """Each window says what it thinks; the answer is that of their mean."""
    folder = shutil.copytree(rehearsed[0], tmp_path / "demo")  # evaluate.py keeps its answers there
    done = run_script("evaluate.py", "--model", folder, "--windows")
    assert done.returncode == 0 and "accuracy" in done.stdout, done.stderr
    text = "A brilliant film. " * 40 + "What a waste of time."
    done = run_script("predict.py", "--model", folder, "--windows", "--json", text, "Loved it")
    long, short = (json.loads(line) for line in done.stdout.splitlines())
    assert len(long["windows"]) > 2 and len(short["windows"]) == 1
    odds = [
        math.log(one["score"] / (1 - one["score"])) * (1 if one["label"] == "positive" else -1)
        for one in [long, *long["windows"]]
    ]
    assert abs(odds[0] - sum(odds[1:]) / len(odds[1:])) < 5e-3, "the mean of the logits"
    assert short["windows"][0]["score"] == pytest.approx(short["score"], abs=1e-6)
    done = run_script("predict.py", "--model", folder, "--windows", text)
    assert done.stdout.count("tokens ") == len(long["windows"])


# ------------------------------------------------------------------------------ gradients
def ask(model, tokenizer, max_length=20, how="head+tail"):
    """A Classifier of a model that no folder holds."""
    classifier = Classifier.__new__(Classifier)
    classifier.model, classifier.tokenizer, classifier.collate = model, tokenizer, make_collate(0)
    classifier.run = {"arguments": {"max_length": max_length, "truncation": how}}
    classifier.device, classifier.precision, classifier.batch_size = CPU, "fp32", 16
    return classifier


def test_integrated_gradients_of_a_straight_function_are_exact():
    """Each number's share is its weight times its change, and nothing is missing."""
    torch.manual_seed(0)
    weights, start, end = (torch.randn(7, 3, dtype=torch.double) for _ in range(3))
    shares, gap = integrate_gradients(lambda x: (x * weights).sum(dim=(1, 2)) + 1, start, end, 3)
    assert torch.allclose(shares, weights * (end - start)) and abs(gap) < 1e-9


def test_integrated_gradients_of_a_curve_add_up_and_too_few_steps_show_in_the_gap():
    """Completeness (Sundararajan et al. 2017): the shares' sum is what there was to explain."""
    end = torch.full((4,), 3.0, dtype=torch.double)
    curve = lambda x: x.sigmoid().prod(dim=1)  # noqa: E731
    _, rough = integrate_gradients(curve, -end, end, steps=2)
    _, fine = integrate_gradients(curve, -end, end, steps=64)
    assert abs(fine) < 1e-9 < abs(rough)


def test_the_gap_is_within_a_hundredth_on_twenty_reviews(rehearsed):
    """At the default steps, for reviews that the model has not been trained on."""
    classifier = Classifier(rehearsed[0], CPU)
    texts, _ = load_table(PROJECT / "support" / "demo_reviews" / "test.csv").splits["train"]
    for text in texts[::20]:
        found = explain(classifier, text)
        moved = found["to"] - found["from"]
        assert abs(found["gap"]) < 0.01 * abs(moved)
        assert sum(found["shares"].values()) + found["gap"] == pytest.approx(moved, abs=1e-4)


@pytest.mark.slow
def test_the_words_it_names_matter_more_than_others(rehearsed):
    """Of 100 reviews: leave out the three words with the largest shares, or three at random."""
    classifier, generator = Classifier(rehearsed[0], CPU), torch.Generator().manual_seed(0)
    texts, _ = load_table(PROJECT / "support" / "demo_reviews" / "test.csv").splits["train"]
    falls = {"left_out": [], "shares": [], "random": []}

    def probability(words, target):
        max_length = classifier.run["arguments"]["max_length"]
        ids, _ = encode([" ".join(words) or "."], classifier.tokenizer, max_length, "head+tail")
        return classifier.logits(ids).softmax(dim=-1)[0, target].item()

    for text in texts[::4]:
        found = explain(classifier, text)
        words, count = found["words"], len(found["words"])
        if count < 6:
            continue
        chosen = {
            way: sorted(found[way], key=found[way].get, reverse=True)[:3]
            for way in ("left_out", "shares")
        }
        chosen["random"] = torch.randperm(count, generator=generator)[:3].tolist()
        for way, numbers in chosen.items():
            rest = [word for number, word in enumerate(words) if number not in numbers]
            falls[way].append(found["score"] - probability(rest, found["target"]))
    means = {way: sum(values) / len(values) for way, values in falls.items()}
    assert len(falls["random"]) > 75
    assert min(means["left_out"], means["shares"]) > 2 * means["random"], means


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_explained(family, tokenizer):
    """Through inputs_embeds, which they all take."""
    found = explain(ask(make_model(family, loud=True), tokenizer), "the film was good " * 8)
    assert abs(found["gap"]) < 0.02 * max(1, abs(found["to"] - found["from"]))
    assert set(found["shares"]) == set(found["left_out"]) < set(range(32)), "the rest was cut"


def test_any_class_can_be_explained_and_a_model_without_embeddings_is_refused(tokenizer):
    """A page explains the answer that was given, which with --windows may be another one."""
    model, text = make_model(loud=True), "the film was good"
    classifier = ask(model, tokenizer)
    ways = [explain(classifier, text, quick=True, target=number) for number in (0, 1)]
    assert [way["target"] for way in ways] == [0, 1]
    assert ways[0]["shares"][1] == pytest.approx(-ways[1]["shares"][1], abs=1e-5)

    def only_ids(self, args, kwargs):
        if "inputs_embeds" in kwargs:
            raise TypeError("zeros_like(): argument 'input' must be Tensor, not NoneType")

    model.register_forward_pre_hook(only_ids, with_kwargs=True)
    with pytest.raises(UserError, match="takes token ids only"):
        explain(classifier, text)


# ------------------------------------------------------------------------------ words, output
def test_tokens_belong_to_the_words_they_came_from(tokenizer):
    """plot ##ting is one word, its full stop included; [CLS] and [SEP] are none."""
    words, ids, word_of = encode_words("The  plotting,<br />it isn't good.", tokenizer, 40, "head")
    assert words == ["The", "plotting,", "it", "isn't", "good."]
    assert word_of == [None, 0, 1, 1, 1, 2, 3, 3, 3, 4, 4, None]
    assert ids == encode(["The plotting, it isn't good."], tokenizer, 40, "head")[0][0]


def test_the_margin_is_the_logarithm_of_the_odds():
    """For any number of classes."""
    logits = torch.randn(5, 3, dtype=torch.double)
    p = logits.softmax(dim=-1)[:, 1]
    assert torch.allclose(margin(logits, 1), (p / (1 - p)).log())


def test_explanations_are_shown_in_signs_in_json_and_as_a_page(rehearsed, tmp_path):
    """Where the output is no terminal there are no colors; and HTML in a review stays text."""
    text = "I loved it <script>alert(1)</script> \x1b[31mred"
    words = ("extras.explain", "--model", rehearsed[0])
    done = run_script(*words, "--html", tmp_path / "why.html", text, "A dull film")
    assert done.returncode == 0 and "\x1b" not in done.stdout, done.stderr
    # What a rehearsal model says to words that it never read depends on the machine's last digits.
    assert re.search(r"loved\((\++|-+)\)", done.stdout) and done.stdout.count("unexplained") == 2
    written = (tmp_path / "why.html").read_text()
    assert "<script" not in written and "&lt;script&gt;" in written and ">dull</span>" in written
    done = run_script(*words, "--json", text)
    answer = json.loads(done.stdout)
    assert list(answer) == ["text", "label", "score", "words", "gap"] and answer["text"] == text
    assert [set(word) for word in answer["words"]] == [{"word", "share"}] * len(answer["words"])
    assert isinstance(answer["gap"], float)
    said = json.loads(run_script("predict.py", *words[1:], "--json", text).stdout)
    assert (answer["label"], answer["score"]) == (said["label"], pytest.approx(said["score"]))


def test_what_cannot_be_explained_gets_one_line(rehearsed, tmp_path):
    """Before anything is computed, and no file of the model is lost."""
    model = rehearsed[0]
    for words, message in (
        ([" "], "empty"),
        ([], "texts"),
        (["--html", model / "config.json", "good"], "is read"),
        (["--device", "abacus", "good"], "abacus"),
    ):
        done = run_script("extras.explain", "--model", model, *words)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_colors_are_only_for_words_that_count():
    """A third of the strongest word's share, and more, is marked; the sign is the color."""
    painted = paint(["a", "b", "c"], {0: 1.0, 1: -0.5, 2: 0.01}, colored=True)
    assert painted.count("\x1b[30;48") == 2 and painted.endswith(" c")
    assert paint(["a", "b", "c"], {0: 1.0, 1: -0.5, 2: 0.01}, colored=False) == "a(+++) b(--) c"
    found = {"words": ["a"], "left_out": {0: 1.0}, "shares": {0: -1.0}}
    found |= {"gap": 0.0, "from": 0.0, "to": 1.0}
    assert write_page([("positive", found | {"score": 0.9})]).count('<span class="') == 2
