"""What makes it fast changes nothing but the time, and the work is counted right."""

import csv
import itertools
import json
import platform
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import FAMILIES, PROJECT, make_examples_of_lengths, make_model, run_script
from torch.utils.flop_counter import FlopCounterMode
from transformers import AlbertConfig, AutoModelForSequenceClassification

from extras import benchmark, cost
from dataset import clean, encode, load_splits, make_collate, make_examples
from evaluate import predict_logits
from model import choose_precision, save_model, set_trainable, speed_up
from support.errors import UserError
from support.faster import Int8Linear, attention_by_hand, choose_attention, quantize
from support.large import Texts, TokenIds, keep
from support.pretrained import set_dropout
from support.rows import count_rows, open_asked, predict_chunks, write_predictions
from support.runs import describe_run
from support.unfinished import Run

CPU = torch.device("cpu")


# ------------------------------------------------------------------------------ attention
@pytest.mark.parametrize("scores_at_once", [1, 2**30])
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_by_hand_is_the_library_s_attention(family, scores_at_once, monkeypatch):
    """Logits and gradients of padded batches, in one piece or in many, to the last digits."""
    monkeypatch.setattr("support.faster.SCORES_AT_ONCE", scores_at_once)
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


def test_a_saved_model_does_not_ask_for_our_attention(arguments, tmp_path, tokenizer):
    """Other programs have no function of that name, and would refuse to load the folder."""
    model = make_model()
    choose_attention(model, CPU, "bf16")
    splits = {role: {"labels": [0, 1]} for role in ("train", "validation", "test")}
    names = ["LABEL_0", "LABEL_1"]
    run = describe_run(arguments("--max-length", "8"), names, splits, [], CPU, "fp32", {})
    save_model(tmp_path, model, tokenizer, run)
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


# ------------------------------------------------------------------------------ the last layer
def padded_batch():
    batch = make_collate(0)(make_examples_of_lengths([4, 9, 17, 30]))
    del batch["labels"]
    return batch


def is_narrow(model):
    return any(getattr(module, "keys_and_values", None) for module in model.modules())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])  # PyTorch's attention, and that by hand
@pytest.mark.parametrize("family", ["distilbert", "bert", "roberta"])
def test_what_nobody_reads_is_not_computed_and_nothing_else_changes(family, precision):
    """Logits and all gradients of padded batches are those of the whole last layer, and some 40 %
    of the work of two layers is gone (of six it is a seventh).
    """
    for dtype, most in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        found, work = [], []
        for narrow in (False, True):
            model = make_model(family, loud=dtype == torch.float64, dropout=0.0).to(dtype)
            if narrow:
                speed_up(model, CPU, precision)
            assert is_narrow(model) == narrow
            logits = model(**padded_batch()).logits
            logits.sum().backward()
            found.append([logits, *(p.grad for p in model.parameters() if p.grad is not None)])
            work.append(cost.count_flops(cost.products_of(model, [(4, 30)])))
        for whole, first in zip(*found, strict=True):
            assert (whole - first).abs().max() <= most * max(1.0, whole.abs().max())
        assert work[1] < 0.65 * work[0]


def pool_over_all(model, dead=False):
    """The model with a head that reads the mean of all vectors. dead: and makes zeros of it."""
    body = type(model.base_model)

    class Mean(body):
        def forward(self, *args, **options):
            output = super().forward(*args, **options)
            output.last_hidden_state = output[0].mean(dim=1, keepdim=True)  # [B, T, W] to [B, 1, W]
            return output

    model.base_model.__class__ = Mean
    if dead:
        torch.nn.init.zeros_(model.classifier.weight)
    return model


@pytest.mark.parametrize("dead", [False, True])
def test_a_model_whose_head_reads_all_tokens_is_left_alone(dead):
    """Also one with a head of zeros, whose answers say nothing of what it reads."""
    model = pool_over_all(make_model(loud=True, dropout=0.0).double(), dead).eval()
    before = model(**padded_batch()).logits
    speed_up(model, CPU, "fp32")
    assert not is_narrow(model)
    assert torch.equal(model(**padded_batch()).logits, before)


