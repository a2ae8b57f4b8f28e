"""Whatever somebody writes, pastes, or sends to do harm: properties that hold for any text.

Each test is tried on a hundred texts that hypothesis makes up, and if one fails, on ever shorter
ones, until it can show a small example.
"""

import time

import pytest
import torch
from conftest import make_model
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import clean, encode, make_batches, make_collate, make_examples, special_ids, truncate
from evaluate import predict_logits
from support.errors import TRUNCATIONS

ODD = [
    "<br />",
    "<BR>",
    "\0",
    "\ud83d",
    "\u200b",
    "\u202e",
    "\U0001f600",
    "[SEP]",
    "[PAD]",
    " ",
    "\n",
    "film",
]
TEXTS = st.lists(st.sampled_from(ODD) | st.text(max_size=8), max_size=12).map("".join)
SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)


# ------------------------------------------------------------------------------ cleaning
@SETTINGS
@given(TEXTS)
def test_cleaning_twice_is_cleaning_once(text):
    """So it does not matter whether a text was cleaned before, and any result can be written."""
    once = clean(text)
    assert clean(once) == once == " ".join(once.split())
    once.encode("utf-8")


@SETTINGS
@given(st.text(alphabet="abcXYZ!?.,:()'0123 "))
def test_cleaning_leaves_ordinary_text_as_it_is(text):
    """Only white space is folded: no letter, digit or sign is lost, and none is changed."""
    assert clean(text) == " ".join(text.split())


# ------------------------------------------------------------------------------ truncation
@SETTINGS
@given(st.lists(st.integers(), max_size=40), st.integers(1, 30), st.sampled_from(TRUNCATIONS))
def test_truncation_keeps_a_beginning_and_an_end_in_their_order(ids, room, how):
    """Never more than the room, never less than fits, and nothing from the middle moved."""
    kept = truncate(ids, room, how)
    assert len(kept) == min(len(ids), room)
    assert any(kept == ids[:n] + ids[len(ids) - (len(kept) - n) :] for n in range(len(kept) + 1))


@SETTINGS
@given(st.lists(TEXTS, min_size=1, max_size=5), st.integers(3, 30), st.sampled_from(TRUNCATIONS))
def test_every_text_is_one_row_with_its_own_special_tokens_and_no_others(
    tokenizer, texts, max_length, how
):
    """A [SEP] or [PAD] that somebody wrote is text, and neither ends the review nor hides it."""
    before, after = special_ids(tokenizer)
    input_ids, lengths = encode([clean(text) for text in texts], tokenizer, max_length, how)
    assert len(input_ids) == len(lengths) == len(texts)
    for ids, length in zip(input_ids, lengths):
        assert len(ids) == min(length, max_length)
        assert ids[: len(before)] == before and ids[-len(after) :] == after
        middle = ids[len(before) : len(ids) - len(after)]
        assert not set(middle) & {*before, *after, tokenizer.pad_token_id}


# ------------------------------------------------------------------------------ batches
ROWS = st.lists(st.lists(st.integers(0, 63), min_size=1, max_size=20), min_size=1, max_size=12)


@SETTINGS
@given(ROWS)
def test_collate_loses_no_token_and_masks_exactly_the_padding(rows):
    """Reading only where the mask is 1 gives back every row, whatever ids are in it."""
    batch = make_collate(0)(make_examples(rows, [i % 2 for i in range(len(rows))]))
    ids, mask = batch["input_ids"], batch["attention_mask"]
    assert ids.shape == mask.shape == (len(rows), max(map(len, rows)))
    assert [one[keep.bool()].tolist() for one, keep in zip(ids, mask)] == rows
    assert not ids[mask == 0].any(), "padding is the padding id"
    assert batch["labels"].tolist() == [i % 2 for i in range(len(rows))]


@SETTINGS
@given(
    st.lists(st.integers(3, 300), min_size=1, max_size=200),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.integers(0, 5),
)
def test_batches_deal_every_row_once(lengths, batch_size, seed, epoch):
    """Any lengths, any batch size, any seed: no review is lost, none comes twice."""
    batches = make_batches(lengths, batch_size, seed, epoch)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert len(batches) == -(-len(lengths) // batch_size), "no more batches than are needed"


@settings(max_examples=15, deadline=None, derandomize=True)
@given(ROWS, st.integers(1, 8))
def test_a_prediction_does_not_depend_on_its_company(rows, batch_size):
    """Neither on the neighbours in the batch, nor on the order, nor on the batch size."""
    ask = make_model(loud=True), make_examples(rows, [0] * len(rows)), make_collate(0)
    alone = predict_logits(*ask, torch.device("cpu"), batch_size=1)
    together = predict_logits(*ask, torch.device("cpu"), batch_size=batch_size)
    assert torch.allclose(alone, together, atol=1e-4)


# ------------------------------------------------------------------------------ much text
@pytest.mark.parametrize("kind", ["words", "one word", "emoji", "nothing"])
@pytest.mark.slow
def test_five_megabytes_in_one_review_take_seconds(tokenizer, kind):
    """Somebody will paste a book, or the base64 of one."""
    text = {"words": "good film , ", "one word": "x", "emoji": "\U0001f600", "nothing": " \u200b"}
    text = text[kind] * (5_000_000 // len(text[kind].encode()))
    started = time.perf_counter()
    input_ids, lengths = encode([clean(text)], tokenizer, 30, "head+tail")
    assert time.perf_counter() - started < 20
    assert len(input_ids[0]) == min(30, lengths[0])
    assert bool(clean(text)) == (kind != "nothing")


def test_a_class_that_is_missing_from_a_batch_changes_nothing_about_it():
    """Batches are dealt by length, not by label: some have one class only, and are learned from."""
    batch = make_collate(0)(make_examples([[2, 5, 3]] * 2, [1, 1]))
    logits = make_model()(batch["input_ids"], batch["attention_mask"]).logits
    loss = torch.nn.functional.cross_entropy(logits, batch["labels"])
    loss.backward()
    assert loss.isfinite()
