"""Half a minute before hours: four questions that find most mistakes in training code and in data.

Teaches   to ask, before a long run: is the first loss the one of a guess; can a few reviews be
          learned by heart; does nothing come of labels that mean nothing; does the device compute
          what the CPU does?
After     finetune.py, whose options it takes. Ask it about your own model and your own data, too.
Run       python -m extras.sanity
          python -m extras.sanity --data reviews.csv
Expect    a line for each question, with what it would mean if the answer were no. Exit code 1 then.
          (Karpathy 2019, "A Recipe for Training Neural Networks", has the list that this is from.)
"""

import argparse
import copy
import itertools
import math
import random

import torch
from torch.nn import functional

import finetune
from dataset import make_collate
from evaluate import predict_logits, wilson_interval
from model import choose_hardware
from support.devices import join
from support.options import parse_arguments
from support.unfinished import Run
from support.errors import UserError, run_command

SHORT = 48  # tokens: enough for these questions, and quick on any machine


def check_sanity(model, tokenizer, splits, names, args, device, precision):
    """Ask all four and print the answers. Returns an exit code.

    splits: {"train": ..., "validation": ...} as finetune.prepare() makes them. The model is left as
    it is: copies of it are trained.
    """
    collate = make_collate(tokenizer.pad_token_id)
    generator = random.Random(args.seed)
    short = {
        role: [row | {"input_ids": shorten(row["input_ids"])} for row in splits[role]["examples"]]
        for role in ("train", "validation")
    }
    questions = (
        first_loss(model, short["train"], collate, device, names, generator),
        learn_by_heart(model, tokenizer, short["train"], collate, args, device, names, generator),
        learn_nothing(model, tokenizer, short, collate, args, device, names, generator),
        same_on_device(model, short["train"], collate, device, precision),
    )
    for question, well, answer, otherwise in questions:
        print(f"ok   {question}: {answer}" if well else f"NO   {question}: {answer}. {otherwise}")
    return 0 if all(well for _, well, _, _ in questions) else 1


def shorten(input_ids):
    """The first ids of a long review, and the one that closes it."""
    return input_ids if len(input_ids) <= SHORT else input_ids[: SHORT - 1] + input_ids[-1:]


def draw_equally(examples, names, count, generator):
    """At most `count` examples, as many of each class, in random order."""
    rows = [[row for row in examples if row["label"] == label] for label in range(len(names))]
    rows = [one for one in rows if one]  # in a validation split a rare class may be missing
    each = min([max(1, count // len(names)), *map(len, rows)])
    chosen = [row for one in rows for row in generator.sample(one, each)]
    generator.shuffle(chosen)
    return chosen


def train_copy(model, tokenizer, rows, args, device, names, **changes):
    """Train a copy of the model in fp32 on some examples. Returns it; the original is untouched."""
    changed = argparse.Namespace(**vars(args) | changes | {"head_epochs": 0, "accumulate": 1})
    model, splits = copy.deepcopy(model), {"train": {"examples": rows}}
    finetune.fine_tune(model, tokenizer, splits, names, changed, device, "fp32", Run(changed))
    return model.eval()


def mean_loss(model, rows, collate, device):
    """(mean cross-entropy of some examples in fp32, how many of them are answered right)."""
    logits = predict_logits(model, rows, collate, device)  # [N, C]
    labels = torch.tensor([row["label"] for row in rows])  # [N]
    loss = functional.cross_entropy(logits, labels).item()
    return loss, (logits.argmax(dim=-1) == labels).sum().item()


def first_loss(model, rows, collate, device, names, generator):
    """A new head knows nothing, so it should give each class about 1 / C: a loss of ln C."""
    rows, guess = draw_equally(rows, names, 64, generator), math.log(len(names))
    loss, _ = mean_loss(model, rows, collate, device)
    return (
        "the first loss is that of a guess",
        abs(loss - guess) < 0.25 * guess,
        f"{loss:.3f}, ln {len(names)} = {guess:.3f}",
        "A lower one: the head is not new, or the labels stand in the texts. A higher one: it is "
        "sure of something it cannot know: the wrong number of classes, or too large weights",
    )


def learn_by_heart(model, tokenizer, rows, collate, args, device, names, generator):
    """Eight reviews are few enough to remember, if gradient, step and labels belong together."""
    rows = draw_equally(rows, names, 8, generator)
    before, _ = mean_loss(model, rows, collate, device)
    how = {"epochs": 30, "batch_size": len(rows), "warmup": 0.1}
    learned = train_copy(model, tokenizer, rows, args, device, names, **how)
    after, right = mean_loss(learned, rows, collate, device)
    return (
        f"{len(rows)} reviews can be learned by heart in 30 steps",
        right == len(rows) and after < before / 2,
        f"loss {before:.3f} to {after:.3f}, {right} of {len(rows)} right",
        "Nothing will be learned from many then: the learning rate is far too low or too high, too "
        "much is frozen, or the same text has two labels",
    )


def learn_nothing(model, tokenizer, short, collate, args, device, names, generator):
    """With other labels there is nothing to find, so new reviews stay at chance.

    Each class's reviews get all labels in turn: shuffled ones could agree with the true ones by
    luck, and teach them. (A label that stands in the text is not found by this: its word is then
    given to another class, too.)
    """
    turns = [itertools.cycle(range(len(names))) for _ in names]  # of each class
    rows = draw_equally(short["train"], names, 64, generator)
    rows = [row | {"label": next(turns[row["label"]])} for row in rows]
    learned = train_copy(model, tokenizer, rows, args, device, names, epochs=3, batch_size=16)
    asked = draw_equally(short["validation"], names, 100, generator)
    _, right = mean_loss(learned, asked, collate, device)
    # 99 %: a check that cries wolf once in twenty runs is soon ignored.
    low, high = wilson_interval(right, len(asked), confidence=0.99)
    return (
        "shuffled labels teach nothing",
        low <= 1 / len(names) <= high,
        f"{right} of {len(asked)} validation reviews right, chance is 1 in {len(names)}",
        "It knew the answers before, because its head has been trained; or the loop trains on "
        "other labels than it is given",
    )


def same_on_device(model, rows, collate, device, precision):
    """16 bits round, and GPUs add up in another order; but it has to be the same model."""
    rows = rows[:16]
    there = predict_logits(model, rows, collate, device, precision)
    here = predict_logits(copy.deepcopy(model).to("cpu"), rows, collate, torch.device("cpu"))
    difference = (there - here).abs().max().item()
    return (
        f"{device} in {precision} agrees with the CPU in fp32",
        difference < 0.05 * max(1.0, here.abs().max().item()),
        f"logits differ by at most {difference:.2g}",
        "A driver or a kernel computes something else: --precision fp32, or another --device",
    )


def main():
    args = parse_arguments(__doc__)
    if args.resume or args.overwrite:
        raise UserError("these questions are about a new run: leave out --resume and --overwrite")
    device, precision, reasons = choose_hardware(args.device, args.precision)
    join(device)
    model, tokenizer, splits, facts = finetune.prepare(args, device, precision, reasons)
    return check_sanity(model, tokenizer, splits, facts["labels"], args, device, precision)


if __name__ == "__main__":
    run_command(main)