def test_a_layer_that_does_not_take_it_is_left_alone(monkeypatch):
    """Whatever goes wrong with one query for each text, is noticed at once and taken back."""
    monkeypatch.setattr("support.faster.unfold", lambda *four: four)
    model = make_model(loud=True, dropout=0.0).train()
    speed_up(model, CPU, "fp32")
    assert not is_narrow(model) and model.training
    assert model.config._attn_implementation == "sdpa"
    assert model(**padded_batch()).logits.shape == (4, 2)


def test_who_asks_for_all_vectors_or_weights_gets_them():
    """Explanations and pictures of attention need every token, from the same loaded model."""
    model = make_model("bert", loud=True).double().eval()
    whole = model(**padded_batch(), output_hidden_states=True)
    encoder = model.base_model(**padded_batch())[0]
    speed_up(model, CPU, "fp32")
    again = model(**padded_batch(), output_hidden_states=True)
    pairs = zip(whole.hidden_states, again.hidden_states, strict=True)
    assert all(torch.allclose(a, b) for a, b in pairs)
    assert torch.allclose(model.base_model(**padded_batch())[0], encoder)  # without the head
    with pytest.raises(RuntimeError):
        model(input_ids=torch.tensor([[2] * 41]), attention_mask=torch.ones(1, 41).long())
    assert torch.allclose(model.base_model(**padded_batch())[0], encoder)  # after a failed call
    model.set_attn_implementation("eager")
    weights = model(**padded_batch(), output_attentions=True).attentions
    assert weights[-1].shape == (4, 2, 30, 30)
    assert torch.allclose(model(**padded_batch()).logits, whole.logits)


def test_threads_that_share_a_model_do_not_get_each_other_s_answers():
    """A server may ask one model from many threads; each call has vectors of its own."""
    model = make_model(loud=True).eval()
    speed_up(model, CPU, "fp32")
    rows = [torch.tensor([[2 + (i + j) % 60 for j in range(3 + i)]]) for i in range(24)]

    def answer(row):
        with torch.inference_mode():
            return model(input_ids=row, attention_mask=torch.ones_like(row)).logits

    alone = [answer(row) for row in rows]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            assert all(map(torch.equal, pool.map(answer, rows), alone))


@pytest.mark.slow
def test_a_compiled_model_gives_the_same_answers():
    """--compile translates the hooks as well, in one piece."""
    model = make_model(loud=True).eval()
    speed_up(model, CPU, "fp32")
    before = model(**padded_batch()).logits
    torch._dynamo.reset()
    model.compile(dynamic=True, fullgraph=True, backend="eager")
    assert torch.allclose(model(**padded_batch()).logits, before, atol=1e-6)


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


# Not by trying it: if ours were broken everywhere, these tests would be skipped everywhere.
X86 = platform.machine() in ("x86_64", "AMD64") and torch.backends.mkldnn.is_available()
needs_int8 = pytest.mark.skipif(not X86, reason="made for oneDNN on x86")


@needs_int8
def test_whole_numbers_multiply_almost_as_well_as_fractions():
    """Beside float64: off by a percent of a typical product; also where one token has numbers that
    are a thousand times those of the others; and largest numbers do not overflow.
    """
    torch.manual_seed(0)
    linear = torch.nn.Linear(256, 96)
    ours, vectors = Int8Linear(linear), torch.randn(3, 700, 256)
    vectors[1, 5] *= 1000
    with torch.inference_mode():
        right = linear.double()(vectors.double())  # [3, 700, 96]
        off = (ours(vectors) - right).abs().mean(dim=-1) / right.abs().mean(dim=-1)
        assert off.max() < 0.04 and off.mean() < 0.02
        linear.float().weight.fill_(1.0)
        linear.bias.fill_(0.0)
        assert torch.allclose(Int8Linear(linear)(torch.ones(2, 256)), torch.tensor(256.0))
        assert torch.equal(Int8Linear(linear)(torch.zeros(2, 256)), torch.zeros(2, 96))
        assert torch.allclose(Int8Linear(linear)(-torch.ones(2, 256)), torch.tensor(-256.0))


