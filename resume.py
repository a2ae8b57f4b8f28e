"""Appendix H: a run that may be stopped at any moment.

Teaches   what has to be written down in the middle of a run so that it can go on as if nothing had
          happened, to the last bit; and how to write it so that a power cut cannot spoil it.
Order     after checkpoint.py, which keeps a finished model; this keeps an unfinished run.
Run       python finetune.py --resume model      goes on with the run that was to make "model"
          python resume.py model                 what there is to go on from
Expect    the step that each checkpoint was written at, and whether it is whole.

A run in progress, in the folder of its model (removed when the run is done)
    checkpoints/arguments.json              what was typed
    checkpoints/7/weights.safetensors       the model as it stands, not the best so far
    checkpoints/7/state.pt                  all else: see take_state()
    checkpoints/7/SHA256SUMS                to tell a whole checkpoint from a damaged one
"""

import contextlib
import copy
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

import parallel
from errors import UserError, make_parser, plain, run_command
from folder import flush_to_disk, how_to_go_on, is_done, read_arguments

FILES = ("weights.safetensors", "state.pt")


# ------------------------------------------------------------------------------ 1. the state
def take_state(position, optimizer, scaler, device):
    """All that decides the next step, beside the weights. Returns a dict that torch.save() takes.

    position   where the loop stands: epoch, micro-batch, optimizer step, the epoch's losses so far.
               The order of the data needs no more: it is a function of (seed, epoch).
    optimizer  AdamW's two running means. Without them the next steps have the wrong size.
    scaler     under fp16, by how much losses are multiplied at present.
    random     where the random numbers of dropout have come to; without it the next step drops
               others. With torchrun, of every process: [processes, bytes].
    The learning rate is not in it: it is a function of the step.
    """
    random = []
    for generator in generators(device):
        mine = generator.get_rng_state()  # uint8 [bytes]
        states = mine.new_zeros(parallel.world(), len(mine))
        states[parallel.rank()] = mine
        random.append(parallel.add_up(states))  # the rows of the others were 0
    return {
        # Its lists grow with every step; a record must not.
        "position": {k: list(v) if isinstance(v, list) else v for k, v in position.items()},
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "random": random,
    }


def generators(device):
    """Where random numbers come from: the CPU's, and the device's own if it is another."""
    return [torch] if device.type == "cpu" else [torch, torch.get_device_module(device)]


def put_back(state, optimizer, scaler, device):
    """The reverse of take_state(). Returns the position."""
    try:
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        for generator, states in zip(generators(device), state["random"], strict=True):
            generator.set_rng_state(states[parallel.rank()].clone())  # torch crashes on a view here
    except Exception as error:
        raise UserError(f"the checkpoint does not fit this model ({error})") from error
    return copy.deepcopy(state["position"])


# ------------------------------------------------------------------------------ 2. on disk
def make_keeper(out, model, minutes, number):
    """Return keep(state, at_once=False), which writes a checkpoint when it is time for one.

    minutes: between checkpoints. number: of the newest one, 0 for none.
    """
    written = time.monotonic()

    def keep(state, at_once=False):
        nonlocal number, written
        if parallel.rank() > 0:
            return
        if at_once or time.monotonic() - written >= 60 * minutes:
            write_checkpoint(out, number + 1, model, state)
            number, written = number + 1, time.monotonic()

    return keep


def write_checkpoint(out, number, model, state):
    """Write checkpoint `number`; the one before it stays, older ones go.

    First all files are written into a folder with another name, and the disk is told to really
    keep them (fsync). Then the folder gets its name, in one move: whenever the power fails, what
    has a number is whole. Raises UserError on a full disk, with the last good one still there.
    """
    from safetensors.torch import save_model  # knows that two weights can be one and the same

    folder = Path(out, "checkpoints")
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".saving-"))
    try:
        save_model(model, str(temporary / "weights.safetensors"))
        torch.save(state, temporary / "state.pt")
        (temporary / "SHA256SUMS").write_bytes(checksums(temporary))
        for path in temporary.iterdir():
            flush_to_disk(path)
        if (folder / str(number)).exists():  # a damaged one, which was passed over
            shutil.rmtree(folder / str(number))
        os.rename(temporary, folder / str(number))
        flush_to_disk(folder)
    except Exception as error:  # OSError, and what torch and safetensors make of it
        raise UserError(
            f"a checkpoint cannot be written to {folder} ({' '.join(str(error).split())[:150]}); "
            f"is the disk full? {how_to_go_on(out)}"
        ) from error
    finally:
        for left_over in folder.glob(".saving-*"):
            shutil.rmtree(left_over, ignore_errors=True)
    for other in set(numbers(out)) - {number, number - 1}:
        shutil.rmtree(folder / str(other), ignore_errors=True)  # one that is being read stays


