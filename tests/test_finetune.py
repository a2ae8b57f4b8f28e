"""Chapter 4: the gradient is the one that was promised, and nothing moves that should not."""

import copy
import json
import math

import pytest
import torch
from conftest import epoch_losses, make_examples_of_lengths, make_model, run_script, train
from safetensors.torch import load_file
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    get_linear_schedule_with_warmup,
)

import finetune
from dataset import encode, load_splits, make_batches, make_collate, make_examples
from finetune import count_steps, decay_groups, rate_factor
from model import autocast, load_pretrained, parameter_parts
from support.errors import UserError
from support.unfinished import Run, best_epoch


# ------------------------------------------------------------------------------ accumulation
@pytest.mark.parametrize(
    "count, batch_size, accumulate", [(11, 2, 4), (10, 1, 4), (7, 4, 8), (12, 3, 2)]
)
def test_accumulated_gradients_equal_one_big_batch(
    arguments, monkeypatch, count, batch_size, accumulate
):
    """Exact in float64, for every window: whole ones, ragged ones, and the short last one.

    11 reviews in micro-batches of 2 are 6; windows of 4 leave one of 2 micro-batches, 3 reviews.
    Dividing by N there gives a gradient that is too small, by the number of micro-batches one that
    weighs the last review double.
    """
    args = arguments("--epochs", "1", "--clip", "1e9", "--batch-size", str(batch_size))
    args.accumulate = accumulate
    model = make_model(loud=True, dropout=0.0).double()
    examples = make_examples_of_lengths([3 + 5 * i % 17 for i in range(count)])
    seen = []
    # In place of a step, write down the gradient: the weights stay, so windows can be repeated.
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self: seen.append([p.grad.clone() for p in model.parameters()]),
    )
    train(model, examples, args)
    monkeypatch.undo()

    lengths = [len(example["input_ids"]) for example in examples]
    batches = make_batches(lengths, batch_size, args.seed, epoch=0)
    assert len(seen) == count_steps(count, batch_size, accumulate)
    for number, gradients in enumerate(seen):
        rows = [i for b in batches[number * accumulate : (number + 1) * accumulate] for i in b]
        batch = make_collate(0)([examples[i] for i in rows])
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        model.zero_grad()
        functional.cross_entropy(logits, batch["labels"]).backward()  # the mean: one big batch
        for parameter, gradient in zip(model.parameters(), gradients):
            assert torch.allclose(gradient, parameter.grad, rtol=1e-9, atol=1e-12)


def test_the_loss_of_an_epoch_is_the_mean_over_its_reviews(arguments):
    """Not the mean of batch means, and not the last micro-batch times N."""
    model = make_model(loud=True, dropout=0.0)
    examples = make_examples_of_lengths([5, 9, 12, 4, 30, 8, 8])
    args = arguments("--epochs", "1", "--batch-size", "2", "--accumulate", "3", "--lr", "1e-30")
    batch = make_collate(0)(examples)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = functional.cross_entropy(logits, batch["labels"]).item()
    (loss,) = epoch_losses(train(model, examples, args))
    assert loss == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------------------ schedule
