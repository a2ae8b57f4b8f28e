"""Chapter 4: the loop, in the open.

Teaches   fine-tuning itself: batches in, gradients accumulated, one careful step, again; a learning
          rate that rises and falls; and how to choose the epoch to keep without touching the test.
Order     after attention.py; next is optimizer.py. Read train() first.
Run       python finetune.py --epochs 3 --subset 2000        real reviews, downloaded once
          python finetune.py --demo                          a rehearsal, nothing to download
          python finetune.py --data reviews.csv --out mine   your own texts and labels
Expect    a banner of what follows from your arguments, a progress bar for each epoch, validation
          after each, one reading of the test split, and a folder that predict.py and evaluate.py
          understand.
"""

import math
import operator
import shlex
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional
from tqdm import tqdm

import cost
import demo
import parallel
from attention import choose_attention
from checkpoint import (
    check_folder,
    check_tokenizer,
    describe_run,
    load_model,
    prepare_folder,
    save_model,
    write_run,
)
from dataset import encode, make_batches, make_collate, make_examples
from errors import UserError, out_of_memory, run_command
from evaluate import predict_logits, print_scores, score
from model import (
    autocast,
    choose_hardware,
    load_pretrained,
    load_tokenizer,
    max_positions,
    set_trainable,
)
from optimizer import count_steps, decay_groups, phase_of, rate_factor
from plan import parse_arguments, print_plan
from sources import connect_to_hub
from splits import load_splits, require_all_classes

LOOK_EVERY = 10  # steps between two looks at the loss


