"""What makes it fast changes nothing but the time, and the work is counted right."""

import json
import tracemalloc

import pytest
import torch
from conftest import FAMILIES, make_examples_of_lengths, make_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AlbertConfig, AutoModelForSequenceClassification

import benchmark
import cost
from attention import attention_by_hand, choose_attention
from checkpoint import save_model
from dataset import make_collate
from evaluate import predict_logits
from model import set_dropout, set_trainable
from rows import count_rows, predict_chunks, write_predictions

CPU = torch.device("cpu")


# ------------------------------------------------------------------------------ attention
@pytest.mark.parametrize("scores_at_once", [1, 2**30])
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_by_hand_is_the_library_s_attention(family, scores_at_once, monkeypatch):
    """Logits and gradients of padded batches, in one piece or in many, to the last digits."""
    monkeypatch.setattr("attention.SCORES_AT_ONCE", scores_at_once)
    batch = make_collate(0)(make_examples_of_lengths([4, 9, 17, 30]))
    del batch["labels"]
    found = []
    for by_hand in (False, True):
        model = make_model(family, loud=True, dropout=0.0).double()
        if by_hand:
            choose_attention(model, CPU, "bf16")
            assert model.config._attn_implementation == "by_hand"
        logits = model(**batch).logits
        logits.sum().backward()
        found.append([logits, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(*found, strict=True))


def test_attention_by_hand_looks_away_from_padding():
    """A masked value of any size changes nothing; without the mask it changes everything."""
    query, key, value = torch.randn(3, 1, 2, 5, 4).unbind()
    mask = torch.ones(1, 1, 5, 5, dtype=torch.bool)
    mask[..., 3:] = False
    huge = value.clone()
    huge[:, :, 3:] = 1e6
    calm, _ = attention_by_hand(None, query, key, value, mask)
    assert torch.equal(calm, attention_by_hand(None, query, key, huge, mask)[0])
    assert not torch.allclose(calm, attention_by_hand(None, query, key, value, None)[0])


def test_only_where_it_was_measured_to_be_faster():
    """On GPUs and in fp32 the library's kernel stays; so do models that want more of attention."""
    for device, precision in ((torch.device("cuda"), "bf16"), (CPU, "fp32")):
        model = make_model()
        choose_attention(model, device, precision)
        assert model.config._attn_implementation == "sdpa"
    model = make_model()
    model.config.model_type = "one_with_distances"
    choose_attention(model, CPU, "bf16")
    assert model.config._attn_implementation == "sdpa"


def test_a_saved_model_does_not_ask_for_our_attention(tmp_path, tokenizer):
    """Other programs have no function of that name, and would refuse to load the folder."""
    model = make_model()
    choose_attention(model, CPU, "bf16")
    run = {"arguments": {"model": "m", "data": "d", "demo": True, "max_length": 8}, "labels": ["a"]}
    run["arguments"]["truncation"] = "head"
    save_model(
        tmp_path, model, tokenizer, run | {"results": {}, "splits": {"train": {"reviews": 1}}}
    )
    assert "by_hand" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_two_kinds_of_dropout_are_told_apart(family):
    """Each library model has its own names for them; one that is missed would stay on."""
    config = make_model(family).config
    set_dropout(config, None, 0.0)
    kinds = {name: rate for name, rate in vars(config).items() if "dropout" in name}
    assert all(rate == 0.0 for name, rate in kinds.items() if "att" in name)
    if family != "modernbert":  # whose checkpoints have none
        assert any(rate == 0.1 for name, rate in kinds.items() if "att" not in name)
    set_dropout(config, 0.25, 0.0)
    assert any(getattr(config, name) == 0.25 for name in kinds)


# ------------------------------------------------------------------------------ 16 bits
def test_bf16_gives_the_labels_of_fp32():
    """For at least 99.5 of 100 reviews; those that differ stand on the edge in both."""
    model = make_model(loud=True)
    examples = make_examples_of_lengths([3 + i % 30 for i in range(400)])
    exact = predict_logits(model, examples, make_collate(0), CPU, "fp32")
    choose_attention(model, CPU, "bf16")
    rough = predict_logits(model, examples, make_collate(0), CPU, "bf16")
    assert not torch.equal(exact, rough), "otherwise this was fp32 twice"
    assert (exact.argmax(-1) == rough.argmax(-1)).float().mean() >= 0.995


# ------------------------------------------------------------------------------ memory
def test_memory_does_not_grow_with_the_rows_of_a_file(tmp_path):
    """A file of a million reviews has to fit where a file of a thousand does: rows stream through,
    a chunk at a time. (The model is left out here, which sees one chunk whatever the file.)
    """
    peaks = []
    for rows in (3_000, 60_000):
        path = tmp_path / f"{rows}.csv"
        path.write_text("text,label\n" + "a good film indeed,positive\n" * rows)
        tracemalloc.start()
        count_rows(path, {"text": "--text-column"})
        ask = (path, "text", "label", ["a", "b"], lambda texts: [("a", 0.5)] * len(texts))
        write_predictions(
            tmp_path / "out.csv", rows, lambda skip, ask=ask: predict_chunks(*ask, skip), {}
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len((tmp_path / "out.csv").read_text().splitlines()) == rows + 1
    assert peaks[1] < 1.2 * peaks[0]


# ------------------------------------------------------------------------------ the work
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("train_layers", [None, 0, 1, 2])
def test_flops_are_those_that_pytorch_counts(family, train_layers):
    """PyTorch's own counter watches a forward and a backward pass. It sees the head's few products
    too; and in the lowest layer that trains we count two products with frozen inputs too many.
    """
    model = make_model(family, dropout=0.0).train()
    model.set_attn_implementation("eager")
    set_trainable(model, train_layers)
    batch = make_collate(0)(make_examples_of_lengths([30] * 4))
    del batch["labels"]
    with FlopCounterMode(display=False) as forward:
        logits = model(**batch).logits
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    scoring = cost.count_flops(model, [(4, 30)], training=False)
    training = cost.count_flops(model, [(4, 30)])
    assert scoring == pytest.approx(forward.get_total_flops(), rel=0.02)
    seen = forward.get_total_flops() + backward.get_total_flops()
    assert training == pytest.approx(seen, rel=0.02 if train_layers in (None, 0) else 0.12)


def test_layers_that_share_their_weights_are_counted_each():
    """ALBERT has one layer's weights and uses them over and over."""
    size = {"hidden_size": 32, "embedding_size": 32, "intermediate_size": 64}
    config = AlbertConfig(vocab_size=64, num_hidden_layers=3, num_attention_heads=2, **size)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    batch = make_collate(0)(make_examples_of_lengths([30] * 4))
    del batch["labels"]
    with FlopCounterMode(display=False) as forward:
        model(**batch)
    scoring = cost.count_flops(model, [(4, 30)], training=False)
    assert scoring == pytest.approx(forward.get_total_flops(), rel=0.1)  # and a projection


def test_the_limit_can_be_timed_where_no_layer_multiplies_by_a_matrix(monkeypatch):
    """SqueezeBERT convolves; a run must not end at a line that only foretells its time."""
    monkeypatch.setattr(cost, "layers_of", lambda model: [(True, [])])
    assert cost.time_products(make_model(), [(2, 8)], torch.device("cpu"), "fp32") > 0


@pytest.mark.parametrize("train_layers", [None, 0, 1])
def test_the_limit_runs_the_products_that_are_counted(train_layers):
    """Else a run with frozen layers would be compared with products it never computes."""
    model = make_model()
    set_trainable(model, train_layers)
    for training in (False, True):
        with FlopCounterMode(display=False) as seen:
            cost.time_products(model, [(4, 16), (2, 9)], CPU, "fp32", training)
        shapes = [(4, 16), (4, 16), (2, 9)]  # the first one twice, to warm up
        assert seen.get_total_flops() == cost.count_flops(model, shapes, training)


def test_the_time_of_the_run_is_foretold_once(monkeypatch):
    """Twice as fast, half the time: it follows from the work that is left to do."""
    clock = iter([100.0, 108.0])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(cost, "time_products", lambda *rest: 0.5)
    model = make_model()
    window = [(4, 16), (4, 8)]
    flops = cost.count_flops(model, window)
    foretell = cost.make_foretell(model, 600 * flops, CPU, "fp32")
    notes = [foretell(window) for _ in range(20)]
    assert [i for i, note in enumerate(notes) if note] == [9], "after ten windows, and once"
    # 8 windows in 8 seconds, so 600 windows' worth of work takes ten minutes.
    assert "about 10 min" in notes[9]
    # The limit was measured on the (4, 16), in half a second.
    share = flops / (cost.count_flops(model, [(4, 16)]) / 0.5)
    assert f"{share:.0%} of" in notes[9]


def test_the_work_of_a_run_counts_every_epoch_and_every_split(arguments):
    """Two epochs are twice one, without the test; a frozen epoch is cheaper than a whole one."""
    model = make_model()
    lengths = {"train": [8] * 20, "validation": [8] * 4, "test": []}
    one, two, frozen = (
        cost.count_run(model, arguments(*words.split()), lengths)
        for words in ("--epochs 1", "--epochs 2", "--epochs 2 --head-epochs 1")
    )
    assert two == 2 * one and one < frozen < two
    assert cost.count_run(model, arguments("--epochs", "1"), lengths | {"test": [8] * 4}) > one


# ------------------------------------------------------------------------------ the benchmark
def test_a_benchmark_counts_what_each_contender_computes(rehearsed, tmp_path):
    """The same reviews for all; one pads to the maximum, one to the longest, one by length."""
    folder, _ = rehearsed
    texts = ["good film", "a bad film " * 9, "the plot isn't dull, it's brilliant"] * 8
    rows = {"texts": texts, "labels": [0, 1] * 12}
    figures = {
        name: benchmark.measure(name, 32, str(folder / "untrained"), rows)
        for name in ("finetune.py", "Trainer seed", "Trainer default", "Trainer best")
    }
    padding = [one["padding_share"] for one in figures.values()]
    assert padding[1] > padding[2] > padding[0] >= 0
    ask = {
        name: benchmark.measure(name, 32, str(folder), rows) for name in ("evaluate.py", "pipeline")
    }
    assert ask["evaluate.py"]["real_tokens"] == ask["pipeline"]["real_tokens"]
    assert ask["evaluate.py"]["predicted"] == ask["pipeline"]["predicted"]
    rounds = [{name: one | {"seconds": 2.0 * one["seconds"]} for name, one in figures.items()}]
    summary = benchmark.summarize("train-32", 24, list(figures), [figures, *rounds])
    assert json.dumps(summary)
    for name, row in summary["contenders"].items():
        ratio = figures[name]["seconds"] / figures["finetune.py"]["seconds"]
        assert row["ours_is_faster_by"] == pytest.approx(ratio)
