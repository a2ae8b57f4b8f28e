"""Chapter 2: the right device and format, a fresh head, and nothing moves that should not."""

import json
from types import SimpleNamespace

import pytest
import torch
from conftest import FAMILIES, make_model, run_script
from transformers import FNetConfig, FNetModel

import model as model_chapter
from support.errors import UserError, out_of_memory
from model import autocast, choose_device, choose_precision, load_pretrained, parameter_parts
from model import set_trainable
from support.options import halve
from support.pretrained import class_names, load_config, load_tokenizer, max_positions


@pytest.fixture
def encoder(tmp_path, tokenizer):
    """A folder with a pretrained encoder that has no head for our task, as on the hub."""

    def save(family="distilbert", **options):
        model = make_model(family, **options)
        getattr(model, model.base_model_prefix).save_pretrained(tmp_path / family)
        tokenizer.save_pretrained(tmp_path / family)
        return str(tmp_path / family)

    return save


def test_a_device_that_is_absent_is_an_error_not_a_silent_cpu():
    """Training on the CPU by mistake is noticed the next morning."""
    for wanted in ("xpu", "cuda:99", "toaster"):
        with pytest.raises(UserError, match="--device"):
            choose_device(wanted)
    assert choose_device("cpu")[0].type == "cpu"
    assert choose_device()[1], "there is always a reason to print"


def test_torchrun_gives_each_process_a_gpu_of_its_own(monkeypatch):
    """Two processes on one GPU would share its memory, and its time. (With a pretended GPU.)"""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert choose_device("cuda")[0] == choose_device()[0] == torch.device("cuda:0")
    assert choose_device("cuda:1")[0] == torch.device("cuda:1") == chosen[-1]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("cuda")[0] == choose_device()[0] == torch.device("cuda:1")
    with pytest.raises(UserError, match="say cuda"):
        choose_device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="--nproc_per_node=2"):
        choose_device()


def test_bf16_is_chosen_where_the_cpu_multiplies_it(monkeypatch):
    """Emulated bf16 is slower than fp32, so the hardware decides, not the software."""
    cpu = torch.device("cpu")
    for flags, expected in (
        ({}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        assert choose_precision("auto", cpu)[0] == expected
    assert choose_precision("fp16", cpu)[0] == "fp16", "what is asked for is done"


def test_a_t4_gets_fp16_and_a_newer_gpu_bf16(monkeypatch):
    """A T4 claims to support bf16, but only emulates it; the question must exclude emulation."""
    for native in (True, False):
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True, native=native: native or including_emulation,
        )
        expected = "bf16" if native else "fp16"
        assert choose_precision("auto", torch.device("cuda"))[0] == expected


def test_autocast_keeps_weights_in_fp32_and_computes_in_16_bits():
    """The optimizer's small updates need 32 bits; the matrix products do not."""
    layer, x = torch.nn.Linear(4, 4), torch.ones(1, 4)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(torch.device("cpu"), precision):
            assert layer(x).dtype == dtype
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_is_new_and_the_encoder_is_the_checkpoints(encoder, family):
    """Same seed, same head; another seed, another head; the pretrained part is never redrawn."""
    folder = encoder(family)
    models = [load_pretrained(folder, ["neg", "pos"], seed)[0] for seed in (1, 1, 2)]
    original = dict(make_model(family).named_parameters())
    for name, part in parameter_parts(models[0]):
        one, again, other = (dict(model.named_parameters())[name] for model in models)
        assert torch.equal(one, again)
        if part != "head":
            assert torch.equal(one, original[name]) and torch.equal(one, other)
    head = [name for name, part in parameter_parts(models[0]) if part == "head"]
    weights = [dict(model.named_parameters()) for model in models]
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in head)


def test_weights_are_float32_whatever_the_checkpoint_holds(encoder, tmp_path):
    """transformers 5 loads in the checkpoint's dtype; Adam's updates are lost in 16 bits."""
    folder = encoder()
    make_model().distilbert.to(torch.bfloat16).save_pretrained(folder)
    model, _ = load_pretrained(folder, ["a", "b"], seed=0)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_head_for_the_same_classes_is_kept_and_any_other_is_drawn_anew(tmp_path, tokenizer):
    """One's own model is trained on; a head that judged emotions must not judge films."""
    trained = make_model()
    trained.config.id2label = {0: "negative", 1: "positive"}
    trained.save_pretrained(tmp_path)
    weight = trained.classifier.weight
    same, note = load_pretrained(str(tmp_path), ["negative", "positive"], seed=5)
    assert torch.equal(same.classifier.weight, weight) and "kept" in note
    for names in (["sad", "glad"], ["a", "b", "c"]):
        other, _ = load_pretrained(str(tmp_path), names, seed=5)
        assert other.classifier.weight.shape[0] == len(names)
        assert not torch.equal(other.classifier.weight[:2], weight)
        assert other.config.id2label == dict(enumerate(names))