# ------------------------------------------------------------------------------ the loop
def train(model, examples, collate, args, device, precision, foretell=None):
    """Fine-tune `model` in place on `examples` (dicts with "input_ids" and "label").

    A generator: after each epoch, one pass over all examples, it yields a record, and whoever
    called it can validate, save, or break off. A micro-batch is what fits into memory at once; a
    window is the `accumulate` micro-batches whose gradients are added up to one optimizer step. A
    gradient says, for every weight, in which direction and how steeply the loss rises.
    foretell: told of every window; after a few it says how long the run will take (cost.py).
    """
    lengths = [len(example["input_ids"]) for example in examples]
    # AdamW keeps two running means for every weight, of its gradient and of the gradient's square,
    # and divides the first by the root of the second: each weight moves about lr a step, however
    # small its gradient is. A frozen weight has no gradient, and AdamW passes it over.
    # fused: in one pass over memory, not in ten.
    groups = decay_groups(model, args.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=args.lr, fused=True)
    # fp16 gradients can be too small to represent. The scaler multiplies the loss, and so all
    # gradients, by a large number (65,536 at first), which is divided out again before the step.
    # For fp32 and bf16 it does nothing.
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    steps_per_epoch = count_steps(len(examples), args.batch_size, args.accumulate)
    step = 0  # counts optimizer steps, never micro-batches
    # For dropout; the order of the data has its own seed. (With torchrun, the processes drop
    # different numbers. Without it, rank is 0, world is 1, and every share is the whole.)
    torch.manual_seed(args.seed + parallel.rank())
    model.train()  # dropout on: a random tenth of the numbers is dropped, so none is relied upon

    for epoch in range(args.epochs):
        # 1. What may move: at first perhaps only the head, so that its random start does not shake
        #    the pretrained layers below it.
        set_trainable(model, 0 if epoch < args.head_epochs else args.train_layers)
        first_step, last_step = phase_of(epoch, args, steps_per_epoch)
        batches = make_batches(lengths, args.batch_size, args.seed, epoch)
        shared = parallel.wrap(model)  # the model itself, or torchrun's many as one
        window_sizes, losses, unread = [], [], []  # of this epoch; unread: not yet looked at
        started = time.perf_counter()

        with tqdm(
            total=len(examples),
            desc=f"epoch {epoch + 1}/{args.epochs}",
            unit=" reviews",
            mininterval=0.5,
        ) as bar:
            # 2. A window: up to `accumulate` micro-batches. The last of an epoch may be shorter.
            for start in range(0, len(batches), args.accumulate):
                window = batches[start : start + args.accumulate]
                reviews = sum(len(rows) for rows in window)
                window_loss = torch.zeros((), device=device)

                for rows in window:
                    mine = parallel.share(rows)
                    # All processes have to take part in a sum of gradients, also one whose share of
                    # a small batch is empty: it computes a review and counts it 0 times.
                    batch = collate([examples[i] for i in mine or rows[:1]])
                    shared.require_backward_grad_sync = (
                        rows is window[-1]
                    )  # the sum can wait so long
                    input_ids = batch["input_ids"].to(device)  # [B, T]
                    attention_mask = batch["attention_mask"].to(device)  # [B, T]
                    labels = batch["labels"].to(device)  # [B]

                    # 3. Forward. The mask goes along, or the model reads the padding.
                    with autocast(device, precision):
                        output = shared(input_ids=input_ids, attention_mask=attention_mask)
                    logits = output.logits  # [B, C]

                    # 4. Cross-entropy is minus the log of the probability given to the right class:
                    #    0 when sure and right, ln 2 = 0.69 for a coin toss between two. Its sum is
                    #    divided by the reviews in the WINDOW. Then the gradients of the
                    #    micro-batches add up to that of one large batch of the same reviews,
                    #    exactly. Dividing each micro-batch's mean by `accumulate` would give the
                    #    reviews of an incomplete one too much weight, and be wrong altogether in a
                    #    window of fewer micro-batches.
                    if precision != "fp32":
                        logits = logits.float()  # 16-bit logits: a sum of losses needs more digits
                    loss = functional.cross_entropy(logits, labels, reduction="sum") / reviews
                    loss = loss if mine else loss * 0

                    # 5. Backward adds this micro-batch's gradients to each weight's .grad, and
                    #    frees the intermediate results that forward had kept for it.
                    scaler.scale(loss * parallel.world()).backward()
                    window_loss += loss.detach()

                # 6. Clip: one odd window must not throw the weights far away. Unscale first, or
                #    under fp16 the limit would meet gradients that are 65,536 times too large.
                scaler.unscale_(optimizer)
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)

                # 7. One step, with the learning rate of this step.
                phase_steps = last_step - first_step
                factor = rate_factor(step - first_step, int(args.warmup * phase_steps), phase_steps)
                for group in optimizer.param_groups:
                    group["lr"] = args.lr * factor
                scaler.step(optimizer)
                scaler.update()
                step += 1

                # 8. Empty the gradients, or the next window would start on top of this one.
                optimizer.zero_grad()

                # 9. Look at the loss now and then only: to read one number, a GPU has to finish all
                #    that it has been given, and then waits for Python to give it more.
                window_sizes.append(reviews)
                unread.append(torch.stack([window_loss, norm / parallel.world()]))
                bar.update(reviews)
                if step % LOOK_EVERY == 0 or start + args.accumulate >= len(batches):
                    seen = parallel.add_up(torch.stack(unread)).tolist()
                    for number, (loss, norm) in enumerate(seen, start=step - len(seen) + 1):
                        check_finite(loss, norm, precision, epoch, number)
                    losses += [loss for loss, _ in seen]
                    bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
                    unread = []
                if foretell and (note := foretell(cost.shapes_of(lengths, window))):
                    bar.write(note)

        # 10. Over to main(), which asks about reviews that are not trained on. The train loss may
        #     be above theirs: a mean over an epoch in which the weights improved, with dropout.
        seconds = time.perf_counter() - started
        yield {
            "epoch": epoch + 1,
            "optimizer_steps": step,
            # Means over windows; times their reviews, sums again: no window counts too much.
            "train_loss": sum(map(operator.mul, losses, window_sizes)) / len(examples),
            "step_losses": losses,
            "seconds": seconds,
            "reviews_per_second": len(examples) / seconds,
        }


