"""Chapter 4 beside transformers' Trainer: the same run, step by step.

What is known of DistilBERT under Trainer then holds here: same losses, same weights. Trainer brings
its own optimizer groups, its own schedule, its own accumulation and clipping; from us it gets only
the order of the reviews, and the loss as a sum over a window divided by its reviews.
"""

import copy
import inspect
import json

import pytest
from conftest import PROJECT, make_examples_of_lengths, make_model, run_script, train
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

import finetune
from dataset import make_batches, make_collate
from finetune import count_steps, decay_groups

WORDS = "--epochs 5 --lr 1e-3 --weight-decay 0.1 --warmup 0.2 --clip 0.5 --batch-size 4".split()


class InOurOrder:
    """A batch sampler that gives the batches of make_batches(), epoch after epoch."""

    def __init__(self, lengths, args):
        self.lengths, self.args, self.epoch = lengths, args, -1

    def __len__(self):
        return len(make_batches(self.lengths, self.args.batch_size, self.args.seed, 0))

    def __iter__(self):
        self.epoch += 1
        return iter(make_batches(self.lengths, self.args.batch_size, self.args.seed, self.epoch))


def train_with_trainer(model, examples, args, folder):
    """Returns the loss of every optimizer step. The model is trained in place."""
    parts, losses = [], []

    def window_loss(outputs, labels, num_items_in_batch=None):
        # Trainer counts the labels of the whole window, so this is a part of the window's mean.
        loss = functional.cross_entropy(outputs.logits, labels, reduction="sum")
        parts.append((loss / num_items_in_batch).item())
        return loss / num_items_in_batch

    class Watch(TrainerCallback):
        def on_step_end(self, *_, **__):
            losses.append(sum(parts))
            parts.clear()

    class Ordered(Trainer):
        def get_train_dataloader(self):
            sampler = InOurOrder([len(e["input_ids"]) for e in examples], args)
            return DataLoader(examples, batch_sampler=sampler, collate_fn=make_collate(0))

    steps = count_steps(len(examples), args.batch_size, args.accumulate) * args.epochs
    Ordered(
        model=model,
        args=TrainingArguments(
            folder,
            num_train_epochs=args.epochs,
            learning_rate=args.lr,
            weight_decay=args.weight_decay,
            warmup_steps=int(args.warmup * steps),
            lr_scheduler_type="linear",
            max_grad_norm=args.clip,
            gradient_accumulation_steps=args.accumulate,
            optim="adamw_torch",
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=examples,
        compute_loss_func=window_loss,
        callbacks=[Watch()],
    ).train()
    return losses


def largest_differences(arguments, folder, family="distilbert", double=False):
    """(of the 20 losses, of all weights) between our loop and Trainer.

    38 reviews in batches of 4 make 10 batches, the last of 2 reviews; windows of 3 batches make 4
    steps an epoch, the last of one batch; five epochs, 20 steps.
    """
    args = arguments(*WORDS, "--accumulate", "3")
    examples = make_examples_of_lengths([3 + 7 * i % 31 for i in range(38)])
    ours = make_model(family, loud=True, dropout=0.0)
    ours = ours.double() if double else ours
    theirs = copy.deepcopy(ours)
    losses = [line["loss"] for line in train(ours, examples, args)]
    expected = train_with_trainer(theirs, examples, args, folder)
    assert len(losses) == len(expected) == 20
    assert max(expected) - min(expected) > 0.1, "nothing was learned, so nothing is compared"
    # The bias of the keys adds the same to all of a token's scores, which softmax takes away again.
    # Its gradient is 0 but for rounding, and AdamW makes steps of full size of whatever it gets. In
    # float64 rounding is too small even for that, so there this bias is compared as well.
    weights, others = ours.state_dict(), theirs.state_dict()
    names = [name for name in weights if double or not name.endswith(("k_lin.bias", "key.bias"))]
    pairs = [(weights[name], others[name]) for name in names]
    return (
        max(abs(a - b) for a, b in zip(losses, expected)),
        max((a - b).abs().max().item() for a, b in pairs),
    )


@pytest.mark.parametrize("family", ["distilbert", "bert"])
def test_twenty_steps_equal_trainers(arguments, tmp_path, family):
    """Every loss to 1e-5, every weight after the last step to 1e-5; windows ragged at the end."""
    loss, weight = largest_differences(arguments, tmp_path, family)
    assert loss < 1e-5 and weight < 1e-5
    loss, weight = largest_differences(arguments, tmp_path, family, double=True)
    assert loss < 1e-6 and weight < 1e-10  # losses are written down in float32


@pytest.mark.parametrize(
    "line, mistake",
    [
        # The commonest: the mean of each micro-batch, divided by N also in a shorter window.
        (', reduction="sum") / reviews', ") / args.accumulate"),
        # By the micro-batches there are: better, but a batch of 2 weighs as much as one of 4.
        (', reduction="sum") / reviews', ") / len(window)"),
        # The rate set for the step after this one.
        (
            "rate_factor(step - first",
            "rate_factor(step + 1 - first",
        ),
        # The gradients not clipped. (To clip before all of a window's are there is as wrong.)
        (
            "clip_grad_norm_(model.parameters(), args.clip)",
            "clip_grad_norm_(model.parameters(), 1e9)",
        ),
    ],
)
def test_a_mistake_in_the_loop_would_be_noticed(arguments, tmp_path, monkeypatch, line, mistake):
    """Write it into a copy of fine_tune(), and it is no longer Trainer's run."""
    source = inspect.getsource(finetune.fine_tune)
    assert source.count(line) == 1
    broken = dict(vars(finetune))
    exec(source.replace(line, mistake), broken)
    monkeypatch.setattr(finetune, "fine_tune", broken["fine_tune"])
    loss, weight = largest_differences(arguments, tmp_path)
    assert loss > 1e-4 and weight > 1e-4


def test_it_would_be_noticed_if_one_norm_were_decayed(arguments, tmp_path, monkeypatch):
    """One vector of 32 numbers in the wrong group."""

    def one_wrong(model, weight_decay):
        decayed, plain = decay_groups(model, weight_decay)
        norm = next(p for name, p in model.named_parameters() if name.endswith("orm.weight"))
        decayed["params"].append(norm)
        plain["params"] = [p for p in plain["params"] if p is not norm]
        return [decayed, plain]

    monkeypatch.setattr(finetune, "decay_groups", one_wrong)
    loss, weight = largest_differences(arguments, tmp_path)
    assert weight > 1e-4


def test_the_peer_in_the_readme_can_be_run(rehearsed):
    """docs/results/trainer.py, with few reviews: its accuracy comes with the n of the command."""
    words = ("--data", PROJECT / "support" / "demo_reviews", "--model", rehearsed[0] / "untrained")
    words += ("--subset", "40", "--epochs", "1", "--test", "50")
    done = run_script("docs.results.trainer", *words)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["n"] == 50 and answer["accuracy"] == answer["correct"] / 50
