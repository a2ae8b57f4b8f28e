"""A run's curves in TensorBoard, while it goes on or afterwards.

Teaches   what a finished run leaves behind, and how to take it to a tool that your team has: each
          step and each epoch is a line of history.jsonl, all the rest is in run.json.
After     finetune.py.
Run       pip install -r requirements-extra.txt
          python -m extras.tensorboard model
          tensorboard --logdir model/tensorboard
Expect    a folder of events. A run that is not done yet is followed until it is, or until Ctrl-C.
          The same for MLflow and Weights & Biases, in ten lines each: docs/curves.md.
"""

import time
from pathlib import Path

from extras.kept import command_line, read_history
from support.errors import UserError, extra_packages, make_parser, run_command
from support.runs import is_begun
from support.saved import read_run

# What history.jsonl calls it, and what TensorBoard shall.
STEP = {"loss": "train/loss", "norm": "train/gradient norm", "rate": "train/learning rate"}
EPOCH = {"train_loss": "train/mean loss of an epoch"}
EPOCH |= {f"validation_{name}": f"validation/{name}" for name in ("loss", "accuracy", "macro_f1")}
QUIET = 3600  # seconds without a new line: the run was stopped, or its machine is gone


def new_lines(folder, seen):
    """The lines of history.jsonl behind step `seen`, in their order. Raises UserError."""
    steps, epochs = read_history(folder)
    lines = sorted(steps + epochs, key=lambda line: (line["step"], "train_loss" in line))
    return [line for line in lines if (line["step"], "train_loss" in line) > seen]


def write_lines(writer, lines):
    """Write lines of history.jsonl as scalars, at the number of their optimizer step."""
    for line in lines:
        for key, name in (EPOCH if "train_loss" in line else STEP).items():
            if isinstance(line.get(key), (int, float)):  # a step that fp16 skipped has no norm
                writer.add_scalar(name, line[key], line["step"])


def follow(writer, folder, pause=1.0):
    """Write what is there, then what comes, until the run is done or has been quiet for an hour.

    A run that is resumed takes some steps again. They are the same, so they are not written twice.
    """
    seen, last = (0, False), time.monotonic()
    while True:
        begun = is_begun(folder)  # looked at before the history: nothing comes after the end
        lines = new_lines(folder, seen)
        write_lines(writer, lines)
        writer.flush()
        if lines:
            seen, last = (lines[-1]["step"], "train_loss" in lines[-1]), time.monotonic()
        if not begun or time.monotonic() - last > QUIET:
            return seen[0]
        time.sleep(pause)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("folder", nargs="?", default="model", help="of finetune.py --out")
    args = parser.parse_args()
    if not Path(args.folder, "history.jsonl").is_file():
        raise UserError(f"{args.folder} has no history.jsonl: name a folder of finetune.py --out")
    with extra_packages():
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams
    events = Path(args.folder, "tensorboard")
    for older in events.glob("events.out.tfevents.*"):  # else each point would be there twice
        older.unlink()
    if is_begun(args.folder):
        print(f"{args.folder} is not done: following it (Ctrl-C stops that, and not the run)")
    with SummaryWriter(str(events)) as writer:
        step = follow(writer, args.folder)
        if not is_begun(args.folder):
            run = read_run(args.folder)
            plain = (int, float, str, bool)
            typed = {k: v for k, v in run["arguments"].items() if isinstance(v, plain)}
            test = run["results"].get("test", {})
            found = {f"test/{k}": test[k] for k in ("accuracy", "macro_f1", "loss") if k in test}
            for name, value in found.items():
                writer.add_scalar(name, value, step)
            writer.add_text("command", command_line(run))
            # TensorBoard's table of runs: their options beside what came out. (add_hparams() would
            # write a second file that starts at step 0, and TensorBoard would forget the first.)
            for part in hparams(typed, found):
                writer.file_writer.add_summary(part)
    print(f"{events}: tensorboard --logdir {args.folder} shows it")


if __name__ == "__main__":
    run_command(main)
