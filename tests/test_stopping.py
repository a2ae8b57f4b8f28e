"""Ctrl-C, and a hub that cannot be reached: one line, at once (runs are in test_resume.py)."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import PROJECT, run_script


def test_ctrl_c_says_which_command_goes_on_and_it_does(tmp_path):
    """An evening's work must not be lost because the laptop must move (more in test_resume.py)."""
    command = [sys.executable, "-u", "finetune.py", "--demo", "--out", tmp_path / "stop"]
    process = subprocess.Popen(
        [*map(str, command), "--epochs", "200"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("epoch 1 "):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert run_script("predict.py", "--model", tmp_path / "stop", "Loved it").returncode == 0
    command = errors.strip().splitlines()[-1].partition("To go on: ")[2].split()
    assert command == ["python", "finetune.py", "--resume", str(tmp_path / "stop")]
    done = run_script("resume.py", tmp_path / "stop")
    assert "--epochs=200" in done.stdout and done.stdout.count("whole; after step") >= 1


@pytest.mark.parametrize(
    "script, seconds",
    [("evaluate.py", 0.2), ("evaluate.py", 1), ("predict.py", 1), ("predict.py", 3)],
)  # predict.py then waits for lines
def test_ctrl_c_while_libraries_are_imported_is_one_line(rehearsed, script, seconds):
    """They can catch it, and complain that they are damaged: what is shown has to be the truth."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", script, "--model", rehearsed[0]],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:  # a line for each module
        if line.split()[-1] == "errors":
            break
    heard = []
    listener = threading.Thread(target=lambda: heard.extend(process.stderr))
    listener.start()
    time.sleep(seconds)
    for _ in range(3):  # a library may swallow one altogether: then it is pressed again
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
            break
    listener.join(timeout=60)
    said = [line for line in heard if not line.startswith("import time:")]
    assert process.returncode == 130, said
    assert said[-1] == "stopped with Ctrl-C\n" and not any("Traceback" in line for line in said)


def test_ctrl_c_while_an_object_is_deleted_ends_the_run(tmp_path):
    """Python cannot raise it there: it prints "Exception ignored in ..." and goes on."""
    shutil.copy(PROJECT / "errors.py", tmp_path)
    (tmp_path / "command.py").write_text(
        "import signal\n"
        "from errors import run_command\n"
        "class Pressed:\n"
        "    def __del__(self):\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "def main():\n"
        "    Pressed()\n"
        "    print('went on')\n"
        "run_command(main)\n"
    )
    words = [sys.executable, tmp_path / "command.py"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped with Ctrl-C\n")


def test_a_reader_who_leaves_ends_the_command_in_one_line(rehearsed):
    """`python history.py | head`: what Python still holds back is written before it is too late."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "history.py", rehearsed[0]],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait() == 1 and said == "stopped: nobody reads the output any more\n"


def test_without_hub_and_cache_the_run_ends_at_once_and_names_two_ways_out(tmp_path):
    """The libraries would retry for 48 s and then print a page of traceback."""
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    for words in (["finetune.py", "--out", tmp_path / "m"], ["dataset.py", "Loved it"]):
        started = time.perf_counter()
        done = run_script(*words, env=environment)
        assert time.perf_counter() - started < 10
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
        assert "--demo" in done.stderr and "--model and --data" in done.stderr.replace("\n", " ")
