"""Fifty lines of products and sums are the model."""

import re

import pytest
import torch
from conftest import make_examples_of_lengths, make_model, run_script
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from dataset import make_collate
from extras.attention import forward_by_hand


@pytest.mark.parametrize("seed", range(20))
def test_the_forward_pass_by_hand_is_the_library_s(seed):
    """On padded batches: a mask that was left out would show, because the weights are large."""
    model = make_model(loud=True, classes=2 + seed % 3)
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 40, (5,), generator=generator).tolist()
    batch = make_collate(0)(make_examples_of_lengths(lengths))
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with torch.no_grad():
        ours, looks = forward_by_hand(model, ids, mask)
        theirs = model(input_ids=ids, attention_mask=mask).logits
        blind, _ = forward_by_hand(model, ids, torch.ones_like(mask))
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert mask.all() or (blind - theirs).abs().max() > 0.01, "the mask matters"
    for layer in looks:
        assert torch.allclose(layer.sum(dim=-1), torch.ones(()))
        assert not layer.masked_select(~mask[:, None, None, :].bool()).any(), "nobody looks at it"


def test_it_is_the_library_s_in_the_real_size_too():
    """6 layers, 12 heads, 768 numbers a token: DistilBERT, with random weights."""
    torch.manual_seed(0)
    model = DistilBertForSequenceClassification(DistilBertConfig(vocab_size=100)).eval()
    batch = make_collate(0)(make_examples_of_lengths([30, 12, 3]))
    shapes = []
    with torch.no_grad():
        ours, looks = forward_by_hand(
            model,
            batch["input_ids"],
            batch["attention_mask"],
            lambda step, tensor: shapes.append(list(tensor.shape)),
        )
        theirs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert shapes == [[3, 30, 768]] * 7 + [[3, 768], [3, 2]]
    assert [list(layer.shape) for layer in looks] == [[3, 12, 30, 30]] * 6


def test_the_command_shows_where_a_token_looks_and_the_mask_s_zeros(rehearsed):
    """A reader should see the mask at work, not only be told of it."""
    texts = ("I regret watching this film", "Loved it")
    done = run_script("extras.attention", "--model", rehearsed[0], *texts)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.split("where [CLS] looks")[1].splitlines()[1:]]
    shares = {"padding": 0.0, "text": 0.0}
    for token, share, *_ in rows:
        shares["padding" if token == "[PAD]" else "text"] += float(share.strip("%"))
    assert shares["padding"] == 0 and shares["text"] == pytest.approx(100, abs=0.5)
    assert [row[0] for row in rows] == ["[CLS]", "loved", "it", "[SEP]"] + ["[PAD]"] * 3


def test_the_command_shows_each_stage_and_how_far_the_library_is(rehearsed):
    """The shapes tell the story: a vector for each token, then one for the text, then logits."""
    done = run_script("extras.attention", "--model", rehearsed[0], "I regret watching", "Loved it")
    stages = [line.partition(" [")[::2] for line in done.stdout.splitlines() if "  [" in line]
    shapes = {name.strip(): shape.rstrip("]") for name, shape in stages}
    assert shapes["encoder layer 2"] == shapes["embeddings"] == "2, 5, 64"
    assert shapes["[CLS] in the head"] == "2, 64" and shapes["logits"] == "2, 2"
    difference = re.search("largest difference from the library's: (.*)", done.stdout)[1]
    assert float(difference) < 1e-4
    done = run_script("extras.attention", "--model", rehearsed[0], "good", "<br />")
    assert done.returncode == 2 and "empty" in done.stderr


def test_other_families_show_where_they_look_too(tokenizer, tmp_path):
    """Only DistilBERT is computed by hand; the library tells the rest, for 200 words as well."""
    make_model("bert").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    done = run_script("extras.attention", "--model", tmp_path, "good film " * 100, "bad")
    assert done.returncode == 0 and "by hand" not in done.stdout, done.stderr
    assert "where [CLS] looks" in done.stdout and done.stdout.count("[PAD]    0.0%") == 37