# ------------------------------------------------------------------------------ its parts
def check_finite(loss, norm, precision, epoch, step):
    """Stop on NaN or infinity: one such step makes every weight NaN, for good. step: from 1."""
    # Under fp16 an infinite gradient is a normal event: the scaler skips that step and scales less.
    if math.isfinite(loss) and (math.isfinite(norm) or precision == "fp16"):
        return
    raise UserError(
        f"the loss is {loss} and the gradient's norm {norm} at step {step} "
        f"(epoch {epoch + 1}), so training cannot go on: try a tenth of this --lr, or "
        "--precision fp32. The best epoch before this one, if there was any, is saved"
    )


def is_better(new, best, select):
    """Whether validation figures `new` beat `best` (None at first). Of equals the earlier stays."""
    if best is None:
        return True
    # The loss also counts how sure the wrong answers were, so it can rise while accuracy rises.
    if select == "loss":
        return new["loss"] < best["loss"]
    key = {"accuracy": "accuracy", "f1": "macro_f1"}[select]
    return new[key] > best[key]


# ------------------------------------------------------------------------------ the whole path
def main():
    args = parse_arguments(__doc__)
    device, precision, reasons = choose_hardware(args.device, args.precision)
    parallel.join(device)
    first = parallel.rank() == 0  # with torchrun only one process writes, and join() mutes the rest
    check_folder(stopped_folder(args.out), spare=(args.model, args.data))
    prepare_folder(args.out, spare=(args.model, args.data))
    if args.demo and first:
        demo.prepare(args)
        print(demo.NOTICE)
    parallel.wait()
    connect_to_hub(args.model, args.data)

    # 1. Texts, divided by role, as token ids; and the model that will read them.
    tokenizer = load_tokenizer(args.model)
    splits, names, notes, data_fingerprint = load_splits(
        args.data, args.text_column, args.label_column, args.seed, args.subset
    )
    require_all_classes(splits, names, notes)
    model, load_note = load_pretrained(
        args.model, names, args.seed, args.dropout, args.attention_dropout
    )
    if args.max_length > max_positions(model):
        raise UserError(
            f"--max-length {args.max_length}: the model has {max_positions(model)} positions"
        )
    examples, lengths = {}, {}
    for role, split in splits.items():
        input_ids, lengths[role] = encode(
            split["texts"], tokenizer, args.max_length, args.truncation, progress=True
        )
        examples[role] = make_examples(input_ids, split["labels"])
    check_tokenizer(tokenizer, splits["train"]["texts"])

    # 2. What will happen, before it does.
    print(load_note)
    model.to(device)
    choose_attention(model, device, precision)
    if args.compile:
        model.compile(dynamic=True)  # dynamic: one program for every [B, T]
    run = describe_run(args, names, splits, notes, device, precision, reasons)
    run["data_fingerprint"] = data_fingerprint
    steps = count_steps(len(examples["train"]), args.batch_size, args.accumulate)
    print_plan(args, run, model, decay_groups(model, args.weight_decay), steps, lengths["train"])
    flops = cost.count_run(model, args, lengths)
    print(f"work       {cost.in_words(flops)} in matrix products, validation and test included")
    foretell = cost.make_foretell(model, flops, device, precision)

    # 3. Train; after each epoch ask about the validation reviews, and keep the best epoch on disk.
    collate = make_collate(tokenizer.pad_token_id)
    fixed = examples["validation"][:8]  # the saved model will have to repeat their logits, in fp32
    best, since_best = None, 0
    try:
        with out_of_memory(
            f"--batch-size {max(1, args.batch_size // 2)} --accumulate {2 * args.accumulate} has "
            "as many reviews to a step and half of them at once; a smaller --max-length helps too"
        ):
            for record in train(
                model, examples["train"], collate, args, device, precision, foretell
            ):
                logits = predict_logits(
                    model, examples["validation"], collate, device, precision, title="validating"
                )
                if not logits.isfinite().all():
                    raise UserError("the model answers nan: try a tenth of this --lr")
                figures = score(logits, splits["validation"]["labels"], names)
                run["history"].append(record | {"validation": figures})
                better = is_better(figures, best, args.select)
                print_epoch(record, figures, better)
                since_best = 0 if better else since_best + 1
                if better:
                    best, expected = figures, predict_logits(model, fixed, collate, device)
                    run["results"] = {"best_epoch": record["epoch"], "validation": figures}
                    if first:
                        save_model(args.out, model, tokenizer, run)
                if since_best == args.patience:
                    print(f"stopping early: no better {args.select} in {args.patience} epochs")
                    break
    except KeyboardInterrupt:
        return say_how_to_go_on(args, model, tokenizer, run) if first else 130

    # 4. Reload what was saved, and make sure that it is the same model before anyone relies on it.
    if first:
        model, tokenizer, _ = load_model(args.out, device)
        choose_attention(model, device, precision)
    parallel.copy_from_first(model)
    texts = splits["validation"]["texts"][: len(fixed)]
    input_ids, _ = encode(texts, tokenizer, args.max_length, args.truncation)
    logits = predict_logits(model, make_examples(input_ids, [0] * len(fixed)), collate, device)
    difference = (logits - expected).abs().max().item()
    # GPUs add up in changing order. "not <=" and not ">", because nan is never larger.
    if not difference <= (0 if device.type == "cpu" else 1e-4):
        raise RuntimeError(
            f"{args.out} is not the model that was saved: logits differ by {difference}"
        )
    print(f"reloaded {args.out}: the same logits (largest difference {difference:.1g})")

    # 5. The test split, for the first and only time.
    logits = predict_logits(model, examples["test"], collate, device, precision, title="testing")
    seconds = sum(record["seconds"] for record in run["history"])
    run["results"] |= {
        "test": score(logits, splits["test"]["labels"], names),
        "reviews_per_second": len(examples["train"]) * len(run["history"]) / seconds,
    }
    if first:
        write_run(args.out, run)
    print_scores(run["results"]["test"], f"test, epoch {run['results']['best_epoch']}")
    folder = "" if args.out == "model" else f" --model {shlex.quote(args.out)}"
    print(f"\nsaved in {args.out}. Next:\n  python evaluate.py{folder}")
    print(f'  python predict.py{folder} "I regret watching this film"')
    if args.demo:
        print(demo.NOTICE)


