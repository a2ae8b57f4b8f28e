"""Fetching models and data sets from the hub, over a network that may be slow, broken, or absent.

Ask once, wait a little, try again, use the local cache; and if nothing helps, say in one line what
you can do. The libraries alone would try for most of a minute and end in a long traceback.
"""

import functools
import logging
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from tqdm import tqdm

from support.errors import UserError, show

VERBOSE = False  # --verbose: show what the libraries say, harmless or not


# ------------------------------------------------------------------------------ is it there?
def connect_to_hub(*names):
    """Ask whether the hub answers; if it does not, tell the libraries to use their cache only.

    names: what is about to be loaded. If all of them are local paths, the hub is not asked.
    Call it before transformers or datasets is imported: both read HF_HUB_OFFLINE while they are
    imported, and setting it later does nothing. That is why those imports are inside functions.
    """
    if not all(Path(name).exists() for name in names) and not hub_answers():
        os.environ["HF_HUB_OFFLINE"] = "1"


@functools.cache  # one question for a whole run
def hub_answers():
    """Whether the hub answers within four seconds. The libraries would try for 48."""
    if is_offline():
        return False
    answers = []

    def ask():
        try:
            request = urllib.request.Request(hub_address(), method="HEAD")
            answers.append(urllib.request.urlopen(request, timeout=4).status)
        except urllib.error.HTTPError as error:
            answers.append(error.code)  # "not found" is an answer too, "unavailable" (5xx) is not
        except (OSError, ValueError):
            pass

    # In a thread, because looking up a host name has no time limit: it can take half a minute.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(4)
    return bool(answers) and answers[0] < 500


def is_offline():
    """Whether the libraries use their cache only: you asked for it, or the hub did not answer."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def hub_address():
    """The hub's address. HF_ENDPOINT names another one, for example a company's mirror."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


# ------------------------------------------------------------------------------ bring it
TOKENIZER_FILES = ("*.json", "*.txt", "*.model")
WEIGHT_FILES = ("model*.safetensors",)  # no pickles, no weights for other libraries


def fetch_model(name, kinds):
    """Bring a model's files from the hub into the local cache, where transformers will find them.

    kinds: TOKENIZER_FILES, WEIGHT_FILES, or both. A file in the cache is not sent again; without
    a network, the cache has to be enough. Raises an error of one of the libraries' types if it then
    holds no whole tokenizer, because transformers would silently make an empty one.
    """
    connect_to_hub(name)
    if Path(name).exists():
        return
    import huggingface_hub.constants

    files = {}
    if not is_offline():
        try:
            about = patiently(huggingface_hub.model_info, name, files_metadata=True)
            files = {file.rfilename: file.size for file in about.siblings}
        except Exception as error:
            if not is_passing(error) or not is_cached(name):
                raise
            print(f"{hub_address()} fails; the local cache has to do", file=sys.stderr)
    # The progress bar moves once a piece, and a piece has 10 MB: minutes on a slow line.
    huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 1 << 20
    # Weights last. config.json after the tokenizer's files: is_cached() takes it as proof of them.
    wanted = [file for file in files if "/" not in file and any(fnmatch(file, k) for k in kinds)]
    for file in sorted(wanted, key=lambda f: (f.endswith("safetensors"), f == "config.json")):
        if file.endswith("safetensors") and not is_there(name, file):
            say_fetching(f"{file} of {name}", files[file])
        patiently(huggingface_hub.hf_hub_download, name, file, tqdm_class=Fetching)
    if not is_cached(name):
        raise FileNotFoundError(f"the local cache has no whole tokenizer of {name}")


