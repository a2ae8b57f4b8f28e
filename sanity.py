"""Appendix P: half a minute before hours.

Teaches   four questions that find most mistakes in training code, and in data: is the first loss
          the one of a guess; can a few reviews be learned by heart; does nothing come of labels
          that mean nothing; does the device compute what the CPU does?
Order     before any long run, also with your own model or your own data.
Run       python finetune.py --sanity
          python finetune.py --sanity --data reviews.csv
Expect    a line for each question, with what it would mean if the answer were no. Exit code 1 then.
          (Karpathy 2019, "A Recipe for Training Neural Networks", has the list that this is from.)
"""

import argparse
import collections
import copy
import math
import random

import torch
from torch.nn import functional

import parallel
from attention import choose_attention
from checkpoint import load_model
from dataset import encode, make_examples
from errors import make_parser, run_command
from evaluate import predict_logits, wilson_interval

SHORT = 48  # tokens: enough for these questions, and quick on any machine


def check_sanity(model, train, examples, names, collate, args, device, precision):
    """Ask all four and print the answers. Returns an exit code.

    train: finetune.train(). examples: {"train": ..., "validation": ...}, lists of dicts with
    "input_ids" and "label". The model is left as it is: copies of it are trained.
    """
    generator = random.Random(args.seed)
    short = {
        role: [row | {"input_ids": shorten(row["input_ids"])} for row in examples[role]]
        for role in ("train", "validation")
    }
    questions = (
        first_loss(model, short["train"], collate, device, names, generator),
        learn_by_heart(model, train, short["train"], collate, args, device, names, generator),
        learn_nothing(model, train, short, collate, args, device, names, generator),
        same_on_device(model, short["train"], collate, device, precision),
    )
    for question, well, answer, otherwise in questions:
        print(
            f"{'ok  ' if well else 'NO  '} {question}: {answer}"
            + ("" if well else f". {otherwise}")
        )
    return 0 if all(well for _, well, _, _ in questions) else 1


def shorten(input_ids):
    """The first ids of a long review, and the one that closes it."""
    return input_ids if len(input_ids) <= SHORT else input_ids[: SHORT - 1] + input_ids[-1:]


def draw_equally(examples, names, count, generator):
    """At most `count` examples, as many of each class, in random order."""
    rows = [[row for row in examples if row["label"] == label] for label in range(len(names))]
    each = min([max(1, count // len(names)), *map(len, rows)])
    chosen = [row for one in rows for row in generator.sample(one, each)]
    generator.shuffle(chosen)
    return chosen


def train_copy(model, train, rows, collate, args, device, **changes):
    """Train a copy of the model in fp32 on some examples. Returns it; the original is untouched."""
    changed = argparse.Namespace(**vars(args) | changes | {"head_epochs": 0, "accumulate": 1})
    model = copy.deepcopy(model)
    for _ in train(model, rows, collate, changed, device, "fp32", progress=False):
        pass
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


def learn_by_heart(model, train, rows, collate, args, device, names, generator):
    """Eight reviews are few enough to remember, if gradient, step and labels belong together."""
    rows = draw_equally(rows, names, 8, generator)
    before, _ = mean_loss(model, rows, collate, device)
    learned = train_copy(
        model, train, rows, collate, args, device, epochs=30, batch_size=len(rows), warmup=0.1
    )
    after, right = mean_loss(learned, rows, collate, device)
    return (
        f"{len(rows)} reviews can be learned by heart in 30 steps",
        right == len(rows) and after < before / 2,
        f"loss {before:.3f} to {after:.3f}, {right} of {len(rows)} right",
        "Nothing will be learned from many then: the learning rate is far too low or too high, too "
        "much is frozen, or the same text has two labels",
    )


def learn_nothing(model, train, short, collate, args, device, names, generator):
    """With other labels there is nothing to find, so new reviews stay at chance.

    Each class's reviews get all labels in turn: shuffled ones could agree with the true ones by
    luck, and teach them. (A label that stands in the text is not found by this: its word is then
    given to another class, too.)
    """
    rows = draw_equally(short["train"], names, 64, generator)
    turn = collections.Counter()
    for number, row in enumerate(rows):
        rows[number] = row | {"label": turn[row["label"]] % len(names)}
        turn[row["label"]] += 1
    learned = train_copy(model, train, rows, collate, args, device, epochs=3, batch_size=16)
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
    here = predict_logits(
        copy.deepcopy(model).to("cpu"), rows, collate, torch.device("cpu"), "fp32"
    )
    difference = (there - here).abs().max().item()
    return (
        f"{device} in {precision} agrees with the CPU in fp32",
        difference < 0.05 * max(1.0, here.abs().max().item()),
        f"logits differ by at most {difference:.2g}",
        "A driver or a kernel computes something else: --precision fp32, or another --device",
    )


# ------------------------------------------------------------------------------ after a run
def reload_best(args, model, tokenizer, texts, expected, collate, device, precision):
    """The model of the best epoch, as it was saved. Raises RuntimeError if it is not the same one.

    expected: the logits [8, C] that it gave for these texts in fp32 before it was saved.
    """
    if parallel.rank() == 0:
        model, tokenizer, _ = load_model(args.out, device)
        choose_attention(model, device, precision)
    parallel.copy_from_first(model)
    input_ids, _ = encode(texts, tokenizer, args.max_length, args.truncation)
    examples = make_examples(input_ids, [0] * len(texts))  # labels that nobody will look at
    difference = (predict_logits(model, examples, collate, device) - expected).abs().max().item()
    # GPUs add up in changing order; a resumed run may have begun on another CPU, and a compiled
    # model computes in another order. "not <=" and not ">", because nan is never larger.
    exact = device.type == "cpu" and not args.resume and not args.compile
    if not difference <= (0 if exact else 1e-4):
        raise RuntimeError(f"{args.out} is not what was saved: logits differ by {difference}")
    print(f"reloaded {args.out}: the same logits (largest difference {difference:.1g})")
    return model


def main():
    make_parser(__doc__).parse_args()
    print("python finetune.py --sanity")


if __name__ == "__main__":
    run_command(main)