def print_epoch(record, figures, better):
    """One line for an epoch. record: from train(); figures: the validation split's."""
    print(
        f"epoch {record['epoch']}    train loss {record['train_loss']:.4f}   "
        f"validation loss {figures['loss']:.4f}, accuracy {figures['accuracy']:.2%}, "
        f"macro F1 {figures['macro_f1']:.2%}   {'best so far, saved' if better else 'not better'}"
    )


def stopped_folder(out):
    """Where Ctrl-C puts the weights; not --out, which keeps the best epoch so far."""
    return f"{out}-stopped"


def say_how_to_go_on(args, model, tokenizer, run):
    """After Ctrl-C: save the weights as they are, print the command that trains on, return 130."""
    stopped = stopped_folder(args.out)
    left = max(1, args.epochs - len(run["history"]))
    print(f"\nstopped with Ctrl-C; saving the weights as they are in {stopped}", file=sys.stderr)
    prepare_folder(stopped)
    # Without results: those belong to the epoch that was kept, not to these weights.
    save_model(stopped, model, tokenizer, run | {"results": {}})
    if run["results"] and Path(args.out, "run.json").exists():
        print(f"{args.out} holds the best of {len(run['history'])} whole epochs", file=sys.stderr)
    # argparse takes the last of a repeated option, so the new values can stand behind the old ones.
    command = ["python", *sys.argv, "--model", stopped, "--out", f"{args.out}-more"]
    command += ["--epochs", str(left)]
    if args.head_epochs:  # those that are left of them
        command += ["--head-epochs", str(max(0, args.head_epochs - len(run["history"])))]
    print("to train them further (optimizer, warm-up and order start anew):", file=sys.stderr)
    print(f"  {shlex.join(command)}", file=sys.stderr)
    return 130


if __name__ == "__main__":
    run_command(main)
