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

import contextlib
import shlex
import signal
import sys
import time

# First: once errors.py is in, Ctrl-C ends in one line, also while torch is imported (seconds).
from errors import UserError, out_of_memory, run_command

import torch
from torch.nn import functional
from tqdm import tqdm

# Chapters and appendices. To read train(), only dataset, hardware, model and optimizer matter; the
# others keep books, and can wait.
import cost
import demo
import parallel
from answers import keep_answers
from attention import choose_attention
from banner import print_plan
from checkpoint import (
    check_tokenizer,
    describe_run,
    save_model,
    weights_fingerprint,
    write_run,
)
from dataset import encode, make_batches, make_collate, make_examples
from evaluate import predict_logits, print_scores, score
from folder import begin, check_free, claim, end, how_to_go_on, prepare_folder
from history import (
    LOOK_EVERY,
    add_epoch,
    epoch_figures,
    epoch_line,
    print_epoch,
    step_lines,
    supervise,
    write_history,
)
from hub import connect_to_hub
from hardware import autocast, choose_hardware, to_device
from model import load_pretrained, load_tokenizer, max_positions, set_trainable
from optimizer import count_steps, decay_groups, phase_of, rate_factor
from plan import parse_arguments
from resume import find_checkpoint, go_on, make_keeper, put_back, signals_seen, take_state
from same_run import check_same, what_matters
from sanity import check_sanity, reload_best
from splits import load_splits, require_all_classes