def test_class_names_come_in_the_order_of_the_logits(tmp_path):
    """A program that sorts a file's keys as words writes 0, 1, 10, 11, 2."""
    model = make_model()
    names = [f"class {i}" for i in range(12)]
    model.config.id2label = dict(enumerate(names))
    model.config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config, sort_keys=True))
    config = load_config(str(tmp_path))
    assert list(config.id2label) != list(range(12)) and class_names(config) == names


def test_a_checkpoint_without_its_encoder_is_refused(tmp_path):
    """A random encoder in place of a pretrained one trains without error, and learns little."""
    from safetensors.torch import load_file, save_file

    make_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights = {name: w for name, w in weights.items() if "layer.0" not in name}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks"):
        load_pretrained(str(tmp_path), ["a", "b"], seed=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_are_counted_as_the_model_counts_them(family):
    """RoBERTa's table of 514 holds 512 positions: at 513 it fails in mid-training."""
    model = make_model(family)
    assert max_positions(model) == 40
    ids = torch.full((1, max_positions(model)), 7)
    assert model(input_ids=ids).logits.shape == (1, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_freezing_moves_exactly_the_tensors_it_should(family):
    """What is frozen and what is not is the question readers ask most about fine-tuning."""
    model = make_model(family)
    parts = dict(parameter_parts(model))
    assert set(parts.values()) >= {"embeddings", "layer 1", "layer 2", "head"}
    for layers, expected in (
        (None, set(parts.values())),
        (0, {"head"}),
        (1, {"head", "layer 2"}),
        (2, {"head", "layer 1", "layer 2"}),
    ):
        counts = set_trainable(model, layers)
        on = {parts[name] for name, p in model.named_parameters() if p.requires_grad}
        off = {parts[name] for name, p in model.named_parameters() if not p.requires_grad}
        assert on == expected and not on & off
        assert sum(trained for _, trained in counts.values()) == sum(
            p.numel() for p in model.parameters() if p.requires_grad
        )
    with pytest.raises(UserError, match="are 0 to 2"):
        set_trainable(model, 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_chapter_shows_a_sentence_s_way_for_every_family(encoder, family):
    """From tokens to a vector each to logits, whatever the modules of a model are called."""
    done = run_script("model.py", "--model", encoder(family), "the film was good")
    assert done.returncode == 0, done.stderr
    for stage in ("[CLS] the film was good [SEP]", "[1, 6, 32]", "[1, 2]", "layer 2", "head"):
        assert stage in done.stdout


def test_the_chapter_computes_in_the_precision_that_it_names(encoder, monkeypatch):
    """int8 was once named and not used."""
    work, seen = model_chapter.quantize, []
    monkeypatch.setattr(model_chapter, "quantize", lambda model: seen.append(work(model)))
    words = ("model.py", "--model", encoder("distilbert"), "the film was good", "--precision")
    for precision, times in (("fp32", 0), ("int8", 1)):
        done = run_script(*words, precision, module=model_chapter)
        assert done.returncode == 0 and f"precision  {precision}" in done.stdout
        assert len(seen) == times


def test_a_frozen_head_is_refused():
    """A random head that never learns makes every prediction a coin toss."""
    model = make_model()
    del model.classifier, model.pre_classifier
    with pytest.raises(UserError, match="no head"):
        set_trainable(model, 1)


def test_out_of_memory_says_what_to_change_and_other_errors_pass():
    """A wall of allocator statistics helps nobody; hiding a real bug would be worse."""
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ):
        with pytest.raises(UserError, match="halve it"), out_of_memory("halve it"):
            raise error
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory("halve it"):
        raise RuntimeError("shapes do not match")
    whole, one = (SimpleNamespace(batch_size=n, accumulate=1, out="model") for n in (16, 1))
    assert halve(whole).startswith("try --batch-size 8 --accumulate 2, ")
    assert halve(one).startswith("try a smaller --max-length"), "half a review is none"


def test_a_tokenizer_without_padding_token_is_refused(tmp_path, tokenizer):
    """Without one there is no way to put two texts of unlike length into one batch."""
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token_id == 0
    config = (tmp_path / "tokenizer_config.json").read_text()
    (tmp_path / "tokenizer_config.json").write_text(
        config.replace('"pad_token": "[PAD]"', '"pad_token": null')
    )
    with pytest.raises(UserError, match="cannot pad"):
        load_tokenizer(str(tmp_path))


def test_a_model_that_reads_padding_is_refused(tmp_path, tokenizer):
    """FNet takes a mask and does not look at it: an answer would depend on its neighbours."""
    tokenizer.save_pretrained(tmp_path)
    config = FNetConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, intermediate_size=8)
    FNetModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no attention mask"):
        load_pretrained(str(tmp_path), ["a", "b"], seed=1)


def test_a_model_that_reads_the_last_position_is_refused(tmp_path, tokenizer):
    """XLNet pads on the left; padded on the right, it would judge by a padding cell."""
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"padding_side": "left"}))
    with pytest.raises(UserError, match="padding on the left"):
        load_tokenizer(str(tmp_path))
