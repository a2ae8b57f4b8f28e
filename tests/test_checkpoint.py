"""Saving: what comes back is what was saved, in this program and in others."""

import copy
import json
import os
import shutil

import pytest
import torch
from conftest import make_model
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, pipeline, tokenization_utils_base

from dataset import LINE_BREAK, clean, encode, make_collate, make_examples
from evaluate import predict_logits
from model import load_model, save_model, speed_up
from support.files import prepare_folder
from support.pretrained import check_tokenizer, load_tokenizer, with_cleaning
from support.runs import describe_run, weights_fingerprint
from support.saved import FILES, read_run
from support.errors import UserError
from predict import Classifier

CPU = torch.device("cpu")
TEXTS = [
    "The film was good",
    "bad , bad plot !",
    "Loved<br /><br />it :)",
    "not  good\tbut long [SEP]",
]


@pytest.fixture
def saved(tmp_path, tokenizer, arguments):
    """A tiny model saved as finetune.py saves it. Returns (folder, the model in memory)."""
    tokenizer.save_pretrained(tmp_path / "encoder")
    model = make_model(loud=True)
    model.config.id2label = {0: "negative", 1: "positive"}
    model.config.label2id = {"negative": 0, "positive": 1}
    args = arguments("--max-length", "24")
    splits = {role: {"texts": ["a"], "labels": [0]} for role in ("train", "validation", "test")}
    run = describe_run(args, ["negative", "positive"], splits, [], CPU, "fp32", {})
    prepare_folder(tmp_path / "model")
    save_model(tmp_path / "model", model, load_tokenizer(str(tmp_path / "encoder")), run)
    return tmp_path / "model", model


def test_a_reloaded_model_gives_the_same_logits_bit_for_bit(saved, tokenizer):
    """Random predictions after a reload are the classic sign of a head that was not saved."""
    folder, model = saved
    loaded, loaded_tokenizer, run = load_model(folder)
    ids, _ = encode([clean(text) for text in TEXTS], tokenizer, 24, "head")
    again, _ = encode([clean(text) for text in TEXTS], loaded_tokenizer, 24, "head")
    assert ids == again
    examples, collate = make_examples(ids, [0] * len(ids)), make_collate(0)
    speed_up(model, CPU, "fp32")  # as in training, and as load_model() does
    assert torch.equal(
        predict_logits(model, examples, collate, CPU),
        predict_logits(loaded, examples, collate, CPU),
    )
    assert not loaded.training and run["labels"] == ["negative", "positive"]


def test_the_pipeline_of_transformers_gives_our_answers(saved):
    """Label names, probabilities, and the cleaning: another program must not see another text."""
    folder, _ = saved
    classify = Classifier(folder, CPU).classify
    theirs = pipeline("text-classification", model=str(folder))(TEXTS)
    for (label, score), other in zip(classify(TEXTS), theirs):
        assert label == other["label"] and score == pytest.approx(other["score"], abs=1e-5)