@needs_int8
@pytest.mark.parametrize("family", FAMILIES)
def test_int8_answers_like_fp32_and_explains_itself(family):
    """Nearly the same logits, whatever else is in the batch; and the gradients of fp32."""
    examples, cpu = make_examples_of_lengths([3 + i % 30 for i in range(200)]), CPU
    found = {}
    for precision in ("fp32", "int8"):
        model = make_model(family, loud=True, dropout=0.0)
        if precision == "int8":
            quantize(model)
        speed_up(model, cpu, precision)
        found[precision] = predict_logits(model, examples, make_collate(0), cpu, precision)
    spread = found["fp32"].std(dim=0).mean()
    off = (found["int8"] - found["fp32"]).abs().mean()
    assert 0 < off < 0.1 * spread
    some = predict_logits(model, examples[:3], make_collate(0), cpu, "int8")
    assert torch.allclose(some, found["int8"][:3], atol=0.03 * spread)
    vectors = model.get_input_embeddings()(torch.tensor([[2, 9, 3]])).detach().requires_grad_()
    logits = model(inputs_embeds=vectors, attention_mask=torch.ones(1, 3).long()).logits
    assert torch.autograd.grad(logits[0, 1], vectors)[0].abs().sum() > 0


@needs_int8
def test_int8_is_for_asking_on_a_cpu(rehearsed, tmp_path):
    """The same answers to the rehearsal's reviews; a GPU and the training refuse it in a line."""
    folder, _ = rehearsed
    done = run_script("evaluate.py", "--model", folder, "--precision", "int8")
    assert "computed on cpu in int8" in done.stdout, done.stderr
    file = PROJECT / "support" / "demo_reviews" / "test.csv"
    rows = []
    for precision in ("fp32", "int8"):
        words = ("--file", file, "--out", tmp_path / precision, "--precision", precision)
        assert run_script("predict.py", "--model", folder, *words).returncode == 0
        rows.append(list(csv.DictReader(open(tmp_path / precision, encoding="utf-8"))))
    equal = [one["predicted"] == other["predicted"] for one, other in zip(*rows, strict=True)]
    assert len(equal) == 400 and sum(equal) >= 396
    assert [row["score"] for row in rows[0]] != [row["score"] for row in rows[1]]
    with pytest.raises(UserError, match="for CPUs.*--device cpu"):
        choose_precision("int8", torch.device("cuda"))
    done = run_script("finetune.py", "--demo", "--precision", "int8", "--out", tmp_path / "no")
    assert done.returncode == 2 and "int8" in done.stderr


def test_a_cpu_that_computes_whole_numbers_wrong_is_noticed(monkeypatch):
    """The operators are made for some processors; on another they may give any number."""
    monkeypatch.setattr(Int8Linear, "forward", lambda self, vectors: 2 * self.added)
    with pytest.raises(UserError, match="not on this machine"):
        quantize(make_model())


