"""Files that are whole or not there; folders in which nothing of somebody else's is overwritten."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from support.errors import UserError

# What a run writes. A folder that has one of them, but not from us, is left alone.
OURS = """run.json README.md answers-test.json answers-validation.json checkpoints model.safetensors
config.json history.jsonl model.onnx model-int8.onnx tokenizer.json tokenizer_config.json""".split()


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


@contextlib.contextmanager
def new_folder(parent):
    """A temporary folder in `parent`, for files that belong together until they have their names.

    What is left of it, and of those that killed runs left behind, is removed. Raises UserError with
    the reason if the disk is full.
    """
    temporary = Path(tempfile.mkdtemp(dir=parent, prefix=".saving-"))
    try:
        yield temporary
    except AssertionError:
        raise
    except Exception as error:  # OSError, and what torch and safetensors make of a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{parent}: cannot be saved ({reason}); is the disk full?") from error
    for left_over in Path(parent).glob(".saving-*"):
        shutil.rmtree(left_over, ignore_errors=True)


@contextlib.contextmanager
def whole_files(folder, last):
    """Inside this `with`, write files into the folder that it gives; then they move to `folder`.

    The file named `last` marks the others as belonging together: its old version goes first, its
    new one comes last.
    """
    folder = Path(folder)
    with new_folder(folder) as temporary:
        yield temporary
        for path in temporary.iterdir():  # safetensors lets the owner alone read what it writes
            shutil.copymode(temporary / last, path)
        flush_to_disk(*temporary.iterdir())
        (folder / last).unlink(missing_ok=True)
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == last):
            os.replace(path, folder / path.name)
        flush_to_disk(folder)


def flush_to_disk(*paths):
    """Return when files, or the lists of names of folders, would survive a power cut."""
    for path in paths if os.name != "nt" else filter(Path.is_file, paths):  # Windows: files only
        handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def open_to_append(path):
    """Open a text file to write at its end; not through a link."""
    flags = getattr(os, "O_NOFOLLOW", 0)  # Windows has none
    opener = lambda name, mode: os.open(name, mode | flags, 0o666)  # noqa: E731
    return open(path, "a", encoding="utf-8", newline="", errors="replace", opener=opener)


def read_json(path):
    """What a JSON file holds. (A pipe with its name would keep us waiting for ever.)"""
    if not Path(path).is_file():
        raise FileNotFoundError(path)
    return json.loads(Path(path).read_text(encoding="utf-8"))


def digest(content):
    """16 letters that change when the content does. content: bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def file_digest(path):
    """16 letters that change when a file does."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def content_digest(path):
    """16 letters that change when a file does, or in a folder one of its files, or their names."""
    if Path(path).is_file():
        return file_digest(path)
    inside = sorted(file for file in Path(path).rglob("*") if file.is_file())
    return digest("\n".join(f"{file} {file_digest(file)}" for file in inside).encode())


def model_digest(folder):
    """16 letters that change when the weights in a folder do, in one file or in several."""
    files = sorted(Path(folder).glob("*.safetensors"))
    digests = [file_digest(path) for path in files]
    return digests[0] if len(digests) == 1 else digest("".join(digests).encode())


def seen_from_here(path):
    """A path as whoever reads it elsewhere can use it; on another drive of Windows as it is."""
    try:
        return os.path.relpath(path)
    except ValueError:
        return str(path)


# ------------------------------------------------------------------------------ before the work
def check_target(path, *sources):
    """Raise UserError, now and not after the work, if `path` cannot be written or is read from.

    path: None if nothing is to be written. sources: files that are read or will be written, folders
    of data, and folders of models. Beside the files that a run wrote into a model's folder, others
    may be written, and written again.
    """
    if path is None:
        return
    path, folder = Path(path), Path(path).absolute().parent
    for source in map(Path, filter(None, sources)):
        # Where the name is, and where it leads to if it is a link.
        files, place = (folder.resolve() / path.name, path.resolve()), source.resolve()
        names = [file.name for file in files if file.parent in (place, place / "data")]
        ours = not (source / "run.json").exists() or set(OURS) & set(names)
        same = place in files or path.exists() and source.exists() and path.samefile(source)
        if same or path.exists() and names and ours:
            raise UserError(f"{path} is the file that is read, or named twice; choose another name")
    # A device is no file: renaming over /dev/null would take it away from everybody.
    special = os.path.lexists(path) and not path.is_file()
    if special or not os.access(folder, os.W_OK):
        raise UserError(f"{path} cannot be written: name a file in a folder of yours")


def prepare_folder(folder, spare=()):
    """Make sure, before hours of work, that `folder` can be written and nothing is lost by it.

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
        known = {"arguments", "labels", "splits"} <= set(read_json(folder / "run.json"))
    except (OSError, ValueError, TypeError, RecursionError):
        # No run.json, but traces of a run that was killed: ours too.
        known = any(folder.glob(".saving-*")) or (folder / "checkpoints/arguments.json").is_file()
    for name in () if known else OURS:
        # A run killed at its very start leaves "checkpoints" with nothing but a lock in it.
        nothing = name == "checkpoints" and not set(folder.glob("checkpoints/[!.]*"))
        if (folder / name).exists() and not nothing:
            raise UserError(f"--out {folder}: has a {name} that is not ours; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror
        raise UserError(f"--out {folder}: cannot be written ({reason}); choose another") from error


@contextlib.contextmanager
def only_writer(lock_file, what):
    """Inside this `with`, no other process has the same lock. Raises UserError if one does: `what`.

    It is the operating system's, which frees it when the process ends, however it ends.
    """
    from filelock import FileLock, Timeout  # torch itself brings this package

    try:
        with FileLock(lock_file, timeout=0):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # Windows keeps it while somebody looks at it
                    Path(lock_file).unlink()
    except Timeout as error:
        raise UserError(f"{what}: another run is writing to it; wait, or choose another") from error
