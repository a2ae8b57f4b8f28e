"""Ctrl-C, and a hub that cannot be reached: one line, at once (runs are in test_resume.py)."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import PROJECT, run_script

from support.unfinished import find_checkpoint

pytestmark = pytest.mark.slow


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
        if line.split()[:1] == ["1"]:  # the first line of the table of epochs
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert run_script("predict.py", "--model", tmp_path / "stop", "Loved it").returncode == 0
    command = errors.strip().splitlines()[-1].partition("To go on: ")[2].split()
    assert command == ["python", "finetune.py", "--resume", str(tmp_path / "stop")]
    typed = json.loads((tmp_path / "stop" / "checkpoints" / "arguments.json").read_text())
    assert typed["epochs"] == 200 and find_checkpoint(tmp_path / "stop")["step"] > 0


@pytest.mark.parametrize("script", ["evaluate.py", "predict.py"])
def test_ctrl_c_at_work_is_one_line(rehearsed, script):
    """A page of traceback would look like a mistake in the program. (While Python still imports
    torch, in the first seconds, an ordinary traceback may come.)
    """
    words = [sys.executable, "-u", script, "--model", rehearsed[0]]
    process = subprocess.Popen(
        [*map(str, words), *["--batch-size", "1"] * (script == "evaluate.py")],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if script == "evaluate.py":
        said = process.stderr.read(1)  # its progress bar
    else:
        said = process.stderr.readline()  # it says what model this is, and waits for lines
    assert said
    process.send_signal(signal.SIGINT)  # at once: the whole work takes a second
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.endswith("stopped with Ctrl-C\n"), errors
    assert "Traceback" not in errors


def test_a_reader_who_leaves_ends_the_command_in_one_line(rehearsed):
    """`python predict.py ... | head`: what Python holds back must come out before it ends."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "predict.py", "--model", rehearsed[0], "Loved it"],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait() == 1 and "Traceback" not in said
    assert said.endswith("stopped: nobody reads the output any more\n")


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
