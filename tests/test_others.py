"""Models of others can be asked here, and ours elsewhere."""

import json
import re
import shutil

import pytest
import torch
from conftest import make_model, run_script
from test_app import serving
from huggingface_hub import ModelCard
from transformers import pipeline

from model import load_pretrained
from predict import Classifier
from support.errors import UserError
from support.pretrained import SPACE, find_model, save_tokenizer
from support.saved import model_card, read_run

CPU = torch.device("cpu")
TEXTS = ["good film", "bad plot , not good", "the acting isn't long", "loved it ! " * 40]


@pytest.fixture
def other(tmp_path, tokenizer):
    """A classifier as transformers' Trainer saves it: config, weights, tokenizer; no run.json."""
    model = make_model("bert", classes=2, loud=True)
    model.config.id2label = {0: "NEGATIVE", 1: "POSITIVE"}
    model.config.label2id = {"NEGATIVE": 0, "POSITIVE": 1}
    folder = tmp_path / "other"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# ------------------------------------------------------------------------------ theirs, here
def test_a_model_without_run_json_answers_as_transformers_pipeline(other, capsys):
    """Its names stand in config.json; what had to be assumed is said, once."""
    asked = Classifier(other, CPU).classify(TEXTS)
    said = " ".join(capsys.readouterr().err.split())
    assert (
        said.count("assumed") == 1 and "classes NEGATIVE, POSITIVE" in said and "40 tokens" in said
    )
    expected = pipeline("text-classification", model=str(other), truncation=True, max_length=40)(
        TEXTS
    )
    for (label, score), one in zip(asked, expected):
        assert label == one["label"] and score == pytest.approx(one["score"], abs=1e-5)


def test_it_is_evaluated_reported_and_cut_where_asked(other, tmp_path):
    """Labels of a file in another case are its classes; the report has what there is."""
    data, page = tmp_path / "a.csv", tmp_path / "report.html"
    rows = (f"{'good film ' * 15},positive", f"{'bad film ' * 15},Negative")  # 30 words each
    data.write_text("\n".join(["text,label", "good film,positive", "bad film,Negative", *rows * 5]))
    words = ["evaluate.py", "--model", other]
    assert "add --data" in run_script(*words).stderr
    done = run_script(*words, "--data", data, "--max-length", "12")
    assert done.returncode == 0, done.stderr
    assert "test       12 reviews" in done.stdout and "up to 12 tokens" in done.stdout
    assert "after 12 tokens" in " ".join(done.stderr.split())
    done = run_script("extras.report", other, "--mistakes", "12", "--out", page)
    shown = page.read_text()
    assert done.returncode == 0 and "<td>assumed</td>" in shown, done.stderr
    assert "<th>f</th>" not in shown, "a word is no row of letters"
    assert "up to 12 tokens" in shown and "after 12 tokens" in shown and "40 tokens" not in shown
    assert f"<td>asked about</td><td>{data}</td>" in shown
    texts = [re.findall(r'title="(.*?)"', part) for part in shown.split('<p class="words">')[1:]]
    assert 30 in map(len, texts), "of a long review, which it has answered wrongly"
    counted = [sum(float(share) != 0 for share in shares) for shares in texts]
    assert 0 < max(counted) <= 10, "words that evaluate.py was told to cut away say nothing"
    done = run_script(*words, "--data", data, "--max-length", "41")
    assert done.returncode == 2 and "at most 40" in done.stderr


def test_the_page_and_its_address_take_it_too(other, tmp_path):
    """Nobody has to train here to show a model to others."""
    import httpx

    with serving(other, tmp_path) as address, httpx.Client(base_url=address) as client:
        answer = client.post("/predict", json={"texts": TEXTS[:2]}).json()
        assert client.get("/health").status_code == client.get("/").status_code == 200
    expected = Classifier(other, CPU).classify(TEXTS[:2])
    assert [one["label"] for one in answer["predictions"]] == [label for label, _ in expected]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"problem_type": "multi_label_classification"}, "do not exclude each other"),
        ({"id2label": {"0": "score"}, "label2id": {"score": 0}}, "it has no classes"),
        ({"id2label": {"0": "bad", "1": "good\nbad   0.99  x"}}, "invisible sign"),
        ({"architectures": ["BertModel"], "num_labels": None}, ""),
    ],
)
def test_what_is_no_classifier_is_refused_in_one_line(other, change, message):
    """A score and several labels at once would be read as probabilities of classes."""
    path = other / "config.json"
    config = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    if message:
        with pytest.raises(UserError, match=message):
            Classifier(other, CPU)
    else:  # only the kind of an encoder is named: the weights decide
        assert Classifier(other, CPU).names == ["NEGATIVE", "POSITIVE"]


def test_an_encoder_is_no_classifier(workplace):
    """Its head would be drawn at random, and its answers would look like answers."""
    with pytest.raises(UserError, match="an encoder and no head; fine-tune it first"):
        Classifier(workplace / "encoder", CPU)


def test_pickled_weights_are_not_opened(other):
    """They can run code."""
    (other / "model.safetensors").rename(other / "pytorch_model.bin")
    with pytest.raises(UserError, match="no weights as .safetensors"):
        read_run(other)


def test_a_path_is_never_looked_up_on_the_hub():
    """Without a slash, with a dot in front, or there: a folder."""
    assert [str(find_model(name)) for name in ("model", "./a/b", "a/b/c")] == [
        "model",
        "a/b",
        "a/b/c",
    ]


