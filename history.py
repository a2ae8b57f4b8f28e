"""Appendix J: what a run writes down on its way.

Teaches   to keep the figures of every step and every epoch, so that a curve can be drawn long after
          the terminal is closed; to choose the epoch to keep from them, by one rule; and to log,
          validate and save while train() works.
Order     beside finetune.py, which calls all of it.
Run       python history.py model
Expect    a line for each epoch of a run, and its loss, drawn with letters. history.jsonl itself
          holds more: loss, gradient norm and learning rate of every step.
Shows     $ python history.py demo
          epoch 1   train loss 0.6919   validation loss 0.6588, accuracy 60.33%
          ...
            0.697 |######
            0.349 |############# #
                  +----------------------------------------> steps
"""

import json
import math
import sys
from pathlib import Path

import parallel
from errors import UserError, make_parser, run_command
from folder import how_to_go_on, open_to_append, write_whole
from resume import interruptible, signals_seen, whole_steps

LOOK_EVERY = 10  # steps between two looks of train() at the loss


# ------------------------------------------------------------------------------ 1. lines
def step_lines(seen, rates, position, precision):
    """The lines of history.jsonl for the last steps: dicts.

    seen: [(loss, norm of the gradient before clipping), ...] of these steps. rates: their learning
    rates. position: where the loop stands now. Raises UserError where a loss is no number.
    """
    lines = []
    for step, ((loss, norm), rate) in enumerate(zip(seen, rates), position["step"] - len(seen) + 1):
        check_finite(loss, norm, precision, position["epoch"], step)
        norm = norm if math.isfinite(norm) else None  # JSON has no infinity
        lines.append(
            {"step": step, "epoch": position["epoch"] + 1, "loss": loss, "norm": norm, "rate": rate}
        )
    # Under fp16 the scaler skips a step now and then; all of them, where no scale is small enough.
    if len(lines) >= LOOK_EVERY and all(line["norm"] is None for line in lines):
        raise UserError(
            f"no gradient was a number in the {len(lines)} steps up to step {position['step']}, so "
            "nothing is learned: --precision fp32"
        )
    return lines


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


def epoch_figures(position, reviews):
    """What train() knows of an epoch at its end. position: where it stands; reviews: trained on."""
    # A mean over reviews: each window's loss counts as often as it has reviews.
    sums = (loss * n for loss, n in zip(position["losses"], position["window_sizes"]))
    return {
        "epoch": position["epoch"] + 1,
        "optimizer_steps": position["step"],
        "train_loss": sum(sums) / reviews,
        "seconds": position["seconds"],
        "reviews_per_second": reviews / position["seconds"],
    }


def epoch_line(record):
    """The line for an epoch. record: one of run.json's history."""
    line = {"step": record["optimizer_steps"], "epoch": record["epoch"]}
    line["train_loss"] = record["train_loss"]
    figures = record["validation"]
    return line | {f"validation_{key}": figures[key] for key in ("loss", "accuracy", "macro_f1")}


def write_history(out, lines):
    """Begin history.jsonl. lines: dicts, those that the checkpoint knows; none in a new run.

    A killed run may have written lines after its last checkpoint. The steps are taken again, and
    their lines written again: so no line is there twice, and none is missing.
    """
    if parallel.rank() == 0:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_whole(Path(out, "history.jsonl"), text)


def add_history(out, lines):
    """Add lines to history.jsonl. It is closed each time, so what is in it survives a kill."""
    path = Path(out, "history.jsonl")
    if parallel.rank() == 0:
        try:
            with open_to_append(path) as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror}). {how_to_go_on(out)}"
            ) from error


# ------------------------------------------------------------------------------ 2. the best epoch
def best_epoch(history, select):
    """Which epoch to keep, by its place in the history; of equals the earlier one.

    history: records with "validation", a dict of figures. select: accuracy, f1 or loss. The loss
    also counts how sure the wrong answers were, so it can rise while accuracy rises.
    """
    key = {"accuracy": "accuracy", "f1": "macro_f1", "loss": "loss"}[select]
    sign = -1 if select == "loss" else 1
    figures = [sign * record["validation"][key] for record in history]
    return figures.index(max(figures))


def add_epoch(run, record, select):
    """`run` with one more epoch in its history, and the best one so far in its results."""
    history = [*run["history"], record]
    best = best_epoch(history, select)
    results = {"best_epoch": best + 1, "validation": history[best]["validation"]}
    return run | {"history": history, "results": results}