@pytest.mark.parametrize("total, warmup", [(1, 0), (2, 0), (10, 1), (375, 37)])
def test_the_learning_rate_is_transformers_linear_schedule_and_ends_at_zero(total, warmup):
    """Counted in optimizer steps. A run of one step must still learn something."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = get_linear_schedule_with_warmup(optimizer, warmup, total)
    for step in range(total):
        assert rate_factor(step, warmup, total) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
    assert rate_factor(total, warmup, total) == reference.get_last_lr()[0] == 0
    if total == 1:
        assert rate_factor(0, warmup, total) == 1


def test_the_optimizer_gets_the_scheduled_rate_at_every_step(arguments, monkeypatch):
    """Scheduler steps per micro-batch would let the rate reach 0 halfway."""
    rates = []
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self: rates.append(self.param_groups[0]["lr"])
    )
    args = arguments(*"--epochs 2 --batch-size 2 --accumulate 2 --lr 0.5 --warmup 0.2".split())
    # 9 micro-batches, 5 windows, twice
    train(make_model(), make_examples_of_lengths([5] * 18), args)
    assert rates == [pytest.approx(0.5 * rate_factor(step, 2, 10)) for step in range(10)]
    assert len(rates) == 2 * count_steps(18, 2, 2)


def test_each_phase_has_a_warm_up_of_its_own(arguments, monkeypatch):
    """When the encoder thaws, Adam knows nothing of it yet: a full rate would spoil it."""
    rates = []
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self: rates.append(self.param_groups[0]["lr"])
    )
    args = arguments(*"--epochs 3 --batch-size 2 --lr 1 --warmup 0.2 --head-epochs 1".split())
    train(make_model(), make_examples_of_lengths([5] * 10), args)  # 5 steps an epoch
    head, rest = rates[:5], rates[5:]
    assert head == [pytest.approx(rate_factor(step, 1, 5)) for step in range(5)]
    assert rest == [pytest.approx(rate_factor(step, 2, 10)) for step in range(10)]


# ------------------------------------------------------------------------------ decay
@pytest.mark.parametrize("family", ["distilbert", "bert", "roberta"])
def test_no_norm_and_no_bias_is_decayed_under_the_real_names(family):
    """The usual list of names misses DistilBERT's: sa_layer_norm, output_layer_norm."""
    with torch.device("meta"):  # the real architecture, without memory for its numbers
        model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family))
    decayed, plain = decay_groups(model, 0.01)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed_names = {names[id(p)] for p in decayed["params"]}
    plain_names = {names[id(p)] for p in plain["params"]}
    assert decayed["weight_decay"] == 0.01 and plain["weight_decay"] == 0
    assert decayed_names | plain_names == set(names.values()) and not decayed_names & plain_names
    assert not [n for n in decayed_names if "norm" in n.lower() or n.endswith("bias")]
    assert not [n for n in plain_names if not ("norm" in n.lower() or n.endswith("bias"))]
    norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert len([n for n in plain_names if "norm" in n.lower()]) == 2 * len(norms) > 20


# ------------------------------------------------------------------------------ training itself
def test_sixteen_reviews_can_be_learned_by_heart(arguments):
    """The quickest proof that loss, gradient, and optimizer belong to one another."""
    args = arguments(*"--epochs 60 --batch-size 8 --lr 2e-3 --warmup 0".split())
    model, examples = make_model(dropout=0.0), make_examples_of_lengths(range(5, 21))
    losses = epoch_losses(train(model, examples, args))
    assert losses[0] > 0.5 and losses[-1] < 0.02
    batch = make_collate(0)(examples)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.equal(logits.argmax(-1), batch["labels"])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_two_runs_with_one_seed_end_in_the_same_weights(arguments, precision):
    """Bit for bit on a CPU, dropout included; with another seed they differ."""
    weights = []
    for seed in ("1", "1", "2"):
        model = make_model()
        args = arguments(*"--epochs 2 --batch-size 4 --accumulate 2 --seed".split(), seed)
        train(model, make_examples_of_lengths([5, 9, 12, 4, 30, 8, 8, 7, 6]), args, precision)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_every_precision_learns(arguments):
    """fp16 goes through the gradient scaler: forget to unscale and clipping stops all learning."""
    for precision in ("fp32", "bf16", "fp16"):
        args = arguments(*"--epochs 50 --batch-size 8 --lr 2e-3".split())
        examples = make_examples_of_lengths(range(5, 21))
        lines = train(make_model(dropout=0.0), examples, args, precision)
        assert epoch_losses(lines)[-1] < 0.1, precision


@pytest.mark.parametrize(
    "head_epochs, train_layers, moving",
    [
        (1, None, [{"head"}, {"head", "layer 1", "layer 2", "embeddings"}]),
        (1, 1, [{"head"}, {"head", "layer 2"}]),
        (0, 0, [{"head"}, {"head"}]),
        (2, None, [{"head"}, {"head"}]),
    ],
)
def test_head_epochs_and_train_layers_move_exactly_their_tensors(
    arguments, head_epochs, train_layers, moving
):
    """Weight decay must not move a frozen tensor either."""
    args = arguments("--epochs", "2", "--lr", "1e-2", "--warmup", "0", "--batch-size", "4")
    args.head_epochs, args.train_layers = head_epochs, train_layers
    model = make_model()
    parts, before = dict(parameter_parts(model)), copy.deepcopy(model.state_dict())
    states = []

    class Watched(Run):
        def checkpoint(self):  # at the end of each epoch
            states.append(copy.deepcopy(model.state_dict()))

    train(model, make_examples_of_lengths([8] * 16), args, run=Watched(args))
    assert len(states) == len(moving) == 2
    for after, expected in zip(states, moving):
        moved = {parts[name] for name in parts if not torch.equal(before[name], after[name])}
        assert moved == expected
        before = after