# ------------------------------------------------------------------------------ memory
@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows_of_a_file(tmp_path):
    """A file of a million reviews has to fit where a file of a thousand does: rows stream through,
    a chunk at a time. (The model is left out here, which sees one chunk whatever the file.)
    """
    peaks = []
    for rows in (3_000, 3_000, 60_000):  # the first time, much is remembered that is no row
        path = tmp_path / f"{rows}.csv"
        path.write_text("text,label\n" + "a good film indeed,positive\n" * rows)
        tracemalloc.start()
        asked = open_asked(path, {})
        count_rows(asked)
        ask = (asked, lambda texts: [("a", 0.5)] * len(texts), clean)
        write_predictions(
            tmp_path / "out.csv", rows, lambda skip, ask=ask: predict_chunks(*ask, skip), {}
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len((tmp_path / "out.csv").read_text().splitlines()) == rows + 1
    assert peaks[2] < 1.2 * peaks[1]


def peak_of(work):
    """The most memory, in bytes, that Python held while `work` ran, on top of what it held before;
    and what it still holds, for what `work` returns.
    """
    tracemalloc.start()
    kept = work()
    size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, size, kept


@pytest.mark.slow
def test_texts_of_a_large_file_are_not_held_in_memory(tmp_path):
    """A million rows of 60 words are 400 MB. To draw 2,000 of them takes some numbers for each row,
    and of their texts only those that were drawn.
    """
    path, rows, words = tmp_path / "large.csv", 40_000, "word " * 60
    with open(path, "w") as file:
        file.write("text,label\n")
        file.writelines(f"{words}{i},{'ab'[i % 2]}\n" for i in range(rows))
    load_splits(str(path), subset=2000)  # the first time, much is remembered that is no row
    peak, _, (splits, *_) = peak_of(lambda: load_splits(str(path), subset=2000))
    assert path.stat().st_size > 300 * rows
    assert peak < 130 * rows
    assert len(splits["train"]["texts"]) == 2000 == len(set(splits["train"]["texts"]))


def test_token_ids_take_at_most_six_bytes_each(tokenizer):
    """An epoch of a million rows has 100 million tokens. As Python's lists, with a dict for each
    row, they were nine times as large.
    """
    texts = ["good film " * (10 + i % 50) for i in range(3000)]

    def work():
        input_ids, lengths = encode(texts, tokenizer, 256, "head")
        return make_examples(input_ids, [0] * len(texts)), lengths

    work()
    _, size, (examples, lengths) = peak_of(work)
    assert size <= 6 * sum(lengths), f"{size / sum(lengths):.2f} bytes"
    assert [len(example["input_ids"]) for example in examples] == lengths


def test_large_lists_are_lists_to_those_who_use_them():
    """Half an emoji comes back as it was; so does an empty text; and so do slices, and places from
    the end.
    """
    texts = ["one", "", "zwölf \U0001f600", "half \ud83d", "one"]
    kept = Texts(texts)
    assert list(kept) == texts == kept and kept[-1] == "one" and kept[1:3] == texts[1:3]
    assert kept.keys[0] == kept.keys[4] != kept.keys[1]
    some = keep({"texts": kept, "labels": [0, 1, 2, 3, 4]}, [True, False, False, True, True])
    assert some["texts"] == ["one", "half \ud83d", "one"] and some["labels"] == [0, 3, 4]
    assert some["texts"].keep([False, True, False]) == ["half \ud83d"]
    with pytest.raises(IndexError):
        kept[5]
    ids = [[2, 5, 3], [2, 3], [2, 30_000, 3]]
    flat = TokenIds(ids)
    assert flat == ids and flat[-1] == ids[-1] and flat[:2] == ids[:2] and len(flat) == 3
    assert TokenIds(ids[:2]) != flat and TokenIds([]) == [] and not Texts()


# ------------------------------------------------------------------------------ the work
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("train_layers", [None, 0, 1, 2])
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.slow
def test_flops_are_those_that_pytorch_counts(family, train_layers, narrow):
    """PyTorch's own counter watches a forward and a backward pass, whatever of it is frozen."""
    model = make_model(family, dropout=0.0).train()
    model.set_attn_implementation("eager")
    if narrow:
        model.set_attn_implementation("sdpa")
        speed_up(model, CPU, "bf16")  # attention by hand, in products that can be counted
    set_trainable(model, train_layers)
    batch = make_collate(0)(make_examples_of_lengths([30] * 4))
    del batch["labels"]
    with FlopCounterMode(display=False) as forward:
        logits = model(**batch).logits
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    scoring, training = (cost.products_of(model, [(4, 30)], how) for how in (False, True))
    assert cost.count_flops(scoring) == forward.get_total_flops()
    seen = forward.get_total_flops() + backward.get_total_flops()
    assert cost.count_flops(training) == seen


def test_layers_that_share_their_weights_are_counted_each():
    """ALBERT has one layer's weights and uses them over and over."""
    size = {"hidden_size": 32, "embedding_size": 32, "intermediate_size": 64}
    config = AlbertConfig(vocab_size=64, num_hidden_layers=3, num_attention_heads=2, **size)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    batch = make_collate(0)(make_examples_of_lengths([30] * 4))
    del batch["labels"]
    with FlopCounterMode(display=False) as forward:
        model(**batch)
    scoring = cost.products_of(model, [(4, 30)], training=False)
    assert cost.count_flops(scoring) == forward.get_total_flops()


@pytest.mark.parametrize("train_layers", [None, 0, 1])
def test_the_limit_runs_the_products_that_are_counted(train_layers):
    """Else a run with frozen layers would be compared with products it never computes."""
    model = make_model()
    speed_up(model, CPU, "fp32")
    set_trainable(model, train_layers)
    for training in (False, True):
        products = cost.products_of(model, [(4, 16), (2, 9)], training)
        with FlopCounterMode(display=False) as seen:
            assert cost.time_products(products, CPU, "fp32") > 0
        twice = cost.count_flops(products[:1])  # the first ones, to warm up
        assert seen.get_total_flops() == cost.count_flops(products) + twice


def test_the_time_that_is_left_is_said_once_and_follows_from_tokens(
    arguments, monkeypatch, capsys
):
    """Whoever starts a run of hours should know after a minute; and padding takes time, too."""
    clock = itertools.count(0.0, 1.0)  # a second passes with every look at it
    monkeypatch.setattr("support.unfinished.time.perf_counter", lambda: next(clock))
    run = Run(arguments("--epochs", "3"), {"device": {"name": "here"}})
    run.writes, run.parts = False, (None, None, torch.amp.GradScaler("cpu", enabled=False))
    lengths = [4] * 40
    windows = [[[2 * i, 2 * i + 1]] for i in range(20)]  # 20 windows of 8 tokens
    for epoch in range(3):
        for step, _ in enumerate(run.progress(epoch, windows, lengths, done=0), start=1):
            run.note(20 * epoch + step, torch.tensor(0.7), torch.tensor(1.0), 1e-5, reviews=2)
    said = [line for line in capsys.readouterr().out.splitlines() if "are left" in line]
    assert len(said) == 1
    # After the second window the clock was looked at once more, by note() after the tenth: so two
    # seconds went by for windows 3 to 12, and 8 + 40 are left.
    assert "10 s of training are left" in said[0]


# ------------------------------------------------------------------------------ the benchmark
@pytest.mark.slow
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
        name: benchmark.measure(name, 32, str(folder), rows)
        for name in ("evaluate.py", "ONNX Runtime int8", "OpenVINO bf16", "pipeline")
    }
    assert len({json.dumps(one["predicted"]) for one in ask.values()}) == 1
    assert ask["ONNX Runtime int8"]["flops"] > ask["evaluate.py"]["flops"], "all of the last layer"
    assert ask["evaluate.py"]["real_tokens"] == ask["pipeline"]["real_tokens"]
    assert ask["evaluate.py"]["predicted"] == ask["pipeline"]["predicted"]
    rounds = [{name: one | {"seconds": 2.0 * one["seconds"]} for name, one in figures.items()}]
    summary = benchmark.summarize("train-32", 24, [figures, *rounds])
    assert json.dumps(summary)
    for name, row in summary["contenders"].items():
        ratio = figures[name]["seconds"] / figures["finetune.py"]["seconds"]
        assert row["ours_is_faster_by"] == pytest.approx(ratio)
