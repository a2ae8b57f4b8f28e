"""Appendix L: the hub, on good days and on bad ones.

Teaches   how to use a network that may be slow, broken, or not there: ask once, wait a little, try
          again, take what is in the cache, and say in one line what to do when nothing helps.
Order     before or after sources.py; model.py and sources.py fetch through it.
Run       python hub.py distilbert-base-uncased
Expect    whether the hub answers; a model's tokenizer, fetched if it was not in the local cache
          yet; and where in the cache it lies.
"""

import fnmatch
import functools
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from errors import UserError, make_parser, run_command


# ------------------------------------------------------------------------------ is it there?
def connect_to_hub(*names):
    """Ask whether the hub answers; if it does not, tell the libraries to use their cache only.

    names: what is about to be loaded; where all of them are local paths, nobody is asked.
    Call it before transformers or datasets is imported: both read HF_HUB_OFFLINE while they are
    imported, and setting it later does nothing. That is why those imports stand inside functions.
    """
    if not all(Path(name).exists() for name in names) and not hub_answers():
        os.environ["HF_HUB_OFFLINE"] = "1"


@functools.cache  # asked once in a run
def hub_answers(patience=4):
    """Whether the hub answers within `patience` seconds. The libraries would try for 48 s."""
    if is_offline():
        return False
    answers = []

    def ask():
        try:
            request = urllib.request.Request(hub_address(), method="HEAD")
            answers.append(urllib.request.urlopen(request, timeout=patience).status)
        except urllib.error.HTTPError as error:
            answers.append(error.code)  # "not found" is an answer too; "unavailable" (5xx) is none
        except (OSError, ValueError):
            pass

    # In a thread, because looking up a name knows no time limit and can hang for half a minute.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(patience)
    return bool(answers) and answers[0] < 500


def is_offline():
    """Whether the libraries do without the hub: by the user's wish, or because it is silent."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def hub_address():
    """Where the hub is: HF_ENDPOINT names another one, a company's mirror for example."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


# ------------------------------------------------------------------------------ bring it
TOKENIZER_FILES = ("*.json", "*.txt", "*.model")
WEIGHT_FILES = ("model*.safetensors",)  # no pickles, no weights for other libraries


def fetch_model(name, kinds):
    """Bring a model's files from the hub into the local cache, where transformers will find them.

    kinds: TOKENIZER_FILES, WEIGHT_FILES, or both. What is there already is not sent again, and
    without a network it has to do. Raises an error of one of the libraries' types where no whole
    tokenizer is there: transformers would make an empty one in silence.
    """
    connect_to_hub(name)
    if Path(name).exists():
        return
    import huggingface_hub
    from huggingface_hub import constants

    files = {}
    if not is_offline():
        try:
            about = patiently(lambda: huggingface_hub.model_info(name, files_metadata=True))
            files = {file.rfilename: file.size for file in about.siblings}
        except Exception as error:
            if not is_passing(error) or not is_cached(name):
                raise
            print(f"{hub_address()} fails; the local cache has to do", file=sys.stderr)
    # The library's bar moves when a piece of 10 MB is there: on a slow line, once in minutes.
    constants.DOWNLOAD_CHUNK_SIZE = 1 << 20
    # Weights last. config.json after the tokenizer's files: is_cached() takes it as their sign.
    wanted = [file for file in files if any(fnmatch.fnmatch(file, kind) for kind in kinds)]
    wanted = [file for file in wanted if "/" not in file]
    wanted.sort(key=lambda file: (file.endswith("safetensors"), file == "config.json"))
    for file in wanted:
        if file.endswith("safetensors") and not is_there(name, file):
            size = f", {files[file] / 1e6:,.0f} MB" if files[file] else ""
            print(f"fetching {file} of {name}{size}, this once", file=sys.stderr)
        patiently(functools.partial(huggingface_hub.hf_hub_download, name, file))
    if not is_cached(name):
        raise FileNotFoundError(f"the local cache has no whole tokenizer of {name}")


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


def patiently(load, pauses=(1, 2, 4, 8), patience=30):
    """load(), and again after a pause where the network failed: a bad minute is no reason to stop.

    patience: seconds after which it is not tried again. Any other error is raised at once.
    """
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # what goes wrong is said below, once
    began = time.monotonic()
    for pause in (*pauses, None):
        try:
            return load()
        except Exception as error:
            late = not pause or time.monotonic() - began > patience
            if late or is_offline() or not is_passing(error):
                raise
            print(f"the hub failed ({reason_of(error)}); again in {pause} s", file=sys.stderr)
            time.sleep(pause)


def is_passing(error):
    """Whether an error may be gone in a minute: the network's, or a server that is overloaded."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return status == 429 or status >= 500
        # The library in which connections break, under its several names.
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
            f"some of it: try again later, files that arrived whole are kept ({reason_of(error)})"
        )
    return UserError(
        f"the {kind} {name!r} could not be loaded: it is neither a local path nor a readable "
        f"{kind} on the hub; check the spelling, or try again {reason}"
    )


def main():
    parser = make_parser(__doc__)
    parser.add_argument("model", nargs="?", default="distilbert-base-uncased", help="a hub name")
    name = parser.parse_args().model
    if Path(name).exists():
        print(f"not asked: {name} is a local path")
        return
    connect_to_hub(name)
    print(f"{hub_address()}: {'no answer, or not asked' if is_offline() else 'answers'}")
    try:
        fetch_model(name, TOKENIZER_FILES)
        print(Path(is_there(name, "config.json") or name).parent)
    except Exception as error:
        raise hub_error("model", name, error) from error


if __name__ == "__main__":
    run_command(main)