def test_clipping_limits_the_norm_of_the_whole_gradient(arguments, monkeypatch):
    """Under fp16 too, where the gradient is 65,536 times too large until it is unscaled.

    The gradient is looked at where it is clipped. (In the optimizer's step would be too late: a
    fused AdamW unscales by itself what nobody has unscaled before, so a loop that clips a gradient
    which is still scaled would look right there.)
    """
    clip = torch.nn.utils.clip_grad_norm_
    for precision in ("fp32", "fp16"):
        norms, model, true = [], make_model(loud=True, dropout=0.0), []
        examples = make_examples_of_lengths([6] * 12)

        def clipped(parameters, most, model=model, norms=norms, true=true):
            parameters = list(parameters)
            before = torch.cat([p.grad.flatten() for p in parameters]).norm().item()
            found = clip(parameters, most)
            after = torch.cat([p.grad.flatten() for p in parameters]).norm().item()
            norms.append((before, after))
            return found

        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clipped)
        monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
        args = arguments(*"--epochs 1 --batch-size 4 --clip 0.01".split())
        train(model, examples, args, precision)
        monkeypatch.undo()
        whole = [norm for norm in norms if all(map(math.isfinite, norm))]
        assert whole and all(after == pytest.approx(0.01, rel=1e-3) for _, after in whole)
        # No step was taken, so the first window's gradient can be computed again.
        rows = make_batches([6] * 12, 4, args.seed, epoch=0)[len(norms) - len(whole)]
        batch = make_collate(0)([examples[i] for i in rows])
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        model.zero_grad()
        functional.cross_entropy(logits, batch["labels"]).backward()
        expected = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
        assert whole[0][0] == pytest.approx(expected, rel=0.05), precision


def test_a_loss_that_is_not_a_number_stops_the_run(arguments):
    """One NaN step makes every weight NaN; a run that goes on saves a model that knows nothing."""
    model = make_model()
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="the loss is nan .* at step 1 .epoch 1."):
        train(model, make_examples_of_lengths([6] * 8), arguments("--epochs", "1"))


# ------------------------------------------------------------------------------ the choice
def test_the_epoch_to_keep_is_chosen_by_the_figure_that_was_asked_for():
    """Loss can rise while accuracy rises: which one decides must be the reader's choice."""
    first = {"validation": {"accuracy": 0.80, "macro_f1": 0.70, "loss": 0.4}}
    second = {"validation": {"accuracy": 0.85, "macro_f1": 0.70, "loss": 0.5}}
    assert best_epoch([first], "accuracy") == 1
    assert best_epoch([first, second], "accuracy") == 2
    assert best_epoch([first, second], "loss") == 1
    assert best_epoch([first, second], "f1") == 1
    third = {"validation": {"accuracy": 0.85, "macro_f1": 0.70, "loss": 0.3}}
    assert best_epoch([first, second, third], "accuracy") == 3, "of equals the lower loss"
    assert best_epoch([first, third, third], "f1") == 2, "and of these the earlier"


def test_windows_are_counted_with_their_short_ends():
    """10 micro-batches in windows of 4 are 3 optimizer steps: 4, 4 and 2, none of them lost."""
    assert count_steps(10, 1, 4) == 3
    assert count_steps(1, 16, 8) == 1
    assert count_steps(2000, 16, 1) == 125
    assert count_steps(33, 16, 2) == 2


def test_fp16_may_skip_a_step_but_not_all_of_them(arguments):
    """A run whose every gradient overflows would end with the weights that it began with."""

    def look(norms, fp16):
        run = Run(arguments())
        run.parts = None, None, torch.amp.GradScaler("cpu", enabled=fp16)
        windows = [[[0]]] * 10
        for step, _ in enumerate(run.progress(0, windows, [1], done=0), start=1):
            run.note(step, torch.tensor(0.7), torch.tensor(norms[step - 1]), 1e-5, reviews=1)
        return [line["norm"] for line in run.lines]

    inf = float("inf")
    assert look([inf] * 9 + [1.0], fp16=True) == [None] * 9 + [1.0]
    with pytest.raises(UserError, match="nothing is learned: --precision fp32"):
        look([inf] * 9 + [float("nan")], fp16=True)
    with pytest.raises(UserError, match="norm inf at step 1 .* a tenth of this --lr"):
        look([inf] * 9 + [1.0], fp16=False)


