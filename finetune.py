"""Chapter 4 of 5: the loop, in the open.

Teaches   fine-tuning itself: batches in, gradients added up, one careful step, again; a learning
          rate that rises and falls; and how to choose the epoch to keep without touching the test.
Order     after evaluate.py, whose figures choose the epoch; next is predict.py. Read fine_tune()
          first: it is the chapter. Above it stand the four small functions that it asks, below it
          the way from a command to a tested model.
Run       python finetune.py --epochs 3 --subset 2000        real reviews, downloaded once
          python finetune.py --demo                          a rehearsal, nothing to download
          python finetune.py --data reviews.csv --out mine   your own texts and labels
          python finetune.py --help                          every option, and why its default
Files     the folder of --out gets model and tokenizer, run.json (how it was made), history.jsonl
          (loss, norm and rate of each step, figures of each epoch), and the answers to validation
          and test.
Expect    a banner of what follows from your arguments, a progress bar for each epoch, validation
          after each, one reading of the test split, and a folder that evaluate.py and predict.py
          understand. Ctrl-C stops it, and says which command goes on.
Words     The loss says how wrong the answers are. A gradient says, for every weight, in which
          direction and how steeply the loss rises. The optimizer moves each weight a little the
          other way; the learning rate says how far. One such move of all weights is a step. An
          epoch is one pass over all train reviews. A micro-batch is what fits into memory at once.
          A window is the `--accumulate` micro-batches that make one step (and no piece of a long
          text, as in --windows). Torchrun starts one run as several processes, one for each device.
Shows     $ python finetune.py --demo --epochs 1 --subset 160 --out demo-short
          train      160 reviews (80 negative, 80 positive)
          ...
          saved in demo-short. Next:
"""

import math
from collections import Counter

import torch
from torch.nn import functional

from dataset import LINE_BREAK, encode, load_splits, make_batches, make_collate, make_examples
from evaluate import predict_logits, score
from model import autocast, choose_hardware, load_model, load_pretrained, save_model
from model import set_trainable, speed_up, to_device
from support import demo
from support.banner import describe_lengths, print_plan
from support.devices import add_up_gradients, copy_from_first, join, peak_bytes, rank, share, wait
from support.errors import UserError, out_of_memory, run_command
from support.hub import connect_to_hub
from support.options import FREE, choose_recipe, halve, parse_arguments, say_what_next
from support.pretrained import check_tokenizer, load_tokenizer, max_positions
from support.runs import claim, describe_run, end, weights_fingerprint, what_matters
from support.saved import keep_answers, print_scores, write_run
from support.tables import HOW, require_all_classes
from support.unfinished import Run, find_checkpoint


# ------------------------------------------------------------------------------ 1. how far a step
def decay_groups(model, weight_decay):
    """AdamW's two parameter groups: decay for matrices, none for vectors.

    Weight decay pulls weights toward 0: with small ones it is harder to learn single reviews by
    heart. Most of a model is matrices, [out, in], that vectors are multiplied by. A layer norm
    brings the numbers of a vector to one scale, with a learned factor for each, which starts at 1:
    pulled toward 0 it would switch its layer off. These factors are vectors, and so are the biases,
    which are added. So count the dimensions. The usual list of names, "bias" and
    "LayerNorm.weight", misses the factors of 12 of DistilBERT's 13. AdamW: Loshchilov, Hutter 2019.
    """
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    # Every parameter in exactly one group: one that is forgotten would never be trained.
    times = Counter(id(p) for p in decayed + plain)
    wrong = [name for name, p in model.named_parameters() if times[id(p)] != 1]
    assert not wrong, f"not in exactly one group: {wrong}"
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def rate_factor(step, warmup_steps, total_steps):
    """What the learning rate is multiplied by at optimizer step `step` (0, 1, ...).

    It rises from 0 to 1 during warm-up, because AdamW knows nothing of the gradients at first, and
    full steps would spoil pretrained weights. Then it falls in a straight line that would reach 0
    just after the last step: near a good place, large steps would jump about it. The same numbers
    as transformers' get_linear_schedule_with_warmup.
    """
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def phase_of(epoch, args, steps_per_epoch):
    """The optimizer steps [first, last) of the phase that an epoch belongs to.

    A phase is a series of epochs in which the same weights train. With --head-epochs there are two:
    the head alone, then all that is to train. In each the rate rises and falls anew. When layers
    thaw, AdamW knows nothing of them, and a rate near its peak would throw away what they had
    learned. (A phase whose warm-up is shorter than one step begins at the full rate.)
    """
    thaw = min(args.head_epochs, args.epochs)
    first, last = (0, thaw) if epoch < thaw else (thaw, args.epochs)
    return first * steps_per_epoch, last * steps_per_epoch