# ------------------------------------------------------------------------------ the loop
def train(
    model, examples, collate, args, device, precision, foretell=None, resumed=None, progress=True
):
    """Fine-tune `model` in place on `examples` (dicts with "input_ids" and "label").

    A generator: every few steps, and after each epoch, which is one pass over all examples, it
    yields a record, and whoever called it can log, save, validate, or break off: {"lines": for
    history.jsonl, "state": to resume from, "epoch": figures of the epoch, or None in the middle of
    one}. A micro-batch is what fits into memory at once; a window is the `accumulate` micro-batches
    whose gradients are added up to one optimizer step. A gradient says, for every weight, in which
    direction and how steeply the loss rises.
    collate: makes a batch of a list of examples (dataset.py). args: the knobs of plan.py; read here
        are epochs, batch_size, accumulate, lr, warmup, clip, weight_decay, head_epochs,
        train_layers and seed.
    foretell: told of every window; after a few it returns a line that says how long the run will
        take (cost.py).
    resumed: the "state" of a record, to go on after it, with the weights that belong to it.
    progress: show a bar for each epoch.
    On one device, skip the lines with `parallel`: rank is 0, world is 1, and a share is the whole.
    """
    lengths = [len(example["input_ids"]) for example in examples]
    # AdamW keeps two running means for every weight, of its gradient and of the gradient's square,
    # and divides the first by the root of the second: a weight moves by about lr a step, whatever
    # the scale of its gradients is. A frozen weight has no gradient, and AdamW passes it over.
    # fused: in one pass over memory, not in ten.
    groups = decay_groups(model, args.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=args.lr, fused=True)
    # fp16 gradients can be too small to represent. The scaler multiplies the loss, and so all
    # gradients, by a large number (65,536 at first), which is divided out again before the step.
    # For fp32 and bf16 it does nothing.
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    steps_per_epoch = count_steps(len(examples), args.batch_size, args.accumulate)
    # For dropout; the order of the data has a generator of its own. (With torchrun, the processes
    # drop different numbers.)
    torch.manual_seed(args.seed + parallel.rank())
    position = put_back(resumed, optimizer, scaler, device) if resumed else epoch_start(0, 0)
    model.train()  # dropout on: some numbers, drawn anew, are dropped, so none is relied upon

    for epoch in range(position["epoch"], args.epochs):
        # 1. What may move: at first perhaps only the head, so that its random start does not shake
        #    the pretrained layers below it.
        set_trainable(model, 0 if epoch < args.head_epochs else args.train_layers)
        first_step, last_step = phase_of(epoch, args, steps_per_epoch)
        phase_steps = last_step - first_step
        warmup = int(args.warmup * phase_steps)
        batches = make_batches(lengths, args.batch_size, args.seed, epoch)
        # The model itself; under torchrun a wrapper that joins the processes' gradients, made anew
        # because it remembers which parameters train.
        shared = parallel.wrap(model)
        unread, rates = [], []  # of the steps since the last look: losses and norms, learning rates
        started = time.perf_counter() - position["seconds"]

        with tqdm(
            total=len(examples),
            initial=sum(position["window_sizes"]),
            desc=f"epoch {epoch + 1}/{args.epochs}",
            unit=" reviews",
            mininterval=0.5,
            disable=not progress,
        ) as bar:
            # 2. A window: up to `accumulate` micro-batches. The last of an epoch may be shorter.
            for start in range(position["batch"], len(batches), args.accumulate):
                window = batches[start : start + args.accumulate]
                reviews = sum(len(rows) for rows in window)
                window_loss = torch.zeros((), device=device)  # []

                for rows in window:
                    mine = parallel.share(rows)
                    # All processes have to take part in a sum of gradients, also one whose share of
                    # a small batch is empty: it computes a review and counts it 0 times.
                    batch = to_device(collate([examples[i] for i in mine or rows[:1]]), device)
                    # With torchrun the processes add up their gradients once in a window, in the
                    # backward pass of its last micro-batch. (Alone, this changes nothing.)
                    shared.require_backward_grad_sync = rows is window[-1]
                    input_ids = batch["input_ids"]  # [B, T]
                    attention_mask = batch["attention_mask"]  # [B, T]
                    labels = batch["labels"]  # [B]

                    # 3. Forward. The mask goes along, or the model reads the padding.
                    with autocast(device, precision):
                        output = shared(input_ids=input_ids, attention_mask=attention_mask)
                    logits = output.logits  # [B, C]

                    # 4. Cross-entropy is minus the log of the probability given to the right class:
                    #    0 when sure and right, ln 2 = 0.69 for a coin toss between two. Its sum is
                    #    divided by the reviews in the WINDOW. Then the gradients of the
                    #    micro-batches add up to that of one large batch of the same reviews,
                    #    exactly. The usual mean of each micro-batch, divided by `accumulate`, is
                    #    wrong at ragged ends: of 8 + 8 + 8 + 6 reviews each of the 6 would count
                    #    1/24, the others 1/32; and all of a window of one micro-batch would count a
                    #    quarter of what they should.
                    if precision != "fp32":
                        logits = logits.float()  # 16-bit logits: a sum of losses needs more digits
                    loss = functional.cross_entropy(logits, labels, reduction="sum") / reviews  # []
                    loss = loss if mine else loss * 0

                    # 5. Backward adds this micro-batch's gradients to each weight's .grad, and
                    #    frees the intermediate results that forward had kept for it. Times the
                    #    number of processes, because the wrapper takes the mean of their gradients,
                    #    and each holds only its share of the sum.
                    scaler.scale(loss * parallel.world()).backward()
                    window_loss += loss.detach()

                # 6. Clip: the norm is the length of all gradients, taken as one vector. A longer
                #    one is shrunk to args.clip, or one odd window would fill AdamW's running
                #    means: some steps would go its way alone, and many be too small. Unscale
                #    first: under fp16 all is 65,536 times too large until then.
                scaler.unscale_(optimizer)
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)  # []

                # 7. One step. Its rate is a plain function of its number (optimizer.py): nothing to
                #    save for a resume, nothing that can be out of step.
                factor = rate_factor(position["step"] - first_step, warmup, phase_steps)
                for group in optimizer.param_groups:
                    group["lr"] = args.lr * factor
                scaler.step(optimizer)
                scaler.update()
                position["step"] += 1
                position["batch"] = start + len(window)
                position["window_sizes"].append(reviews)
                rates.append(args.lr * factor)

                # 8. Empty the gradients, or the next window would start on top of this one.
                optimizer.zero_grad()

                # 9. Look at the loss now and then only: to read one number, a GPU has to finish all
                #    that it has been given, and then waits for Python to give it more. (Every
                #    process has the same norm, and add_up() below adds them.)
                unread.append(torch.stack([window_loss, norm / parallel.world()]))  # [2]
                bar.update(reviews)
                if foretell and (note := foretell(cost.shapes_of(lengths, window))):
                    bar.write(note)
                if (
                    position["step"] % LOOK_EVERY == 0
                    or position["batch"] == len(batches)
                    or signals_seen  # Ctrl-C has come: yield what there is
                ):
                    seen = parallel.add_up(torch.stack(unread)).tolist()  # [steps, 2]
                    lines = step_lines(seen, rates, position, precision)
                    position["losses"] += [loss for loss, _ in seen]
                    position["seconds"] = time.perf_counter() - started
                    bar.set_postfix(loss=f"{seen[-1][0]:.3f}", refresh=False)
                    unread, rates = [], []
                    state = take_state(position, optimizer, scaler, device)
                    yield {"lines": lines, "state": state, "epoch": None}

        # 10. Over to supervise(), which validates. The train loss may be above the validation
        #     loss: it is a mean over an epoch in which the weights improved, and with dropout.
        yield {
            "lines": [],
            "state": take_state(position, optimizer, scaler, device),
            "epoch": epoch_figures(position, len(examples)),
        }
        position = epoch_start(epoch + 1, position["step"])