# ------------------------------------------------------------------------------ what is kept
@pytest.mark.parametrize("select, best", [("accuracy", 2), ("loss", 1)])
def test_the_epoch_that_validation_chose_is_kept_and_tested(
    workplace, monkeypatch, tmp_path, select, best
):
    """Not the last one, not each one, and no reading of train or test has a say in it.

    The answers are made up: the second epoch gets most reviews right, the third as many. The first
    is the least sure of itself, so by the loss it is the best.
    """
    prepare, splits, asked = finetune.prepare, {}, []

    def prepared(*args):
        found = prepare(*args)
        splits.update(found[2])
        return found

    def answer(model, examples, *_, **__):
        role = next(role for role in splits if splits[role]["examples"] is examples)
        right, sure = [(2, 0.1), (5, 5.0), (5, 6.0), (1, 7.0), (6, 8.0)][len(asked)]
        logits = functional.one_hot(torch.tensor([e["label"] for e in examples]), 2) * sure
        logits[right:] = logits[right:].flip(1)
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        asked.append((role, weights, logits.tolist()))
        return logits

    monkeypatch.setattr(finetune, "prepare", prepared)
    monkeypatch.setattr(finetune, "predict_logits", answer)
    out, words = tmp_path / "out", "--model encoder --data good.csv --epochs 4 --max-length 20"
    words = [*words.split(), "--batch-size", "8", "--lr", "1e-3", "--select", select, "--out", out]
    done = run_script("finetune.py", *words, cwd=workplace, module=finetune)
    assert done.returncode == 0, done.stderr
    assert [role for role, _, _ in asked] == [*["validation"] * 4, "test"]

    _, weights, logits = asked[best - 1]
    saved, tested = load_file(out / "model.safetensors"), asked[-1][1]
    for name in weights:
        assert torch.equal(saved[name], weights[name]) and torch.equal(tested[name], weights[name])
    assert any(not torch.equal(asked[2][1][name], weights[name]) for name in weights)
    answers = json.loads((out / "answers-validation.json").read_text())
    assert answers["labels"] == splits["validation"]["labels"]
    assert torch.equal(torch.tensor(answers["logits"]), torch.tensor(logits))
    results = json.loads((out / "run.json").read_text())["results"]
    assert results["best_epoch"] == best
    assert results["validation"]["correct"] == {1: 2, 2: 5}[best]


def test_patience_counts_the_epochs_since_the_best_one(arguments):
    """One epoch too early and a run that would still have improved is cut off."""
    args = arguments(*"--epochs 9 --patience 2".split())
    run, examples, over = Run(args), make_examples_of_lengths([5] * 8), []
    assert not run.patience_is_over(), "nothing is done yet"
    for number, accuracy in enumerate((0.7, 0.6, 0.8, 0.8, 0.7), start=1):
        figures = {"accuracy": accuracy, "macro_f1": accuracy, "loss": 0.5}
        run.lines.append({"step": number, "epoch": number, "train_loss": 0.5})
        run.lines[-1]["validation"] = figures
        over.append(bool(run.patience_is_over()))
    assert over == [False, False, False, False, True], "as good as the best is no better"
    assert not [line for line in train(make_model(), examples, args, run=run) if "loss" in line]


def test_the_train_loss_of_an_epoch_counts_each_review_once(arguments):
    """The last window of an epoch may be of a single review: as a window it would weigh as much."""
    run = Run(arguments("--epochs", "1"))
    run.lines = [
        {"step": 1, "epoch": 1, "loss": 1.0, "reviews": 9},
        {"step": 2, "epoch": 1, "loss": 2.0, "reviews": 1},
    ]
    run.add_epoch({"loss": 0.5, "accuracy": 0.5, "macro_f1": 0.5})
    assert run.epochs[0]["train_loss"] == pytest.approx(1.1) and run.epochs[0]["reviews"] == 10


def test_a_validation_loss_that_is_not_a_number_stops_the_run(arguments):
    """All comparisons with NaN are false: such an epoch could be kept as the best."""
    run = Run(arguments("--epochs", "1"))
    run.lines = [{"step": 1, "epoch": 1, "loss": 1.0, "reviews": 9}]
    with pytest.raises(UserError, match="answers nan"):
        run.add_epoch({"loss": float("nan"), "accuracy": 0.5, "macro_f1": 0.5})


