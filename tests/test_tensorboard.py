"""The curves of a run, as TensorBoard reads them."""

import contextlib
import re
import shutil
import sys
import threading
from types import SimpleNamespace

import pytest
from conftest import PROJECT, run_script

from extras import tensorboard
from extras.kept import read_history
from support.files import read_json


def points(folder):
    """{name: [(step, value), ...]} as TensorBoard itself reads the events in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    names = events.Tags()["scalars"]
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in names}


def test_every_step_and_every_epoch_stands_in_the_events_once(rehearsed):
    """Also when the command is typed twice: a second one would draw each point twice."""
    folder, _ = rehearsed
    for _ in range(2):
        done = run_script("extras.tensorboard", folder)
        assert done.returncode == 0, done.stderr
    assert len(list((folder / "tensorboard").iterdir())) == 1, "of two it shows the last"
    found = points(folder / "tensorboard")
    steps, epochs = read_history(folder)
    for lines, names in ((steps, tensorboard.STEP), (epochs, tensorboard.EPOCH)):
        for key, name in names.items():
            wanted = [(line["step"], pytest.approx(line[key], rel=1e-6)) for line in lines]
            assert found[name] == wanted, name
    test = read_json(folder / "run.json")["results"]["test"]
    last = (steps[-1]["step"], pytest.approx(test["accuracy"], rel=1e-6))
    assert found["test/accuracy"] == [last]


def test_a_run_that_goes_on_is_followed_to_its_end(rehearsed, tmp_path):
    """Lines come, and some come again after a resume; each is written once."""
    source, _ = rehearsed
    folder, lines = tmp_path / "run", (source / "history.jsonl").read_text().splitlines(True)
    (folder / "checkpoints").mkdir(parents=True)
    begun, history = folder / "checkpoints" / "arguments.json", folder / "history.jsonl"
    begun.write_text("{}")
    history.write_text("".join(lines[:30]) + lines[30][:20])  # the last one is only half there
    writer = tensorboard_writer(tmp_path / "events")
    thread = threading.Thread(target=tensorboard.follow, args=(writer, folder, 0.05))
    thread.start()
    for end in (60, 45, 90):  # 45: stopped there, and cut back to the checkpoint
        history.write_text("".join(lines[:end]))
        thread.join(0.3)
        assert thread.is_alive()
    history.write_text("".join(lines))
    begun.unlink()
    thread.join(30)
    assert not thread.is_alive()
    writer.close()
    steps, epochs = read_history(source)
    found = points(tmp_path / "events")
    assert [step for step, _ in found["train/loss"]] == [line["step"] for line in steps]
    assert [step for step, _ in found["validation/accuracy"]] == [line["step"] for line in epochs]


def test_a_run_that_is_silent_is_not_followed_for_ever(rehearsed, tmp_path, monkeypatch):
    """It was killed, perhaps: nothing in its folder says so."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "arguments.json").write_text("{}")
    shutil.copy(rehearsed[0] / "history.jsonl", folder)
    monkeypatch.setattr(tensorboard, "QUIET", 0.2)
    with tensorboard_writer(tmp_path / "events") as writer:
        assert tensorboard.follow(writer, folder, 0.05) > 0


def tensorboard_writer(folder):
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


def test_a_folder_without_a_history_gets_one_line(tmp_path):
    """And nothing is made in it."""
    done = run_script("extras.tensorboard", tmp_path)
    assert done.returncode == 2 and "has no history.jsonl" in done.stderr
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_the_ten_lines_on_the_page_pass_on_every_step(name, rehearsed, tmp_path, monkeypatch):
    """The packages are not installed here: what would be told to them is noted instead."""
    page = (PROJECT / "docs" / "curves.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf"^```python\n(import json\nimport {name}\n.*?)^```$", page, re.M | re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    told = []

    @contextlib.contextmanager
    def begin(**how):
        yield SimpleNamespace(log=log, summary={})

    def log(numbers, step):
        assert all(isinstance(value, (int, float)) for value in numbers.values())
        told.append((step, numbers))

    module = SimpleNamespace(start_run=begin, init=begin, log_metrics=log)
    module.log_params = module.log_metric = lambda *_: None
    monkeypatch.setitem(sys.modules, name, module)
    shutil.copytree(rehearsed[0], tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    steps, epochs = read_history(tmp_path / "model")
    assert len(told) == len(steps) + len(epochs)
    losses = [(step, numbers["loss"]) for step, numbers in told if "loss" in numbers]
    assert losses == [(line["step"], line["loss"]) for line in steps]
    accuracies = [one["validation_accuracy"] for _, one in told if "validation_accuracy" in one]
    assert accuracies == [line["validation"]["accuracy"] for line in epochs]