def checksums(folder):
    """The text of SHA256SUMS, which `sha256sum -c` understands too. bytes."""
    lines = []
    for name in FILES:
        with open(folder / name, "rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines).encode()


def numbers(out):
    """The numbers of the checkpoints there are, the oldest first."""
    folders = Path(out, "checkpoints").glob("[0-9]*")
    return sorted(int(path.name) for path in folders if path.name.isdecimal())


def is_whole(folder):
    """Whether every byte of a checkpoint is the one that was written."""
    try:
        return checksums(folder) == (folder / "SHA256SUMS").read_bytes()
    except OSError:  # one of the files is gone
        return False


def read_state(folder):
    """state.pt of a checkpoint. Raises UserError if it is not ours, however whole it is."""
    try:
        # weights_only: a file of this format can hold a program; like this, it is not run.
        state = torch.load(folder / "state.pt", weights_only=True, map_location="cpu")
        kinds = {"position": dict, "optimizer": dict, "scaler": dict, "random": list, "run": dict}
        kinds |= {"lines": list, "same": dict}
        position = {"epoch": int, "batch": int, "step": int, "losses": list, "window_sizes": list}
        whole = all(isinstance(state.get(key), kind) for key, kind in kinds.items())
        if whole and all(isinstance(state["position"].get(k), v) for k, v in position.items()):
            return state
        reason = "it holds something else"
    except Exception as error:
        reason = " ".join(str(error).split())[:100]
    raise UserError(f"{folder / 'state.pt'} is no checkpoint of ours ({reason})")


def go_on(saved, run, model, steps):
    """Give the model a checkpoint's weights, and `run` (run.json-to-be) its history and results.

    saved: of find_checkpoint(). steps: of the whole run. Returns the share of it that is done.
    """
    from safetensors.torch import load_model

    machine = saved["run"].get("device", {}).get("name")
    if machine != run["device"]["name"]:
        machine = plain(str(machine))
        print(f"note       the run began on another machine ({machine}), which rounds otherwise")
    load_model(model, str(saved["weights"]), strict=True)
    run |= {key: saved["run"][key] for key in ("history", "results")}
    done = saved["position"]["step"] / steps
    print(f"resumed    after step {saved['position']['step']:,}: {done:.0%} is done")
    return done


def find_checkpoint(out):
    """The newest whole checkpoint. Returns its state, with "number" and "weights" (a path) added.

    None if none was written yet. Raises UserError if there are some and all are damaged.
    """
    found = numbers(out)
    for number in reversed(found):
        folder = Path(out, "checkpoints", str(number))
        if is_whole(folder):
            state = read_state(folder)
            return state | {"number": number, "weights": folder / "weights.safetensors"}
        print(f"checkpoint {number} in {folder.parent} is damaged; trying the one before it")
    if found:
        raise UserError(
            f"--resume {out}: no checkpoint in it is whole; start over with --overwrite"
        )
    return None


# ------------------------------------------------------------------------------ 3. Ctrl-C
signals_seen = []  # the numbers of the signals that have come
need_not_wait = []  # not empty inside of interruptible()


def whole_steps(training):
    """Yield what the generator `training` yields; meanwhile Ctrl-C and SIGTERM have to wait.

    In the middle of a step some weights have moved and others have not; between two steps the
    weights may belong to another record than the one at hand. So a signal is only noted, in
    `signals_seen`: train() sees it at the end of the step and yields, and supervise() ends when
    what it holds belongs together. (With torchrun the processes would have to agree on a step.
    There everything ends at once, and goes on from the last checkpoint.)
    """
    signals_seen.clear()
    if parallel.world() > 1:
        yield from training
        return

    def note(number, frame):
        again = bool(signals_seen)
        signals_seen.append(number)
        if need_not_wait:
            raise KeyboardInterrupt
        if again:  # twice: now. SystemExit, because these half-moved weights must not be saved.
            raise SystemExit(128 + number)
        print("\nfinishing this step; Ctrl-C again stops at once", file=sys.stderr)

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, note) for number in signals]
    try:
        yield from training
    finally:
        training.close()
        for number, handler in zip(signals, before):
            signal.signal(number, handler)


@contextlib.contextmanager
def interruptible():
    """Inside this `with`, for work that can be repeated, a signal raises KeyboardInterrupt."""
    try:
        need_not_wait.append(True)
        if signals_seen:
            raise KeyboardInterrupt
        yield
    finally:
        need_not_wait.clear()


def main():
    parser = make_parser(__doc__)
    parser.add_argument("folder", nargs="?", default="model", help="of a run (default: model)")
    out = parser.parse_args().folder
    if is_done(out):
        print(f"{out} is done: there is nothing left to go on with")
        return
    print(plain(" ".join(["arguments:", *read_arguments(out)])))
    for number in numbers(out):
        folder = Path(out, "checkpoints", str(number))
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        if not is_whole(folder):
            print(f"checkpoint {number}: {size:,.0f} MB, damaged")
            continue
        state = read_state(folder)
        position = state["position"]
        print(
            f"checkpoint {number}: {size:,.0f} MB, whole; after step {position['step']} in epoch "
            f"{position['epoch'] + 1}, {len(state['lines']):,} lines of history"
        )
    print(how_to_go_on(out))


if __name__ == "__main__":
    run_command(main)
