"""Chapter 4: the gradient is the one that was promised, and nothing moves that should not."""

import copy
import math

import pytest
import torch
from conftest import epoch_losses, make_examples_of_lengths, make_model, train
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    get_linear_schedule_with_warmup,
)

from dataset import make_batches, make_collate
from finetune import count_steps, decay_groups, rate_factor
from model import parameter_parts
from support.unfinished import Run, best_epoch
from support.errors import UserError

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
    assert best_epoch([first, second], "f1") == 1, "of equals the earlier stays"


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