def count_steps(reviews, batch_size, accumulate):
    """Optimizer steps in an epoch. Round up twice: short batches and short windows count too."""
    return math.ceil(math.ceil(reviews / batch_size) / accumulate)


# ------------------------------------------------------------------------------ 2. the loop
def fine_tune(model, tokenizer, splits, names, args, device, precision, run):
    """Train `model` in place; after each epoch validate it, and save it if it is the best so far.

    splits: {"train": ..., "validation": ...}, dicts of lists as prepare() makes them. Without
        "validation" it only trains (the benchmark does that). names: of the C classes.
    args: the options; read here are epochs, batch_size, accumulate, lr, warmup, clip, weight_decay,
        head_epochs, train_layers, subset, seed, out.
    run: keeps the record (support/unfinished.py). It writes each step's loss to history.jsonl, and
        now and then a checkpoint, so that a stopped run can go on and end with the same weights, to
        the last bit. For that a checkpoint needs all that decides the next step: the weights as
        they stand (not the best so far), AdamW's running means, the scaler's factor, where the
        random numbers of dropout have come to, and the number of the step. Which epochs have been
        validated, and how well, stands in history.jsonl. The order of the data and the learning
        rate need no place on disk. They are functions of the options and of the step.
    Raises UserError (in note()) when the loss is no number any more.
    """
    # A validation split is needed to choose; without one the loop trains and keeps nothing.
    examples, validation = splits["train"]["examples"], splits.get("validation")
    lengths = [len(example["input_ids"]) for example in examples]
    steps_per_epoch = count_steps(len(examples), args.batch_size, args.accumulate)
    collate = make_collate(tokenizer.pad_token_id)

    # AdamW keeps two running means for every weight, of its gradient and of the gradient's square,
    # and divides the first by the root of the second. So a weight moves by about lr a step, whether
    # its gradients are usually large or small. A frozen weight has no gradient: AdamW passes it
    # over, decay and all. fused: in one pass over memory, not in ten.
    optimizer = torch.optim.AdamW(decay_groups(model, args.weight_decay), lr=args.lr, fused=True)
    # fp16 gradients can be too small to represent. The scaler multiplies the loss, and with it all
    # gradients, by a large number (65,536 at first). For fp32 and bf16 it does nothing.
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    # One counter for the whole run: 0, or where a stopped run goes on.
    step = run.restore(model, optimizer, scaler, device)
    scaler.scale(torch.zeros((), device=device))  # sets it up, also where a first share is empty
    model.train()  # dropout is on

    for epoch in range(run.epochs_done, args.epochs):
        if run.patience_is_over():  # --patience epochs have brought none that is better
            break
        # 1. What may move: at first perhaps only the head, so that its random start does not shake
        #    the pretrained layers below it.
        set_trainable(model, 0 if epoch < args.head_epochs else args.train_layers)
        first, last = phase_of(epoch, args, steps_per_epoch)
        warmup = int(args.warmup * (last - first))

        # 2. Windows of up to `accumulate` micro-batches. The last one of an epoch may be shorter.
        #    A resumed run leaves out those that it has `done` of this epoch.
        batches = make_batches(lengths, args.batch_size, args.seed, epoch)
        starts = range(0, len(batches), args.accumulate)
        windows = [batches[start : start + args.accumulate] for start in starts]
        done = step - epoch * steps_per_epoch
        for window in run.progress(epoch, windows, lengths, done):
            reviews = sum(len(rows) for rows in window)
            window_loss = torch.zeros((), device=device)  # []

            # share() gives all rows; under torchrun, where several processes read each micro-batch,
            # only this process's part, which may be none.
            for rows in filter(None, map(share, window)):
                batch = to_device(collate([examples[i] for i in rows]), device)
                input_ids, attention_mask = batch["input_ids"], batch["attention_mask"]  # [B, T]
                labels = batch["labels"]  # [B]

                # 3. Forward. The mask goes along, or the model would read the padding as text.
                with autocast(device, precision):
                    output = model(input_ids=input_ids, attention_mask=attention_mask)
                logits = output.logits  # [B, C]
                if precision != "fp32":
                    logits = logits.float()  # a sum of losses needs more digits than 16 bits have

                # 4. The loss of a review is minus the log of the probability of the right class:
                #    0 when the model is sure and right, ln 2 = 0.69 for a coin toss between two.
                #    (This is cross-entropy. It takes logits, because softmax is part of it.) The
                #    sum of losses is divided by the reviews in the WINDOW. Then the gradients of
                #    the micro-batches add up to exactly that of one large batch of these reviews.
                #    The usual way, the mean of each micro-batch divided by `accumulate`, is wrong
                #    where their sizes differ. With 8 + 8 + 8 + 6 reviews, each of the 6 would count
                #    1/24, the others 1/32, where 1/30 is right. And in a last window of a single
                #    micro-batch, all would count a quarter of what they should.
                loss = functional.cross_entropy(logits, labels, reduction="sum") / reviews  # []

                # 5. Backward. In the forward pass PyTorch has noted every operation. Now it goes
                #    the same way back, from the loss to the weights, by the chain rule, and adds
                #    each weight's gradient to its .grad. Then it frees the notes: memory is needed
                #    for one micro-batch at a time, however many make a window.
                scaler.scale(loss).backward()
                window_loss += loss.detach()  # the number alone, without the notes

            add_up_gradients(model)  # torchrun: those of all processes; alone, this does nothing

            # 6. Clip. The norm is the length of all gradients, taken as one vector. A longer one is
            #    shrunk to args.clip. Otherwise one odd window would stay in AdamW's running means
            #    and decide the direction of many steps after it. Unscale first: under fp16 all
            #    gradients are some 65,536 times too large until then. All would be clipped, and
            #    every window would have the same say, whether its gradient is large or small.
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)  # []

            # 7. One step, at the rate of its number within the phase. With --head-epochs 1 the rate
            #    is 0 at the first step of the first epoch, and again at the first of the second.
            #    (Under fp16 a step with an infinite gradient is skipped, and update() scales less.)
            rate = args.lr * rate_factor(step - first, warmup, last - first)
            for group in optimizer.param_groups:
                group["lr"] = rate
            scaler.step(optimizer)
            scaler.update()
            step += 1

            # 8. Empty the gradients, or the next window would start on top of this one. (Forget it,
            #    and the loss still falls, because step 6 clips what has piled up. Only the norm
            #    shows it.) Then write the step down. (Here Ctrl-C stops, after a checkpoint.)
            optimizer.zero_grad()
            run.note(step, window_loss, norm, rate, reviews)

        # 9. Validate. The train loss may be above the validation loss: it is a mean over an epoch
        #    in which the weights improved, and it was taken with dropout. A new metric goes into
        #    score() in evaluate.py, which puts it into run.json and history.jsonl. To be printed
        #    after each epoch, it goes into print_epoch() in support/banner.py as well.
        run.checkpoint()  # a run that is killed from here on validates again, and loses no step
        if not validation:
            continue
        # Nothing is kept for a backward pass, so a GPU has room for more. (8 is a guess.)
        at_once = None if device.type == "cpu" else min(128, 8 * args.batch_size)
        logits = predict_logits(
            model, validation["examples"], collate, device, precision, at_once, title="validating"
        )  # [N, C]
        figures = score(logits, validation["labels"], names)

        # 10. Keep the best epoch, by validation accuracy (or what --select names: macro F1, loss);
        #     of equals the one with the lower loss. Later epochs may learn the train reviews by
        #     heart and get worse at all others. The test split is not looked at: the best of many
        #     figures is partly luck, so the figure that chooses looks better than it is.
        if run.add_epoch(figures):  # the best so far (torchrun: and this process is the first)
            save_model(args.out, model, tokenizer, run.facts)
            how = {"subset": args.subset, "windows": False, "precision": precision}
            keep_answers(args.out, "validation", logits, validation, how)
        run.checkpoint()