def test_a_tokenizer_with_tokens_of_white_space_survives_saving():
    """ModernBERT's has them. Folding white space turned them into "", and words into letters."""
    backend = Tokenizer(models.BPE(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["[UNK]", "[PAD]"], show_progress=False
    )
    backend.train_from_iterator(["the film was good and the plot was not"] * 9, trainer)
    backend.add_tokens([AddedToken(" " * n, normalized=True) for n in range(2, 6)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
    texts = ["the film was good", "not the plot", "a<br />plot"]
    check_tokenizer(tokenizer, LINE_BREAK, [clean(text) for text in texts])
    saved = with_cleaning(tokenizer, LINE_BREAK, 512)
    for text in texts:
        assert saved(text)["input_ids"] == tokenizer(clean(text))["input_ids"]


def test_a_run_killed_while_saving_leaves_no_mixture_of_two_models(saved, monkeypatch):
    """New weights under old label names would answer, and be wrong without a word."""
    folder, model = saved
    _, tokenizer, run = load_model(folder)
    replaced, replace = [], os.replace

    def killed(source, target):
        if str(target).endswith("model.safetensors"):
            raise KeyboardInterrupt  # stands for a SIGKILL: nothing after it is run
        replaced.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_model(folder, model, tokenizer, run)
    monkeypatch.undo()
    assert replaced
    with pytest.raises(UserError, match="no run.json"):
        load_model(folder)
    prepare_folder(folder)  # the next run may use it all the same
    save_model(folder, model, tokenizer, run)
    assert sorted(path.name for path in folder.iterdir()) == sorted((*FILES, "README.md"))


def test_whoever_may_read_the_folder_may_read_the_weights(saved):
    """A server often runs as another user than the one who trained."""
    modes = {path.name: path.stat().st_mode & 0o777 for path in saved[0].iterdir()}
    assert modes["model.safetensors"] == modes["run.json"], modes


def test_the_saved_folder_holds_no_pickle_and_no_leftovers(saved):
    """A pickle can run code when it is opened; a stranger should be able to open our models."""
    folder, _ = saved
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "run.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_run_json_holds_what_a_reader_needs_to_repeat_the_run(saved):
    """A model without its history is a number without a unit."""
    run = json.loads((saved[0] / "run.json").read_text())
    assert {"arguments", "versions", "device", "splits", "history", "results"} <= set(run)
    assert run["arguments"]["max_length"] == 24
    assert run["versions"]["torch"] == torch.__version__


def test_other_pretrained_weights_are_told_apart():
    """A name on the hub may get new weights; run.json says which ones a run began with."""
    one, same, other = make_model(), make_model(), make_model()
    with torch.no_grad():
        other.distilbert.embeddings.word_embeddings.weight[5, 3] += 1e-3
        same.classifier.weight += 1  # another seed's head
    assert weights_fingerprint(one) == weights_fingerprint(same) != weights_fingerprint(other)


@pytest.mark.parametrize(
    "damage",
    [
        "no run.json",
        "no model.safetensors",
        "cut weights",
        "cut tokenizer",
        "run.json is a list",
        "empty",
    ],
)
def test_a_folder_that_holds_no_whole_model_is_refused_in_one_line(saved, damage):
    """Half a model must never be taken for a whole one."""
    folder, _ = saved
    if damage.startswith("no "):
        (folder / damage[3:]).unlink()
    elif damage.startswith("cut"):
        name = {"weights": "model.safetensors", "tokenizer": "tokenizer.json"}[damage.split()[1]]
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        for path in folder.iterdir():
            path.unlink()
    else:
        (folder / "run.json").write_text("[1, 2]")
    with pytest.raises(UserError) as raised:
        load_model(folder)
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)


def test_saving_again_replaces_and_a_failure_leaves_the_old_model(saved, monkeypatch):
    """The previous model stays until the new one is whole."""
    folder, model = saved
    before = (folder / "model.safetensors").read_bytes()
    _, tokenizer, run = load_model(folder)
    with torch.no_grad():
        model.classifier.bias += 1

    def full_disk(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tokenizer), "save_pretrained", full_disk)
    with pytest.raises(UserError, match="cannot be saved"):
        save_model(folder, model, tokenizer, run)
    assert (folder / "model.safetensors").read_bytes() == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    monkeypatch.undo()
    save_model(folder, model, tokenizer, run)
    assert (folder / "model.safetensors").read_bytes() != before


def test_an_output_folder_that_cannot_be_written_is_found_before_the_work(tmp_path):
    """After three hours is too late."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        prepare_folder(tmp_path / "file" / "model")
    with pytest.raises(UserError, match="no such folder"):
        read_run(tmp_path / "nothing")


def test_a_long_text_raises_no_alarm_when_the_tokenizer_is_checked(tokenizer, monkeypatch):
    """It is cut before the model sees it, so "will result in indexing errors" would be wrong."""
    alarms = []
    monkeypatch.setattr(tokenization_utils_base.logger, "warning", lambda *a: alarms.append(a))
    short = copy.deepcopy(tokenizer)
    short.model_max_length = 8
    check_tokenizer(short, LINE_BREAK, ["good film " * 400])
    assert not alarms
    short("good film " * 400)
    assert alarms, "so that the test would notice one"


def test_weights_that_the_model_has_no_place_for_are_refused(rehearsed, tmp_path):
    """The library's report, kept back here, would have told of them: two models were mixed."""
    folder = shutil.copytree(rehearsed[0], tmp_path / "demo")
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"classifier.third": torch.ones(3)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="not the whole model of config.json"):
        load_model(folder)
