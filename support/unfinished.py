"""A run that may be stopped at any moment, and goes on as if nothing had happened, to the last bit.

In the folder of a model whose run is not done
    history.jsonl                           the record of the figures, a line a step and an epoch
    checkpoints/arguments.json              what was typed
    checkpoints/7/weights.safetensors       the model as it stands, not the best so far
    checkpoints/7/state.pt                  all else that decides the next step: see checkpoint()
    checkpoints/7/SHA256SUMS                to tell a whole checkpoint from a damaged one
history.jsonl is on disk before a checkpoint gets its name, and the checkpoint notes its length. A
resume cuts it there: the steps behind are taken again, and so are their lines. What happens after a
checkpoint can be repeated, so Ctrl-C may end it at once. Only in mid-step does a signal wait.
"""

import hashlib
import json
import math
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from support.banner import in_words, print_epoch
from support.devices import add_up, put_back_random, random_states, rank, world
from support.errors import Hopeless, UserError, plain
from support.files import digest, flush_to_disk, new_folder, open_to_append
from support.runs import begin, check_same, how_to_go_on

FILES = ("weights.safetensors", "state.pt")
LOOK_EVERY = 10  # steps between two looks at the loss: to read it makes a GPU wait


# ------------------------------------------------------------------------------ 1. the run
class Run:
    """Where a run stands and what it has found; on disk too, if `facts` are given.

    args: select, patience, epochs, seed, save_every and out are read. facts: of describe_run(), the
    dict that becomes run.json. same: of what_matters(). saved: of find_checkpoint(). steps: of the
    whole run. In memory only, it serves tests and the benchmark.
    """

    def __init__(self, args, facts=None, same=None, saved=None, steps=0):
        self.args, self.facts, self.same, self.saved = args, facts, same, saved
        self.writes = facts is not None and rank() == 0  # with torchrun only one process writes
        start = saved or {"step": 0, "number": 0, "lines": [], "seconds": []}
        self.number, self.written = start["number"], time.monotonic()  # the newest checkpoint's
        self.lines, self.seconds = start["lines"], start["seconds"]  # of history, of the epochs
        self.step, self.unread = start["step"], []  # unread: steps whose loss waits to be read
        self.signal, self.in_step = None, False  # signal: the number of the last that has come
        self.told = facts is None  # whether it has said how long it will take
        self.headed = False  # whether the table of epochs has its header
        if saved:
            check_same(saved["same"], same, args.out)
            if saved["machine"] != facts["device"]["name"]:
                machine = plain(saved["machine"])
                print(f"note       begun on another machine ({machine}), which rounds otherwise")
            print(f"resumed    after step {self.step:,}: {self.step / steps:.0%} is done")
        elif facts and args.resume:
            print("resumed    from the beginning: the run was stopped before its first checkpoint")

    def restore(self, model, optimizer, scaler, device):
        """Put everything back as it was. Returns the step to go on with, 0 in a new run."""
        self.parts = model, optimizer, scaler, device
        # For dropout. (With torchrun, the processes drop different numbers.)
        torch.manual_seed(self.args.seed + rank())
        if not self.saved:
            if self.writes:
                begin(self.args, self.facts["recipe"])
            return self.step
        from safetensors.torch import load_model

        try:
            load_model(model, str(self.saved["folder"] / "weights.safetensors"), strict=True)
            optimizer.load_state_dict(self.saved["optimizer"])
            scaler.load_state_dict(self.saved["scaler"])
            put_back_random(device, self.saved["random"])
        except Exception as error:
            raise UserError(f"the checkpoint does not fit this model ({error})") from error
        if self.writes:
            os.truncate(Path(self.args.out, "history.jsonl"), self.saved["history"][0])
        self.saved.clear()  # its tensors may go
        return self.step

    # -------------------------------------------------------------------------- an epoch
    def progress(self, epoch, windows, lengths, done):
        """Yield the windows of an epoch but for the first `done`, with a bar of their reviews.

        windows: lists of micro-batches, which are lists of row numbers. lengths: tokens of rows.
        """
        self.epoch, self.epoch_ends = epoch + 1, self.step - done + len(windows)
        self.seconds += [0.0] * (self.epoch - len(self.seconds))
        self.started = began = time.perf_counter() - self.seconds[-1]
        sizes = [sum(map(len, window)) for window in windows]
        # With padding: what a window takes time for.
        tokens = [sum(len(rows) * max(lengths[i] for i in rows) for rows in w) for w in windows]
        title, so_far = f"epoch {self.epoch}/{self.args.epochs}", sum(sizes[:done])
        how = {"unit": " reviews", "mininterval": 0.5, "leave": False, "initial": so_far}
        with tqdm(None, title, sum(sizes), disable=self.facts is None, **how) as self.bar:
            for number, window in enumerate(windows[done:], start=done):
                self.in_step = True
                yield window
                self.bar.update(sizes[number])
                if number == done + 1:  # the first steps are slow: memory is set aside
                    began = time.perf_counter()
                if number == done + 11 and not self.told:
                    speed = sum(tokens[done + 2 : number + 1]) / (time.perf_counter() - began)
                    left = sum(tokens) * (self.args.epochs - self.epoch) + sum(tokens[number + 1 :])
                    left = f"{in_words(left / speed)} of training are left"
                    self.bar.write(f"time       {left}, if it stays as fast")
                    self.told = True
        self.in_step = False

    def note(self, step, loss, norm, rate, reviews):
        """Write down an optimizer step. loss, norm: []. step: from 1. reviews: in its window.

        Every tenth step it looks at the figures, writes them to history.jsonl, and writes a
        checkpoint when one is due.
        """
        self.step = step
        line = {"step": step, "epoch": self.epoch, "loss": loss, "norm": norm, "rate": rate}
        self.unread.append(line | {"reviews": reviews})
        if step % LOOK_EVERY and step < self.epoch_ends and not self.signal:
            return
        lines, self.unread = self.unread, []
        # Each process knows the loss of its share, and the norm of all: so divide what is added up.
        seen = [torch.stack([line["loss"], line["norm"] / world()]) for line in lines]
        seen = add_up(torch.stack(seen)).tolist()  # [steps, 2]
        self.seconds[-1] = time.perf_counter() - self.started
        fp16 = self.parts[2].is_enabled()
        for line, (loss, norm) in zip(lines, seen):
            # One step with NaN or infinity makes every weight NaN, for good. Under fp16 an infinite
            # gradient is a normal event: the scaler skips that step, and scales less.
            if not math.isfinite(loss) or not (math.isfinite(norm) or fp16):
                raise Hopeless(
                    f"the loss is {loss} and the gradient's norm {norm} at step {line['step']} "
                    f"(epoch {self.epoch}), so training cannot go on: try a tenth of this --lr, or "
                    "--precision fp32. The best epoch before this one, if there was any, is saved"
                )
            line.update(loss=loss, norm=norm if math.isfinite(norm) else None)  # None: for JSON
        # It should not skip all of them, as it does where no scale is small enough.
        if len(lines) >= LOOK_EVERY and all(line["norm"] is None for line in lines):
            what = f"no gradient was a number up to step {step}, so nothing is learned"
            raise Hopeless(f"{what}: --precision fp32")
        self.add_lines(lines)
        self.bar.set_postfix(loss=f"{lines[-1]['loss']:.3f}", refresh=False)
        # All processes write it together, and their clocks differ: the one that writes decides.
        late = self.writes and time.monotonic() - self.written >= 60 * self.args.save_every
        late = add_up(torch.tensor(float(late))).item()
        if self.signal or late and step < self.epoch_ends:  # at its end the loop asks for one
            self.checkpoint()

    def add_epoch(self, figures):
        """Write down an epoch's validation figures. Returns whether this process has to save it.

        It has if this one is the best so far: see best_epoch().
        """
        if not math.isfinite(figures["loss"]):
            raise Hopeless("the model answers nan: try a tenth of this --lr")
        number = self.epochs_done + 1
        steps = [x for x in self.lines if "loss" in x and x["epoch"] == number]
        # A mean over reviews: each window's loss counts as often as it has reviews.
        reviews = sum(x["reviews"] for x in steps)
        loss = sum(x["loss"] * x["reviews"] for x in steps) / reviews
        line = {"step": self.step, "epoch": number, "train_loss": loss, "reviews": reviews}
        line |= {f"validation_{key}": figures[key] for key in ("loss", "accuracy", "macro_f1")}
        self.add_lines([line | {"validation": figures}])
        best = best_epoch(self.epochs, self.args.select)
        if self.facts:
            kept, first = best == number, not self.headed
            print_epoch(self.epochs[-1], self.seconds[number - 1], kept, first)
            self.headed = True
            self.facts |= self.record()
        return best == number and self.writes

    def record(self):
        """{"history": ..., "results": ...} of run.json, from the lines of history.jsonl."""
        history = []
        for line, seconds in zip(self.epochs, self.seconds):
            one = {"epoch": line["epoch"], "optimizer_steps": line["step"]}
            one |= {"train_loss": line["train_loss"], "seconds": seconds}
            one |= {"reviews_per_second": line["reviews"] / seconds}
            history.append(one | {"validation": line["validation"]})
        best = best_epoch(self.epochs, self.args.select)
        results = {"best_epoch": best, "validation": history[best - 1]["validation"]}
        # Of the whole training, validation not counted.
        reviews = sum(line["reviews"] for line in self.epochs)
        results["reviews_per_second"] = reviews / sum(self.seconds[: self.epochs_done])
        return {"history": history, "results": results}

    @property
    def epochs(self):
        """The lines of the epochs that have been validated."""
        return [line for line in self.lines if "train_loss" in line]

    @property
    def epochs_done(self):
        return len(self.epochs)

    def patience_is_over(self):
        """Whether the last --patience epochs brought none that is better."""
        done = self.epochs_done
        over = done and done - best_epoch(self.epochs, self.args.select) == self.args.patience
        if over:
            print(f"stopping early: no better {self.args.select} in {self.args.patience} epochs")
        return over

    # -------------------------------------------------------------------------- on disk
    def add_lines(self, lines):
        """Add lines to history.jsonl. It is closed each time, so what is in it survives a kill."""
        self.lines += lines
        path = Path(self.args.out, "history.jsonl")
        if self.writes:
            try:
                with open_to_append(path) as file:
                    file.writelines(json.dumps(line) + "\n" for line in lines)
            except OSError as error:
                what = f"{path} cannot be written ({error.strerror})"
                raise UserError(f"{what}. {how_to_go_on(self.args.out)}") from error

    def checkpoint(self):
        """Write down all that decides the next step; the checkpoint before it stays, older ones go.

        First all files are written into a folder with another name, and the disk is told to really
        keep them. Then the folder gets its name, in one move: whenever the power fails, what has a
        number is whole. Raises KeyboardInterrupt if a signal has come during the last steps.
        """
        self.in_step = False  # whatever happens from here on can be repeated
        model, optimizer, scaler, device = self.parts
        random = random_states(device)  # of all processes; the rest is for the one that writes
        if not self.writes:
            return
        folder, number = Path(self.args.out, "checkpoints"), self.number + 1
        history = Path(self.args.out, "history.jsonl")
        flush_to_disk(history)
        content = history.read_bytes()
        state = {
            "step": self.step,
            "history": (len(content), digest(content)),
            "seconds": self.seconds,
            "optimizer": optimizer.state_dict(),  # AdamW's two running means
            "scaler": scaler.state_dict(),  # under fp16, by how much losses are multiplied
            "random": random,  # without it the next step drops other numbers
            "same": self.same,
            "machine": self.facts["device"]["name"],
        }
        from safetensors.torch import save_model  # knows that two weights can be one and the same

        try:
            with new_folder(folder) as temporary:
                save_model(model, str(temporary / "weights.safetensors"))
                torch.save(state, temporary / "state.pt")
                (temporary / "SHA256SUMS").write_bytes(checksums(temporary))
                flush_to_disk(*temporary.iterdir())
                # One that was damaged, and passed over, may have this number.
                shutil.rmtree(folder / str(number), ignore_errors=True)
                os.rename(temporary, folder / str(number))
                flush_to_disk(folder)
        except UserError as error:
            raise UserError(f"{error} {how_to_go_on(self.args.out)}") from error
        self.number, self.written = number, time.monotonic()
        for other in set(numbers(self.args.out)) - {number, number - 1}:
            shutil.rmtree(folder / str(other), ignore_errors=True)
        if self.signal:
            raise KeyboardInterrupt

    # -------------------------------------------------------------------------- signals
    def __enter__(self):
        """From here on Ctrl-C and SIGTERM wait for the end of a step; elsewhere they end at once.

        In the middle of a step some weights have moved and others have not. (With torchrun the
        processes would have to agree on a step. There everything ends at once, and goes on from
        the last checkpoint.)
        """

        def signalled(number, frame):
            again, self.signal = self.signal, number
            if not self.in_step:
                raise KeyboardInterrupt
            if again:  # twice: now. SystemExit, because these half-moved weights must not be saved.
                raise SystemExit(128 + number)
            print("\nfinishing this step; Ctrl-C again stops at once", file=sys.stderr)

        both = (signal.SIGINT, signal.SIGTERM) if world() == 1 else ()
        self.handlers = {one: signal.signal(one, signalled) for one in both}
        return self

    def __exit__(self, *error):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def stopped(self):
        """Say which command goes on. Returns the exit code."""
        print(f"\nstopped. {how_to_go_on(self.args.out)}", file=sys.stderr)
        return 128 + (self.signal or signal.SIGINT)