# ------------------------------------------------------------------------------ 3. the whole path
def prepare(args, device, precision, reasons):
    """From the options to all that training needs. Returns (model, tokenizer, splits, facts).

    splits: {role: {"texts", "labels", "input_ids", "lengths", "examples"}}, lists of equal length;
        examples are what collate takes. facts: the dict that becomes run.json. It knows which data
        and which pretrained weights the run began with: an exact repetition needs the same.
    """
    if args.demo and rank() == 0:
        demo.prepare(args)
        print(demo.NOTICE)
    wait()  # torchrun: until the rehearsal's model is there for all
    connect_to_hub(args.model, args.data)
    # Texts, divided by role. The classes' names come from the labels, and go into the model.
    tokenizer = load_tokenizer(args.model)
    how = {name: getattr(args, name) for name in HOW}
    splits, names, notes, source = load_splits(
        args.data, args.seed, args.subset, keep_shares=args.keep_shares, fold=args.fold, **how
    )
    # As they were found: evaluate.py and predict.py will look for them first.
    args.text_column, args.label_column = source.text_column, source.label_column
    require_all_classes(splits, names, notes)
    model, note = load_pretrained(
        args.model, names, args.seed, args.dropout, args.attention_dropout
    )
    if args.max_length > (most := max_positions(model)):
        raise UserError(f"--max-length {args.max_length}: the model has {most} positions")
    # Token ids, once for all epochs. They are padded later, batch by batch.
    for split in splits.values():
        split["input_ids"], split["lengths"] = encode(
            split["texts"], tokenizer, args.max_length, args.truncation, progress=True
        )
        split["examples"] = make_examples(split["input_ids"], split["labels"])
    check_tokenizer(tokenizer, LINE_BREAK, splits["train"]["texts"])
    model.to(device)
    speed_up(model, device, precision)  # less to compute, and the same logits
    steps = count_steps(len(splits["train"]["labels"]), args.batch_size, args.accumulate)
    recipe = choose_recipe(args, steps, len(names), model.config.hidden_size, notes)
    facts = describe_run(args, names, splits, notes, device, precision, reasons)
    facts["steps_per_epoch"], facts["recipe"], facts["head"] = steps, recipe, note
    facts["data_fingerprint"], facts["numbers"] = source.fingerprint, source.classes
    facts["weights_fingerprint"] = weights_fingerprint(model)  # before the first step
    if args.compile:
        model.compile(dynamic=True)  # dynamic: one program for every [B, T]
    return model, tokenizer, splits, facts


