"""Appendix I: who may write where.

Teaches   the care that keeps other people's files, and one's own of yesterday, from being lost:
          look before writing, one writer at a time, nothing half-written under its final name.
Order     beside checkpoint.py and resume.py, which both write through it.
Run       python folder.py model
Expect    what the folder holds: a finished model, a run that can go on, neither; and whether
          another run is writing to it right now.
Shows     $ python folder.py demo
          demo holds a finished model
"""

import contextlib
import json
import os
import shlex
import shutil
import tempfile
from pathlib import Path

from errors import UserError, make_parser, run_command

# What a run writes. A folder that has one of them, but not from us, is left alone.
OURS = (
    "README.md",
    "answers-test.json",
    "answers-validation.json",
    "checkpoints",
    "config.json",
    "history.jsonl",
    "model.safetensors",
    "run.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


# ------------------------------------------------------------------------------ whole or not there
def write_whole(path, text):
    """Write a text file so that it is never half there: under another name, and then rename it."""
    # With the number of the process: two programs may write the same file at once.
    temporary = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.new")
    try:
        temporary.unlink(missing_ok=True)
        # "x": only if it is not there. A link with this name would lead our writing elsewhere.
        with open(temporary, "x", encoding="utf-8", newline="", errors="replace") as file:
            file.write(text)
        flush_to_disk(temporary)
        os.replace(temporary, path)  # in one move, whatever happens
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    finally:  # also after Ctrl-C
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def flush_to_disk(path):
    """Return when a file, or a folder's list of names, would survive a power cut."""
    if Path(path).is_dir() and os.name == "nt":
        return  # Windows has no such call for a folder
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path):
    """What a JSON file holds. (A pipe with its name would keep us waiting for ever.)"""
    if not Path(path).is_file():
        raise FileNotFoundError(path)
    return json.loads(Path(path).read_text(encoding="utf-8"))


def seen_from_here(path):
    """A path as whoever reads it elsewhere can use it; on another drive of Windows as it is."""
    try:
        return os.path.relpath(path)
    except ValueError:
        return str(path)


def open_to_append(path):
    """Open a text file to write at its end; not through a link."""
    flags = getattr(os, "O_NOFOLLOW", 0)  # Windows has none
    opener = lambda name, mode: os.open(name, mode | flags, 0o666)  # noqa: E731
    return open(path, "a", encoding="utf-8", newline="", errors="replace", opener=opener)


# ------------------------------------------------------------------------------ before the work
def check_folder(folder, spare=()):
    """Raise UserError if writing to `folder` would overwrite something that is not ours.

    spare: paths that must stay as they are, the pretrained model's and the data's.
    """
    folder = Path(folder)
    if any(Path(path).exists() and folder.resolve() == Path(path).resolve() for path in spare):
        raise UserError(f"--out {folder}: is a folder that is read from; choose another")
    ours = [folder / name for name in (*OURS, "untrained")]
    for path in [*ours, *folder.glob("checkpoints/*"), *folder.glob("untrained/*")]:
        if path.is_symlink():  # it would lead our writing to another place
            raise UserError(f"--out {folder}: {path.name} in it is a link; choose another folder")
    try:
        ours = {"arguments", "labels", "splits"} <= set(read_json(folder / "run.json"))
    except (OSError, ValueError, TypeError, RecursionError):
        # No run.json, but traces of a run that was killed: ours too.
        ours = any(folder.glob(".saving-*")) or is_begun(folder)
    for name in () if ours else OURS:
        # A run killed before begin() leaves "checkpoints" with nothing but a lock in it.
        nothing = name == "checkpoints" and not set(folder.glob("checkpoints/[!.]*"))
        if (folder / name).exists() and not nothing:
            raise UserError(f"--out {folder}: has a {name} that is not ours; choose another folder")


def check_target(path, *sources):
    """Raise UserError, now and not after the work, if `path` cannot be written or is read from."""
    folder = Path(path).absolute().parent
    if Path(path).exists() and any(
        Path(path).samefile(source) or folder.resolve() == Path(source).resolve()
        for source in sources
        if Path(source).exists()
    ):
        raise UserError(f"{path} is the file that is read; choose another name")
    # A device is no file: renaming over /dev/null would take it away from everybody.
    special = path and os.path.lexists(path) and not Path(path).is_file()
    if not path or special or not os.access(folder, os.W_OK):
        raise UserError(
            f"{path or 'an empty name'} cannot be written: name a file in a folder of yours"
        )


def prepare_folder(folder, spare=()):
    """Make sure, before hours of work, that `folder` can be written and nothing is lost by it."""
    check_folder(folder, spare)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"--out {folder}: cannot be written ({error.strerror}); choose another folder"
        ) from error


@contextlib.contextmanager
def only_writer(lock_file, what):
    """Inside this `with`, no other process has the same lock. Raises UserError if one does: `what`.

    It is the operating system's, which frees it when the process ends, however it ends.
    """
    from filelock import FileLock, Timeout  # torch itself brings this package

    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{what}: another run is writing to it; wait, or choose another") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows keeps it while somebody looks at it
            Path(lock_file).unlink()
        lock.release()


@contextlib.contextmanager
def claim(folder):
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


# ------------------------------------------------------------------------------ a run's life
def begin(folder, arguments):
    """Write down that a run begins: from here on it can be resumed. An older one is forgotten.

    arguments: a dict of finetune.py's, by their names in Python.
    """
    for path in Path(folder, "checkpoints").glob("[0-9]*"):
        shutil.rmtree(path)
    for path in Path(folder).glob("answers-*.json"):
        path.unlink()
    write_whole(Path(folder, "checkpoints", "arguments.json"), json.dumps(arguments, indent=2))


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


def main():
    parser = make_parser(__doc__)
    parser.add_argument("folder", nargs="?", default="model", help="of a run (default: model)")
    folder = parser.parse_args().folder
    check_folder(folder)
    if is_begun(folder):
        with claim(folder):
            print(f"{folder} holds a run that is not done. {how_to_go_on(folder)}")
    else:
        print(f"{folder} holds {'a finished model' if is_done(folder) else 'no model of ours'}")


if __name__ == "__main__":
    run_command(main)