def epoch_start(epoch, step):
    """Where train() stands at the start of an epoch.

    step: optimizer steps taken so far, never micro-batches. batch: micro-batches of the epoch.
    losses, window_sizes: of the epoch's steps. seconds: spent in it.
    """
    lists = {"losses": [], "window_sizes": []}
    return {"epoch": epoch, "batch": 0, "step": step, "seconds": 0.0} | lists


# ------------------------------------------------------------------------------ the whole path
def main():
    """Look at the hardware and at --out; then fine_tune(), while nobody else writes there."""
    args = parse_arguments(__doc__)
    device, precision, reasons = choose_hardware(args.device, args.precision)
    parallel.join(device)
    first = parallel.rank() == 0  # with torchrun only one process writes and prints
    if first and not args.sanity:
        prepare_folder(args.out, spare=(args.model, args.data))
        if not args.resume and not args.overwrite:
            check_free(args.out)
    with claim(args.out) if first and not args.sanity else contextlib.nullcontext():
        return fine_tune(args, device, precision, reasons)


def fine_tune(args, device, precision, reasons):
    """The whole path, from the texts to a tested model. Returns an exit code if it was stopped."""
    first = parallel.rank() == 0
    if args.demo and first:
        demo.prepare(args)
        print(demo.NOTICE)
    parallel.wait()
    saved = find_checkpoint(args.out) if args.resume else None
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
    if not saved:  # else the head is about to get the checkpoint's weights
        print(load_note)
    model.to(device)
    choose_attention(model, device, precision)
    run = describe_run(args, names, splits, notes, device, precision, reasons)
    run["data_fingerprint"] = data_fingerprint
    run["weights_fingerprint"] = weights_fingerprint(model)  # before the first step
    steps = count_steps(len(examples["train"]), args.batch_size, args.accumulate)
    print_plan(args, run, model, decay_groups(model, args.weight_decay), steps, lengths["train"])
    flops = cost.count_run(model, args, lengths)
    print(f"work       {cost.in_words(flops)} in matrix products, validation and test included")
    same = what_matters(args, run, examples, model)
    if saved:
        check_same(saved["same"], same, args.out)
        flops *= 1 - go_on(saved, run, model, steps * args.epochs)
    elif args.resume:
        print("resumed    from the beginning: the run was stopped before its first checkpoint")
    if args.compile:
        model.compile(dynamic=True)  # dynamic: one program for every [B, T]

    # 3. Train, or train on.
    collate = make_collate(tokenizer.pad_token_id)
    if args.sanity:
        return check_sanity(model, train, examples, names, collate, args, device, precision)
    fixed = examples["validation"][:8]  # the saved model will have to repeat their logits, in fp32

    def keep_split(role, logits):
        """For report.py: each answer, and not only how many were right."""
        how = {"subset": args.subset, "windows": False, "precision": precision}
        texts, labels = splits[role]["texts"], splits[role]["labels"]
        if problem := keep_answers(args.out, role, logits, labels, lengths[role], texts, how):
            print(problem, file=sys.stderr)

    def judge(figures, diary):
        """Validate an epoch, and save its model if it is the best so far. Returns the new diary."""
        logits = predict_logits(
            model, examples["validation"], collate, device, precision, title="validating"
        )
        if not logits.isfinite().all():
            raise UserError("the model answers nan: try a tenth of this --lr")
        validation = score(logits, splits["validation"]["labels"], names)
        run = add_epoch(diary["run"], figures | {"validation": validation}, args.select)
        better = run["results"]["best_epoch"] == figures["epoch"]
        expected = predict_logits(model, fixed, collate, device) if better else diary["expected"]
        if better and first:
            save_model(args.out, model, tokenizer, run)
            keep_split("validation", logits)
        print_epoch(run["history"][-1], better)
        lines = [*diary["lines"], epoch_line(run["history"][-1])]
        return diary | {"run": run, "lines": lines, "expected": expected}

    # supervise() walks train(), calls judge() after each epoch, and keep() to write a checkpoint.
    # diary: what a checkpoint holds beside weights and optimizer. run: becomes run.json; lines: of
    # history.jsonl; expected: logits [8, C] that the saved model has to repeat; same: what a resume
    # must not change.
    diary = {"run": run, "lines": [], "expected": None, "same": same}
    if saved:
        diary |= {key: saved[key] for key in ("lines", "expected")}
    elif first:
        begin(args.out, vars(args))
    write_history(args.out, diary["lines"])
    keep = make_keeper(args.out, model, args.save_every, saved["number"] if saved else 0)
    foretell = cost.make_foretell(model, flops, device, precision)
    training = train(model, examples["train"], collate, args, device, precision, foretell, saved)
    try:
        with out_of_memory(
            f"--batch-size {max(1, args.batch_size // 2)} --accumulate {2 * args.accumulate} has "
            "as many reviews to a step and half of them at once; a smaller --max-length helps too"
        ):
            diary = supervise(training, diary, judge, keep, args)
        run, expected = diary["run"], diary["expected"]
        with out_of_memory(f"the training is done. {how_to_go_on(args.out)}"):
            # 4. Reload what was saved, and make sure that it is the same model.
            texts = splits["validation"]["texts"][: len(fixed)]
            model = reload_best(args, model, tokenizer, texts, expected, collate, device, precision)

            # 5. The test split, for the first and only time.
            logits = predict_logits(
                model, examples["test"], collate, device, precision, title="testing"
            )
    except KeyboardInterrupt:
        print(f"\nstopped. {how_to_go_on(args.out)}", file=sys.stderr)
        return 128 + (signals_seen or [signal.SIGINT])[-1]
    seconds = sum(record["seconds"] for record in run["history"])
    run["results"] |= {
        "test": score(logits, splits["test"]["labels"], names),
        "reviews_per_second": len(examples["train"]) * len(run["history"]) / seconds,
        "peak_bytes": cost.peak_bytes(device),
    }
    if first:
        keep_split("test", logits)
        write_run(args.out, run)
        end(args.out)
    print_scores(run["results"]["test"], f"test, epoch {run['results']['best_epoch']}")
    folder = "" if args.out == "model" else f" --model {shlex.quote(args.out)}"
    print(f"\nsaved in {args.out}. Next:\n  python evaluate.py{folder}")
    print(f'  python predict.py{folder} "I regret watching this film"')
    if args.demo:
        print(demo.NOTICE)


if __name__ == "__main__":
    run_command(main)