def show_plan(args, model, splits, facts):
    """Print what follows from the options, before it costs hours.

    How many reviews of each class there are, what truncation cuts, how many steps there are. With
    --verbose also what padding adds, which weights learn, and which are decayed. Read it: most
    mistakes in a command show here.
    """
    lengths = [len(ids) for ids in splits["train"]["input_ids"]]
    # The first epoch's batches stand for all: how much is padding differs little from epoch to
    # epoch, because the pools are large.
    batches = make_batches(lengths, args.batch_size, args.seed, epoch=0)
    whole = splits["train"]["lengths"]  # before truncation
    facts["shares"] = describe_lengths(whole, args.max_length, batches, args.seed)
    # (set_trainable() sets what it reports; the loop sets it again for each epoch.)
    head, phases = min(args.head_epochs, args.epochs), []
    if head:
        phases.append((f"epochs 1-{head}", set_trainable(model, 0)))
    if head < args.epochs:
        phases.append((f"epochs {head + 1}-{args.epochs}", set_trainable(model, args.train_layers)))
    groups = decay_groups(model, args.weight_decay)
    sizes = [sum(p.numel() for p in group["params"]) for group in groups]
    print_plan(args, facts, sizes, facts["steps_per_epoch"], phases)


def main():
    """The whole path: prepare, show the plan, train, test, save."""
    args = parse_arguments(__doc__)
    device, precision, reasons = choose_hardware(args.device, args.precision)
    join(device)  # torchrun: meet the other processes
    with claim(args):  # nobody else writes to --out meanwhile, and nothing of yours is lost
        saved = find_checkpoint(args.out) if args.resume else None
        model, tokenizer, splits, facts = prepare(args, device, precision, reasons)
        show_plan(args, model, splits, facts)
        # The run's record. A run that goes on has to be the one it was: same options, data, code.
        same = what_matters(args, facts, splits, model, FREE)
        run = Run(args, facts, same, saved, facts["steps_per_epoch"] * args.epochs)
        try:
            with run, out_of_memory(halve(args)):  # run: Ctrl-C waits for the end of a step
                fine_tune(model, tokenizer, splits, facts["labels"], args, device, precision, run)
                # The best epoch's model, as it was saved: what is tested is what you get.
                if rank() == 0:
                    model, tokenizer, _ = load_model(args.out, device, precision)
                copy_from_first(model)
                # The test split, for the first and only time. No choice depends on what comes out:
                # the epoch is chosen, and the options were. If you try other options because of
                # this figure, the test reviews have become a second validation split.
                collate, test = make_collate(tokenizer.pad_token_id), splits["test"]
                at_once = None if device.type == "cpu" else min(128, 8 * args.batch_size)
                logits = predict_logits(
                    model, test["examples"], collate, device, precision, at_once, title="testing"
                )
        except KeyboardInterrupt:
            return run.stopped()
        facts |= run.record()
        facts["results"]["test"] = score(logits, test["labels"], facts["labels"])
        facts["results"]["peak_bytes"] = peak_bytes(device)
        if rank() == 0:
            how = {"subset": args.subset, "windows": False, "precision": precision}
            keep_answers(args.out, "test", logits, test, how)
            write_run(args.out, facts)
            end(args.out)
    how = f", read once, by the model of epoch {facts['results']['best_epoch']}"
    print_scores(facts["results"]["test"], "test", how, facts["history"][-1]["train_loss"])
    say_what_next(args)
    return None


if __name__ == "__main__":
    run_command(main)