def test_what_is_written_of_a_step_is_what_was_done(arguments, monkeypatch):
    """The norm before it is clipped (after it, a plot shows a flat line), the rate, the reviews."""
    rates, step = [], torch.optim.AdamW.step

    def stepping(self):
        rates.append(self.param_groups[0]["lr"])
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", stepping)
    # The rates are so small that no weight moves: every gradient is that of the first weights.
    words = "--epochs 1 --batch-size 2 --accumulate 2 --warmup 0.5 --lr 1e-30 --weight-decay 0"
    found = []
    for clip in ("1e-3", "1e9"):
        args, model = arguments(*words.split(), "--clip", clip), make_model(loud=True, dropout=0.0)
        found.append(train(model, make_examples_of_lengths([5] * 11), args))
    for lines in found:
        assert [line["reviews"] for line in lines] in ([4, 4, 3], [4, 3, 4], [3, 4, 4])
        assert [line["step"] for line in lines] == [1, 2, 3]
    assert [line["rate"] for line in found[0] + found[1]] == rates and len(set(rates)) > 1
    clipped, free = ([line["norm"] for line in lines] for lines in found)
    assert clipped == free and min(free) > 0.01


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_loss_is_computed_in_32_bits_from_logits_of_16(arguments, precision):
    """A sum of losses in 16 bits has two or three digits: small progress would round to none."""
    model, cpu = make_model(loud=True, dropout=0.0), torch.device("cpu")
    args = arguments(*"--epochs 1 --batch-size 16 --lr 1e-30 --weight-decay 0".split())
    examples = make_examples_of_lengths([9] * 16)
    lines = train(model, examples, args, precision)
    (rows,) = make_batches([9] * 16, 16, args.seed, epoch=0)
    batch, losses = make_collate(0)([examples[i] for i in rows]), {}
    for name in ("fp32", precision):
        with torch.no_grad(), autocast(cpu, name):
            logits = model(**{key: batch[key] for key in ("input_ids", "attention_mask")}).logits
        losses[name] = functional.cross_entropy(logits.float(), batch["labels"]).item()
    assert abs(losses["fp32"] - losses[precision]) > 1e-5, "so that the tolerance means something"
    assert lines[0]["loss"] == pytest.approx(losses[precision], abs=1e-6)


def test_every_option_about_data_and_model_reaches_them(workplace, arguments, tmp_path):
    """An option that is parsed, printed and then forgotten costs whoever tries it out a day."""
    data, encoder = tmp_path / "other.csv", str(workplace / "encoder")
    data.write_text((workplace / "good.csv").read_text().replace("text,label", "body,kind"))
    words = f"--model {encoder} --data {data} --text-column body --label-column kind --subset 20 "
    words += "--seed 5 --max-length 6 --truncation tail --dropout 0.3 --attention-dropout 0.2"
    model, tokenizer, splits, facts = finetune.prepare(
        arguments(*words.split()), torch.device("cpu"), "fp32", {}
    )
    how = {"text_column": "body", "label_column": "kind"}
    expected, names, _, source = load_splits(str(data), seed=5, subset=20, **how)
    assert facts["data_fingerprint"] == source.fingerprint and facts["labels"] == names
    assert list(splits) == list(expected) and len(splits["train"]["texts"]) == 20
    for role, split in expected.items():
        ids, lengths = encode(split["texts"], tokenizer, 6, "tail")
        assert max(lengths) > 6 or role != "train", "so that something is cut"
        assert splits[role]["texts"] == split["texts"]
        assert splits[role]["examples"] == make_examples(ids, split["labels"])
    other, _ = load_pretrained(encoder, names, 5, 0.3, 0.2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters()))
    config = model.config
    assert (config.dropout, config.seq_classif_dropout, config.attention_dropout) == (0.3, 0.3, 0.2)


def test_a_step_whose_gradients_overflow_is_left_out(arguments, monkeypatch):
    """Under fp16 that happens until the scale has come down; taken, it makes every weight NaN."""
    scaler, model = torch.amp.GradScaler, make_model(loud=True, dropout=0.0)
    before = copy.deepcopy(model.state_dict())
    huge = {"init_scale": 2.0**60}
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *a, **o: scaler(*a, **huge, **o))
    args = arguments(*"--epochs 1 --batch-size 8 --lr 1e-3 --warmup 0".split())
    lines = train(model, make_examples_of_lengths([6] * 16), args, "fp16")
    assert [line["norm"] for line in lines] == [None, None]
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