def print_epoch(record, better):
    """One line for an epoch. record: one of run.json's history. better: whether it is the best."""
    figures = record["validation"]
    print(
        f"epoch {record['epoch']}    train loss {record['train_loss']:.4f}   "
        f"validation loss {figures['loss']:.4f}, accuracy {figures['accuracy']:.2%}, "
        f"macro F1 {figures['macro_f1']:.2%}   {'best so far, saved' if better else 'not better'}"
    )


# ------------------------------------------------------------------------------ 3. on the way
def supervise(training, diary, judge, keep, args):
    """Walk train() to its end; log, judge and save on the way. Returns the diary, now complete.

    diary: what a checkpoint holds beside the weights and the state of train(): "run", which becomes
        run.json; "lines" of history.jsonl; "expected", the logits that the best epoch's model has
        to repeat; "same", see same_run.what_matters().
    judge(figures, diary) validates; keep(state) writes a checkpoint when it is time for one.
    """
    now = None
    try:
        for record in whole_steps(training):
            diary = diary | {"lines": diary["lines"] + record["lines"]}
            now = record["state"] | diary
            add_history(args.out, record["lines"])
            if signals_seen:  # Ctrl-C came in the middle of a step, which is over now
                raise KeyboardInterrupt
            figures = record["epoch"]  # None in mid-epoch
            # A resumed run may yield an epoch that has been judged already.
            fresh = figures and figures["epoch"] > len(diary["run"]["history"])
            if fresh:
                # Before it is judged, too: a run that is killed while it validates, or just after
                # it saved its best model, goes on from these very weights.
                keep(now, at_once=True)
                with interruptible():  # validation may take minutes, and can be repeated
                    judged = judge(figures, diary)
                diary = judged
                add_history(args.out, diary["lines"][-1:])
                now = record["state"] | diary
            keep(now, at_once=bool(fresh))
            if figures and patience_is_over(diary["run"], args):
                print(f"stopping early: no better {args.select} in {args.patience} epochs")
                break
        if signals_seen:  # while the last of these files were written
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        # train() stands still at its yield, so the weights belong to `now`. (With torchrun the
        # signal may have come in mid-step, and the last checkpoint has to do.)
        if now and parallel.world() == 1:
            print(f"\nsaving a checkpoint in {args.out}", file=sys.stderr)
            keep(now, at_once=True)
        raise
    return diary


def patience_is_over(run, args):
    """Whether the last --patience epochs of a run brought none that is better."""
    return len(run["history"]) - run["results"]["best_epoch"] == args.patience


# ------------------------------------------------------------------------------ by itself
def read_history(out):
    """Returns (steps, epochs), the two kinds of lines of history.jsonl, without a torn last one."""
    path = Path(out, "history.jsonl")
    try:
        text = path.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        for line in lines:
            numbers = [line["step"], line["loss"] if "loss" in line else line["train_loss"]]
            if not all(type(x) in (int, float) and math.isfinite(x) for x in numbers):
                raise ValueError(f"{numbers} are no numbers")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    return [x for x in lines if "loss" in x], [x for x in lines if "train_loss" in x]


def main():
    parser = make_parser(__doc__)
    parser.add_argument("folder", nargs="?", default="model", help="of a run (default: model)")
    steps, epochs = read_history(parser.parse_args().folder)
    for line in epochs:
        print(
            f"epoch {line['epoch']:<3} train loss {line['train_loss']:.4f}   validation loss "
            f"{line['validation_loss']:.4f}, accuracy {line['validation_accuracy']:.2%}"
        )
    # One column for each fortieth of the steps; its mean loss as the height, from 0 to the top.
    columns = [steps[i * len(steps) // 40 : (i + 1) * len(steps) // 40] for i in range(40)]
    means = [sum(step["loss"] for step in column) / len(column) for column in columns if column]
    if means:
        print(f"\nloss of {len(steps):,} steps, from {means[0]:.3f} to {means[-1]:.3f}")
        for row in range(8, 0, -1):
            level = max(means) * row / 8
            bars = "".join("#" if mean > level - max(means) / 8 else " " for mean in means)
            print(f"{level:7.3f} |{bars}")
        print(f"        +{'-' * len(means)}> steps")


if __name__ == "__main__":
    run_command(main)