def test_a_head_for_the_same_classes_is_kept_whatever_their_case(other):
    """And another one is left out, by name: training does not go on from where it seems to."""
    model, note = load_pretrained(str(other), ["negative", "positive"], seed=1)
    assert note.startswith("its own head is kept")
    assert torch.equal(model.classifier.weight, make_model("bert", loud=True).classifier.weight)
    assert model.config.id2label == {0: "negative", 1: "positive"}
    for names in (["ham", "spam"], ["a", "b", "c"]):
        _, note = load_pretrained(str(other), names, seed=1)
        assert note.endswith("left out is its own, for NEGATIVE or POSITIVE")


# ------------------------------------------------------------------------------ ours, elsewhere
def test_what_older_libraries_and_javascript_need_is_in_the_tokenizer(rehearsed):
    """transformers 4.46 and 4.57 know no class of version 5; JavaScript no (?i), and no other \\s.

    Tried by hand in both, in transformers.js 3 and 4, in sentence-transformers and in tokenizers
    alone: the ids of 23 odd texts are the same in all. This keeps it so.
    """
    folder, _ = rehearsed
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    content = json.loads((folder / "tokenizer.json").read_text())
    rules = content["normalizer"]["normalizers"]
    patterns = [rule["pattern"]["Regex"] for rule in rules if rule["type"] == "Replace"]
    assert len(patterns) == 3 and not any("(?" in one or r"\s" in one for one in patterns)
    assert "Strip" not in {rule["type"] for rule in rules}
    # A text may hold "[SEP]". Listed as added, it would end the text in other programs.
    assert not [one for one in content["added_tokens"] if one["special"]]
    assert all(name in content["model"]["vocab"] for name in ("[CLS]", "[SEP]", "[PAD]"))


def test_white_space_is_what_python_splits_at():
    """The saved tokenizer folds it; one sign less, and an answer elsewhere would be another."""
    signs = [chr(code) for code in range(0x110000)]
    assert [s for s in signs if re.fullmatch(SPACE, s)] == [s for s in signs if s.isspace()]


def test_special_tokens_outside_of_the_vocabulary_stay(tmp_path, tokenizer):
    """Only what can be found again is left out."""
    copy = shutil.copytree
    tokenizer.save_pretrained(tmp_path / "a")
    from transformers import AutoTokenizer

    extended = AutoTokenizer.from_pretrained(tmp_path / "a")
    extended.add_special_tokens({"additional_special_tokens": ["[EXTRA]"]})
    (tmp_path / "b").mkdir()
    save_tokenizer(tmp_path / "b", extended, "<br>", 40)
    content = json.loads((tmp_path / "b" / "tokenizer.json").read_text())
    assert [one["content"] for one in content["added_tokens"]] == ["[EXTRA]"]
    again = AutoTokenizer.from_pretrained(copy(tmp_path / "b", tmp_path / "c"))
    ids = extended("good film [EXTRA]")["input_ids"]
    assert again("good film [EXTRA]")["input_ids"] == ids


def test_no_saved_file_but_run_json_knows_where_it_was_made(workplace, tmp_path):
    """Folders get published: the model card names a base model only where it is the hub's."""
    out = tmp_path / "model"
    words = f"--model {workplace / 'encoder'} --data {workplace / 'good.csv'} --max-length 12"
    done = run_script("finetune.py", *words.split(), "--epochs", "1", "--out", out)
    assert done.returncode == 0, done.stderr
    run = json.loads((out / "run.json").read_text())
    assert str(workplace) in run.pop("arguments")["data"]
    assert str(workplace) not in json.dumps(run)
    for path in out.iterdir():
        if path.name != "run.json":
            assert str(workplace).encode() not in path.read_bytes(), path.name
    card = (out / "README.md").read_text()
    assert "base_model" not in card and "# encoder, fine-tuned on good.csv" in card


def test_the_hub_reads_the_measured_figures_in_a_model_card(rehearsed):
    """They stand on the model's page there, with their data, their n and their interval."""
    run = json.loads((rehearsed[0] / "run.json").read_text())
    assert ModelCard(model_card(run)).data.eval_results is None, "a rehearsal's say nothing"
    run["arguments"] |= {"demo": False, "data": "stanfordnlp/imdb", "model": "org/encoder"}
    card = ModelCard(model_card(run))  # raises where the hub's form is not kept
    assert card.data.base_model == "org/encoder" and card.data.datasets == ["stanfordnlp/imdb"]
    found = {(one.dataset_split, one.metric_type): one for one in card.data.eval_results}
    assert len(found) == 6
    for role in ("validation", "test"):
        figures = run["results"][role]
        for key, kind in (("accuracy", "accuracy"), ("macro_f1", "f1"), ("loss", "loss")):
            one = found[role, kind]
            assert one.metric_value == pytest.approx(figures[key], abs=5e-5)
            assert one.dataset_type == "stanfordnlp/imdb"
            assert f"n = {figures['n']:,}" in one.metric_name
    assert "95 % interval" in found["test", "accuracy"].metric_name
    run["arguments"] |= {"data": "/home/me/tickets.csv", "model": "/home/me/encoder"}
    run["labels"] = ["a: b", "[c]", "'d'"]  # signs that mean something in YAML
    card = ModelCard(model_card(run))
    assert card.data.datasets is None and "/home" not in str(card)
    assert card.data.eval_results[0].dataset_type == "tickets.csv"