def best_epoch(epochs, select):
    """Which epoch to keep, from 1; of equals the one with the lower loss, or else the earlier.

    epochs: their lines in history.jsonl. select: accuracy, f1 or loss. The loss also counts how
    sure the wrong answers were, so it can rise while accuracy rises. On small and easy data several
    epochs are all right: there it tells the one that has only begun to learn.
    """
    key, sign = {"accuracy": ("accuracy", -1), "f1": ("macro_f1", -1), "loss": ("loss", 1)}[select]
    ranked = [(sign * f[key], f["loss"]) for f in (line["validation"] for line in epochs)]
    return 1 + ranked.index(min(ranked))


# ------------------------------------------------------------------------------ 2. checkpoints
def numbers(out):
    """The numbers of the checkpoints there are, the oldest first."""
    folders = Path(out, "checkpoints").glob("[0-9]*")
    return sorted(int(path.name) for path in folders if path.name.isdecimal())


def checksums(folder):
    """The text of SHA256SUMS, which `sha256sum -c` understands too. bytes."""
    lines = []
    for name in FILES:
        with open(folder / name, "rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines).encode()


def read_checkpoint(out, number):
    """The state of a checkpoint, with "number", "folder" and "lines" of history added.

    None if a byte of it, or of the history before it, is not the one that was written. Raises
    UserError if it is not ours, however whole it is.
    """
    folder = Path(out, "checkpoints", str(number))
    try:
        if checksums(folder) != (folder / "SHA256SUMS").read_bytes():
            return None
        # weights_only: a file of this format can hold a program; like this, it is not run.
        state = torch.load(folder / "state.pt", weights_only=True, map_location="cpu")
        kinds = {"step": int, "history": tuple, "seconds": list, "optimizer": dict}
        kinds |= {"scaler": dict, "random": list, "same": dict, "machine": str}
        if not all(isinstance(state.get(key), kind) for key, kind in kinds.items()):
            raise ValueError("it holds something else")
        history = Path(out, "history.jsonl").read_bytes()[: state["history"][0]]
        if (len(history), digest(history)) != state["history"]:
            return None
        lines = [json.loads(line) for line in history.decode().splitlines()]
    except OSError:  # one of the files is gone
        return None
    except Exception as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{folder / 'state.pt'} is no checkpoint of ours ({reason})") from error
    return state | {"number": number, "folder": folder, "lines": lines}


def find_checkpoint(out):
    """The newest whole checkpoint, as read_checkpoint() gives it; None if none was written yet.

    Raises UserError if there are some and all are damaged: hours of computing start only when
    somebody asks for them.
    """
    found = numbers(out)
    for number in reversed(found):
        if state := read_checkpoint(out, number):
            return state
        print(f"checkpoint {number} in {out}, or its history, is damaged; trying the one before it")
    if found:
        raise UserError(f"--resume {out}: no checkpoint in it is whole; --overwrite starts over")
    return None