def fetch_data(builder):
    """Bring the files of a data set into the local cache, where datasets will find them.

    builder: of datasets.load_dataset_builder(). datasets would bring them itself, with bars that
    stay on the screen, and without a word on how large they are.
    """
    import huggingface_hub

    if is_offline():
        show("offline", f"{builder.repo_id}, as it was fetched before", file=sys.stderr)
    if is_offline() or Path(builder.cache_dir).exists():
        return
    hub = huggingface_hub.HfFileSystem()
    paths = [path for paths in (builder.config.data_files or {}).values() for path in paths]
    paths = [path for path in paths if str(path).startswith("hf://")]
    sizes = [patiently(hub.info, path).get("size") or 0 for path in paths]
    say_fetching(f"the data set {builder.repo_id}", sum(sizes))
    for path in paths:
        at = patiently(hub.resolve_path, path)
        how = {"repo_type": at.repo_type, "revision": at.revision, "tqdm_class": Fetching}
        patiently(huggingface_hub.hf_hub_download, at.repo_id, at.path_in_repo, **how)


def hide_bars():
    """Let the libraries show no bars, of small files and of seconds of work; ours still show."""
    import datasets
    import huggingface_hub.utils

    if not VERBOSE:
        datasets.disable_progress_bars()
        huggingface_hub.utils.disable_progress_bars()


def say_fetching(what, size):
    """Say what is about to be downloaded. size: in bytes, or 0 where the hub does not say."""
    size = f", {size / 1e6:,.0f} MB" if size else ""
    show("fetching", f"{what}{size}, this once", file=sys.stderr)


class Fetching(tqdm):
    """A download's bar, with speed and time left; it goes away when the file is there."""

    def __init__(self, *args, **options):
        name = options.get("desc", "").rpartition("/")[2]
        super().__init__(*args, **options | {"desc": name, "leave": False, "delay": 0.5})


@contextmanager
def without(library, *phrases):
    """Inside this `with`, messages of a library that hold one of `phrases` are not shown.

    For those that are known to be harmless, and look like an alarm. All others still show; with
    --verbose these as well.
    """

    def shows(record):
        return VERBOSE or not any(phrase in record.getMessage() for phrase in phrases)

    handlers = list(logging.getLogger(library).handlers)
    for handler in handlers:
        handler.addFilter(shows)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(shows)


def is_cached(name):
    """Whether the local cache holds a model's config.json and a vocabulary."""
    kinds = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
    config = is_there(name, "config.json")
    return bool(config) and any(any(Path(config).parent.glob(kind)) for kind in kinds)


def is_there(name, file):
    """The path of a model's file in the local cache, or None."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(name, file)
    return found if isinstance(found, str) else None


def patiently(load, *what, pauses=(1, 2, 4, 8), patience=30, **how):
    """Return load(*what, **how). If the network fails, pause and try again: a bad minute should not
    end a run.

    patience: seconds after which no further try begins. Any other error is raised at once.
    """
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # or the library would report the failure beside our line
    began = time.monotonic()
    for pause in (*pauses, None):
        try:
            return load(*what, **how)
        except Exception as error:
            late = not pause or time.monotonic() + pause - began > patience
            if late or is_offline() or not is_passing(error):
                raise
            print(f"the hub failed ({reason_of(error)}); again in {pause} s", file=sys.stderr)
            time.sleep(pause)


def is_passing(error):
    """Whether it may work in a minute: the network has failed, or the server is overloaded."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return status == 429 or status >= 500
        # Connections break in one of these libraries; which one depends on the versions.
        if isinstance(error, (ConnectionError, TimeoutError)) or type(error).__module__.startswith(
            ("http", "h11", "requests", "urllib3", "aiohttp")
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def reason_of(error):
    """An error in a few words."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"


def hub_error(kind, name, error):
    """The UserError for a model or data set (`kind`) that could not be loaded, for any cause."""
    reason = f"({reason_of(error)})"
    if Path(name).exists():
        return UserError(f"{name}: holds no {kind} that can be loaded {reason}")
    if is_offline():
        return UserError(
            f"no answer from {hub_address()}, and the {kind} {name!r} is not in the local cache: "
            "either rehearse without network (python finetune.py --demo), or give local paths to "
            "--model and --data"
        )
    if is_passing(error):
        return UserError(
            f"{hub_address()} failed while it sent the {kind} {name!r}, and the local cache lacks "
            f"some of it: try again later, files that arrived whole are kept {reason}"
        )
    return UserError(
        f"the {kind} {name!r} could not be loaded: it is neither a local path nor a readable "
        f"{kind} on the hub; check the spelling, or try again {reason}"
    )
