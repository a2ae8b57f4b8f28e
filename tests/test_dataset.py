"""Chapter 1: what the model reads is what the reviewer wrote, however it is batched."""

import random

import pytest
import torch
from conftest import FAMILIES, make_examples_of_lengths, make_model

from dataset import clean, encode, make_batches, make_collate, special_ids, truncate
from support.banner import padding_share


# ------------------------------------------------------------------------------ cleaning, tokens
def test_cleaning_removes_line_breaks_and_nothing_else():
    """Case, negation and smileys carry opinion; only the scraper's HTML does not."""
    text = "  Not <b>GOOD</b> :(<br /><br />I'd\n say, isn't it?!\t\u00a0 "
    assert clean(text) == "Not <b>GOOD</b> :( I'd say, isn't it?!"
    for text in (
        text,
        "<BR>a<br  />b<br\n/>",
        "half an emoji \ud83d",
        "\U0001f600 \u05e9\u05dc\u05d5\u05dd \0",
    ):
        assert clean(clean(text)) == clean(text)
        clean(text).encode("utf-8")
        assert "<" not in clean(text).replace("<b>", "").replace("</b>", "")


def test_truncation_keeps_head_tail_or_both():
    """A review's verdict stands at its end, so which end is cut decides what the model can know."""
    ids = list(range(20))
    assert truncate(ids, 8, "head") == [0, 1, 2, 3, 4, 5, 6, 7]
    assert truncate(ids, 8, "tail") == [12, 13, 14, 15, 16, 17, 18, 19]
    assert truncate(ids, 8, "head+tail") == [0, 1, 14, 15, 16, 17, 18, 19]
    for how in ("head", "tail", "head+tail"):
        assert truncate(ids, 20, how) == ids, "what fits is not touched"
        assert all(len(truncate(ids, room, how)) == room for room in range(1, 20))


def test_truncated_reviews_keep_cls_and_sep(tokenizer):
    """Cut after the special tokens are added and [SEP] is gone, or [CLS], which the head reads."""
    before, after = special_ids(tokenizer)
    assert (before, after) == ([2], [3])
    ids, lengths = encode(["the film was good . " * 9, "bad"], tokenizer, 12, "head+tail")
    assert [len(one) for one in ids] == [12, 3] and lengths == [47, 3]
    assert all(one[0] == 2 and one[-1] == 3 for one in ids)


def test_special_tokens_written_as_text_stay_text(tokenizer):
    """A reviewer who types [SEP] must not end the review for the model."""
    ids, _ = encode(["good [SEP] [PAD] [CLS] bad"], tokenizer, 40, "head")
    assert not {0, 2, 3} & set(ids[0][1:-1])


# ------------------------------------------------------------------------------ batches
def test_collate_equals_the_tokenizers_own_padding(tokenizer):
    """The trusted reference for a padded batch is the library's."""
    examples = make_examples_of_lengths([3, 9, 5, 9, 4])
    batch = make_collate(tokenizer.pad_token_id)(examples)
    expected = tokenizer.pad(
        {"input_ids": [example["input_ids"] for example in examples]}, return_tensors="pt"
    )
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["attention_mask"], expected["attention_mask"])
    assert batch["labels"].tolist() == [example["label"] for example in examples]
    assert set(batch) == {"input_ids", "attention_mask", "labels"}


def test_the_mask_comes_from_lengths_not_from_the_padding_id():
    """A real token that happens to have the padding id must still be read."""
    batch = make_collate(0)(
        [{"input_ids": [2, 0, 3], "label": 0}, {"input_ids": [2, 3], "label": 1}]
    )
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_nothing_and_without_the_mask_it_would(family):
    """The promise of the mask: a review's logits do not depend on its neighbours in the batch."""
    model, collate = make_model(family, loud=True), make_collate(0)
    examples = make_examples_of_lengths([4, 30, 11, 23])
    batch = collate(examples)
    with torch.no_grad():
        padded = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        alone = torch.cat([model(input_ids=collate([one])["input_ids"]).logits for one in examples])
        blind = model(
            input_ids=batch["input_ids"], attention_mask=torch.ones_like(batch["attention_mask"])
        ).logits
    assert torch.allclose(padded, alone, atol=1e-4)
    # The margin: with small weights a missing mask would hide below the tolerance above.
    assert (blind - alone)[[0, 2, 3]].abs().max() > 0.05


@pytest.mark.parametrize("count", [1, 15, 16, 17, 5000])
def test_each_review_is_in_exactly_one_batch_of_an_epoch(count):
    """A row that is lost is never learned; one that comes twice counts twice."""
    lengths = [random.Random(i).randint(3, 256) for i in range(count)]
    batches = make_batches(lengths, 16, seed=1, epoch=0)
    assert sorted(i for batch in batches for i in batch) == list(range(count))
    assert max(map(len, batches)) <= 16


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    """What ran before must not matter, or a resumed epoch is another epoch."""
    lengths = [random.Random(i).randint(3, 256) for i in range(500)]
    first = make_batches(lengths, 16, seed=1, epoch=3)
    random.random(), torch.rand(3)
    assert make_batches(lengths, 16, seed=1, epoch=3) == first
    assert make_batches(lengths, 16, seed=1, epoch=4) != first
    assert make_batches(lengths, 16, seed=2, epoch=3) != first


def test_grouping_by_length_saves_most_of_the_padding():
    """Padding is computed like text: at 512 tokens, nearly half of all work without grouping."""
    generator = random.Random(0)
    lengths = [min(512, int(generator.lognormvariate(5.4, 0.7))) for _ in range(5000)]
    rows = generator.sample(range(5000), 5000)
    mixed = [rows[i : i + 32] for i in range(0, 5000, 32)]
    assert padding_share(lengths, mixed) > 0.3
    assert padding_share(lengths, make_batches(lengths, 32, seed=0, epoch=0)) < 0.05
