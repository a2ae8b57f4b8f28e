"""Which run is it? Its folder, from the first minute to the last; and what makes it another run."""

import ast
import contextlib
import hashlib
import json
import os
import platform
import shlex
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from support.errors import UserError
from support.devices import hardware_name, rank, world
from support.files import OURS, digest, only_writer, prepare_folder, read_json, write_whole


# ------------------------------------------------------------------------------ 1. the same run?
def what_matters(args, facts, splits, model, free):
    """{name: value} of everything that has to be the same for a run to go on exactly.

    facts: see describe_run(). splits: with "input_ids", so a changed tokenizer is noticed. free:
    the options that may change. Of the code, comments and docstrings may change.
    """
    options = {name: value for name, value in vars(args).items() if name not in free}
    same = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    same |= {name: version(name) for name in ("torch", "transformers", "tokenizers", "datasets")}
    same["precision"] = facts["device"]["precision"]
    same["the kind of device"] = facts["device"]["type"]
    same["the number of threads (OMP_NUM_THREADS)"] = facts["device"]["threads"]
    same["the number of processes"] = world()
    same["the data (a fingerprint)"] = facts["data_fingerprint"]
    tokens = [split["input_ids"] for split in splits.values()]
    found = [digest(part) for ids in tokens for part in (ids.flat, ids.ends)]
    same["the token ids (a fingerprint)"] = digest(" ".join(found).encode())
    same["the pretrained weights (a fingerprint)"] = facts["weights_fingerprint"]
    same["the model's config.json (a fingerprint)"] = digest(str(model.config).encode())
    support = Path(__file__).resolve().parent
    for module in list(sys.modules.values()):  # the project's loaded files (torch makes one up)
        path = Path(getattr(module, "__file__", None) or "/").resolve()
        if path.suffix == ".py" and path.parent in (support, support.parent) and path.is_file():
            code = code_of(path.read_text(encoding="utf-8"))
            same[f"{path.name} (a fingerprint)"] = digest(code.encode())
    return same


def code_of(source):
    """A program without its comments and docstrings, as text. source: as it stands in the file."""
    tree, described = ast.parse(source), (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, described) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


def check_same(before, now, out):
    """Raise UserError, naming every difference, unless the run that goes on is the one it was."""
    changed = [
        f"{name} was {before.get(name)} and is {now.get(name)}"
        for name in sorted(before | now)
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise UserError(
            f"--resume {out}: this would be another run: {'; '.join(changed)}. Make it the same "
            "again, or start over with --overwrite"
        )


def describe_run(args, names, splits, notes, device, precision, reasons):
    """The dict that becomes run.json; its history and results fill as the run goes on."""
    packages, counts = ("torch", "transformers", "datasets", "tokenizers"), {}
    for role, split in splits.items():
        classes = {name: split["labels"].count(c) for c, name in enumerate(names)}
        counts[role] = {"reviews": len(split["labels"]), "classes": classes}
    return {
        "arguments": vars(args),
        "labels": names,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "device": {
            "type": device.type,
            "name": hardware_name(device),
            "threads": torch.get_num_threads(),
            "precision": precision,
            "reasons": reasons,
        },
        "splits": counts,
        "notes": notes,
        "history": [],
        "results": {},
    }


def weights_fingerprint(model):
    """16 letters of the encoder's weights: which pretrained ones did a run begin with?

    Without the head, and without BERT's pooler, which can be new as well: a seed draws them.
    """
    found = hashlib.sha256()
    for name, tensor in sorted(model.base_model.state_dict().items()):
        if not name.startswith("pooler."):
            found.update(name.encode())
            found.update(tensor.cpu().contiguous().numpy())
    return found.hexdigest()[:16]


# ------------------------------------------------------------------------------ 2. a run's life
def claim(args):
    """For a `with` in which --out is ours: nothing of yours is lost by it, and nobody else writes.

    With torchrun the first process sees to it. Raises UserError.
    """
    if rank() > 0:
        return contextlib.nullcontext()
    out, is_meant = args.out, args.resume or args.overwrite
    prepare_folder(out, spare=(args.model, args.data))
    if is_begun(out) and not is_meant:
        raise UserError(
            f"--out {out}: holds a run that is not done. {how_to_go_on(out)}; or start over with "
            "--overwrite, or choose another folder"
        )
    if is_done(out) and not is_meant:
        raise UserError(f"--out {out}: holds a finished model; choose another, or add --overwrite")
    return only_run(out)


@contextlib.contextmanager
def only_run(folder):
    """Inside this `with`, no other run writes to `folder`. Raises UserError if one does."""
    checkpoints = Path(folder, "checkpoints")
    checkpoints.mkdir(exist_ok=True)
    try:
        with only_writer(checkpoints / ".lock", f"--out {folder}"):
            for name in (*OURS, "checkpoints/arguments.json"):
                path = Path(folder, name)
                for left_over in path.parent.glob(f".{path.name}.*.new"):
                    left_over.unlink()  # of a run that was killed while it wrote
            yield
    finally:
        if not is_begun(folder):  # the run is done, or failed before it had begun
            for path in [*checkpoints.glob("[0-9]*"), *checkpoints.glob(".saving-*")]:
                shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: to be resumed, or another run has begun
            checkpoints.rmdir()


def begin(args, recipe):
    """Write down that a run begins: from here on it can be resumed.

    recipe: of choose_recipe(), left out here and found anew, because nobody has typed it. What an
    older run has left goes first, run.json before the weights: no command may take old weights and
    new figures for one model.
    """
    for path in Path(args.out, "checkpoints").glob("[0-9]*"):
        shutil.rmtree(path)
    for name in OURS:
        if (path := Path(args.out, name)).is_file():
            path.unlink()
    write_whole(Path(args.out, "history.jsonl"), "")
    typed = json.dumps(vars(args) | dict.fromkeys(recipe), indent=2)
    write_whole(Path(args.out, "checkpoints", "arguments.json"), typed)


def end(folder):
    """Write down that the run is done. claim() then removes what was kept to go on with."""
    Path(folder, "checkpoints", "arguments.json").unlink()


def is_begun(folder):
    """Whether `folder` holds a run that has begun and is not done."""
    return Path(folder, "checkpoints", "arguments.json").is_file()


def is_done(folder):
    """Whether `folder` holds a model whose run came to its end."""
    try:
        return "test" in read_json(Path(folder, "run.json"))["results"] and not is_begun(folder)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def read_arguments(folder):
    """A begun run's arguments, as the words of a command line. Raises UserError without any."""
    path = Path(folder, "checkpoints", "arguments.json")
    try:
        given = {k: v for k, v in read_json(path).items() if v is not None and v is not False}
        return [f"--{k.replace('_', '-')}" + f"={v}" * (v is not True) for k, v in given.items()]
    except FileNotFoundError as error:
        raise UserError(f"--resume {folder}: no run has begun there, so none can go on") from error
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged; start over with --overwrite") from error


def how_to_go_on(folder):
    """The command that continues a run."""
    processes, here = (int(os.environ.get(n, 1)) for n in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    start = "python" if processes == 1 else f"torchrun --nproc_per_node={here}"
    if processes > here:  # with the rest of what was typed on each of them
        start = start.replace("torchrun", f"torchrun --nnodes={processes // here}") + " ..."
    return f"To go on: {start} finetune.py --resume {shlex.quote(str(folder))}"
