"""Which run is it? Its folder, from the first minute to the last; and what makes it another run."""

import ast
import contextlib
import hashlib
import json
import os
import shlex
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from support.errors import UserError
from support.devices import rank, world
from support.files import OURS, only_writer, prepare_folder, read_json, write_whole


# ------------------------------------------------------------------------------ 1. the same run?
def what_matters(args, facts, splits, model, free):
    """{name: value} of everything that has to be the same for a run to go on exactly.

    facts: see describe_run(). splits: with "input_ids", so a changed tokenizer is noticed. free:
    the options that may change. Of the code, comments and docstrings may change.
    """
    same = {
        f"--{name.replace('_', '-')}": value
        for name, value in vars(args).items()
        if name not in free
    }
    same |= {name: version(name) for name in ("torch", "transformers", "tokenizers", "datasets")}
    same["precision"] = facts["device"]["precision"]
    same["the kind of device"] = facts["device"]["type"]
    same["the number of threads (OMP_NUM_THREADS)"] = facts["device"]["threads"]
    same["the number of processes"] = world()
    same["the data (a fingerprint)"] = facts["data_fingerprint"]
    tokens = json.dumps([split["input_ids"] for split in splits.values()])
    same["the token ids (a fingerprint)"] = digest(tokens)
    same["the pretrained weights (a fingerprint)"] = facts["weights_fingerprint"]
    same["the model's config.json (a fingerprint)"] = digest(str(model.config))
    same |= {f"{name} (a fingerprint)": value for name, value in code_fingerprints().items()}
    return json.loads(json.dumps(same))  # as it comes back from a file


def code_fingerprints():
    """{file of the project that has been loaded: its code's fingerprint}."""
    root, found = Path(__file__).resolve().parent.parent, {}
    for module in list(sys.modules.values()):
        path = Path(getattr(module, "__file__", None) or "/")
        if path.suffix == ".py" and path.is_absolute() and path.parent in (root, root / "support"):
            found[path.name] = digest(code_of(path.read_text(encoding="utf-8")))
    return found


def code_of(source):
    """A program without its comments and docstrings, as text. source: as it stands in the file."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and isinstance(body[:1] and body[0], ast.Expr):
            if isinstance(body[0].value, ast.Constant):
                del body[0]
    return ast.dump(tree)


def digest(text):
    """16 letters that change when the text does."""
    return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()[:16]


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


# ------------------------------------------------------------------------------ 2. a run's life
@contextlib.contextmanager
def claim(args):
    """Inside this `with`, --out is ours: nothing of yours is lost by it, and nobody else writes.

    With torchrun the first process sees to it. Raises UserError.
    """
    if rank() > 0:
        yield
        return
    prepare_folder(args.out, spare=(args.model, args.data))
    if not args.resume and not args.overwrite:
        check_free(args.out)
    with only_run(args.out):
        yield


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
            try:
                yield
            finally:
                if not is_begun(folder):  # the run is done, or failed before it had begun
                    for path in [*checkpoints.glob("[0-9]*"), *checkpoints.glob(".saving-*")]:
                        shutil.rmtree(path, ignore_errors=True)
    finally:
        with contextlib.suppress(OSError):  # not empty: to be resumed, or another run has begun
            checkpoints.rmdir()


def check_free(folder):
    """Raise UserError if `folder` holds a finished model or an unfinished run."""
    if is_begun(folder):
        raise UserError(
            f"--out {folder}: holds a run that is not done. {how_to_go_on(folder)}; or start over "
            "with --overwrite, or choose another folder"
        )
    if is_done(folder):
        raise UserError(
            f"--out {folder}: holds a finished model; choose another folder, or add --overwrite"
        )


def begin(args):
    """Write down that a run begins: from here on it can be resumed.

    What an older run has left goes first, run.json before all else: no command may take old weights
    and new figures for one model.
    """
    for path in Path(args.out, "checkpoints").glob("[0-9]*"):
        shutil.rmtree(path)
    for name in OURS:
        if (path := Path(args.out, name)).is_file():
            path.unlink()
    write_whole(Path(args.out, "history.jsonl"), "")
    typed = json.dumps(vars(args), indent=2)
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
        run = read_json(Path(folder, "run.json"))
        return "test" in run["results"] and not is_begun(folder)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def read_arguments(folder):
    """A begun run's arguments, as the words of a command line. Raises UserError without any."""
    path = Path(folder, "checkpoints", "arguments.json")
    try:
        if not str(folder).strip():
            raise FileNotFoundError
        words = []
        for name, value in read_json(path).items():
            if value is not None and value is not False:
                words.append(f"--{name.replace('_', '-')}")
                words[-1] += "" if value is True else f"={value}"
        return words
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
