"""support/hub.py: a bad day of the hub costs a minute, and never makes half a model a whole one."""

import http.server
import json
import os
import threading
from types import SimpleNamespace

import pytest
from conftest import run_script

from support.pretrained import load_tokenizer
from support import hub
from support.errors import UserError

FILES = {
    "vocab.txt": b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\nfilm\n",
    "tokenizer_config.json": b'{"tokenizer_class": "BertTokenizer"}',
    "config.json": b'{"model_type": "bert"}',
    "pytorch_model.bin": b"a pickle, which nobody asks for",
    "onnx/config.json": b"{}",
}
NAME = "somebody/some-model"
FETCH = """
import sys
from pathlib import Path
from support import hub
from support.errors import run_command

def main():
    name = sys.argv[1]
    try:
        hub.fetch_model(name, hub.TOKENIZER_FILES)
    except Exception as error:
        raise hub.hub_error("model", name, error) from error
    print(Path(hub.is_there(name, "config.json")).parent)

run_command(main)
"""


@pytest.fixture
def server():
    """A small hub on this machine. server.fault(number of the request) is the status it answers."""
    asked = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            asked.append(self.path)
            status, body = running.fault(len(asked)), b"{}"
            if status == 200 and self.path.startswith(f"/api/models/{NAME}"):
                files = [{"rfilename": name, "size": len(data)} for name, data in FILES.items()]
                body = json.dumps({"id": NAME, "sha": "1" * 40, "siblings": files}).encode()
            elif status == 200 and self.path.startswith(f"/{NAME}/resolve/main/"):
                body = FILES[self.path.split("/main/")[1]]
            elif status == 200:
                status = 404
            self.send_response(status)
            self.send_header("Content-Length", len(body))
            self.send_header("ETag", f'"{len(body)}"')
            self.send_header("X-Repo-Commit", "1" * 40)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    running.asked, running.fault = asked, lambda number: 200
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def ask(server, home):
    """Fetch a model, in a process of its own, because the library reads its settings once."""
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(home)}
    return run_script("-c", FETCH, NAME, env=environment)


def test_a_hub_that_fails_now_and_then_is_asked_again(server, tmp_path):
    """What is needed arrives all the same, and nothing else."""
    # The second request fails, and every third.
    server.fault = lambda number: 503 if number % 3 == 0 or number == 2 else 200
    done = ask(server, tmp_path)
    assert done.returncode == 0 and "again in 1 s" in done.stderr, done.stderr
    folder = done.stdout.splitlines()[-1]
    assert sorted(os.listdir(folder)) == ["config.json", "tokenizer_config.json", "vocab.txt"]
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            assert file.read() == FILES[name]
    # Afterwards the hub may be gone altogether.
    server.fault = lambda number: 503
    done = ask(server, tmp_path)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == folder


def test_a_hub_that_is_down_ends_the_run_with_one_line(server, tmp_path):
    """And leaves a cache that can be used when it is back."""
    server.fault = lambda number: 503
    done = ask(server, tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: no answer from")]
    server.fault = lambda number: 200
    assert ask(server, tmp_path).returncode == 0


def test_a_model_that_the_hub_does_not_have_is_not_asked_for_again(server, tmp_path):
    """A typing error is no bad day: say so at once."""
    server.fault = lambda number: 404 if "/api/models" in server.asked[-1] else 200
    done = ask(server, tmp_path)
    assert done.returncode == 2 and "check the spelling" in done.stderr
    assert "again in" not in done.stderr


def test_half_a_tokenizer_in_the_cache_is_not_taken_for_a_whole_one(tmp_path, monkeypatch):
    """transformers would build one without a vocabulary, to which every word is unknown."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--somebody--some-model"
    snapshot = repository / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1" * 40)
    for name in ("tokenizer_config.json", "config.json", "vocab.txt"):
        with pytest.raises(UserError, match="not in the local cache"):
            load_tokenizer(NAME)
        (snapshot / name).write_bytes(FILES[name])
    assert load_tokenizer(NAME)("good film")["input_ids"] == [2, 5, 6, 3]


def test_patience_is_for_the_network_only_and_ends(capsys, monkeypatch):
    """Otherwise a bug would be tried five times, and an outage for ever."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    calls = []

    def fail(error):
        calls.append(error)
        raise error

    with pytest.raises(ConnectionError):
        hub.patiently(lambda: fail(ConnectionError("gone")), pauses=(0.01, 0.01))
    assert len(calls) == 3 and capsys.readouterr().err.count("the hub failed") == 2
    with pytest.raises(KeyError):
        hub.patiently(lambda: fail(KeyError("ours")), pauses=(0.01, 0.01))
    assert len(calls) == 4
    with pytest.raises(TimeoutError):
        hub.patiently(lambda: fail(TimeoutError("slow")), pauses=(0.01,) * 9, patience=0)
    assert len(calls) == 5


@pytest.fixture
def builder(tmp_path, monkeypatch):
    """What datasets knows of a data set that has two files on the hub. Returns it and the calls."""
    import huggingface_hub

    calls = []

    class Hub:
        def info(self, path):
            return {"size": 3_000_000}

        def resolve_path(self, path):
            name = path.rpartition("/")[2]
            return SimpleNamespace(
                repo_id="somebody/texts", path_in_repo=name, repo_type="dataset", revision="1"
            )

    def download(repo_id, name, **how):
        calls.append((repo_id, name, how["repo_type"], how["revision"]))
        with how["tqdm_class"](total=8, desc=f"(...)/{name}", unit="B") as bar:
            assert bar.desc.startswith(name) and not bar.leave
            bar.update(8)

    monkeypatch.setattr(huggingface_hub, "HfFileSystem", Hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    files = {"train": ["hf://datasets/a.parquet"], "test": ["hf://datasets/b.parquet", "local"]}
    found = SimpleNamespace(
        repo_id="somebody/texts",
        cache_dir=str(tmp_path / "tables"),
        config=SimpleNamespace(data_files=files),
    )
    return found, calls


def test_a_data_set_is_announced_with_its_size_before_it_is_fetched(builder, monkeypatch, capsys):
    """On a slow line 6 MB take a minute: say so, and show a bar of our own, which goes away."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub.fetch_data(builder[0])
    said = capsys.readouterr().err
    assert said.startswith("fetching   the data set somebody/texts, 6 MB, this once\n")
    names = ("a.parquet", "b.parquet")
    assert builder[1] == [("somebody/texts", name, "dataset", "1") for name in names]


def test_a_data_set_that_is_here_is_not_fetched_again(builder, monkeypatch, capsys):
    """And without a network nothing is tried: the line says that a cached copy is read."""
    hub.fetch_data(builder[0])  # HF_HUB_OFFLINE is set in all tests
    assert capsys.readouterr().err == "offline    somebody/texts, as it was fetched before\n"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    os.makedirs(builder[0].cache_dir)
    hub.fetch_data(builder[0])
    assert builder[1] == [] and capsys.readouterr().err == ""
