"""torchrun: many processes take the same steps as one."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import PROJECT, make_examples_of_lengths, make_model, run_script, train
from safetensors.torch import load_file

import finetune
from dataset import make_collate
from evaluate import predict_logits
from extras.kept import read_history
from support import devices

pytestmark = pytest.mark.slow

# 91 reviews in micro-batches of 7: windows of 3 and a last one of a single micro-batch; 3 processes
# share out 7 rows unevenly, and two of them get none of a micro-batch of one row.
RAGGED = "--demo --subset 92 --epochs 2 --head-epochs 1 --batch-size 7 --accumulate 3".split()
RAGGED += "--precision fp32 --dropout 0".split()


def torchrun(processes, *words, **options):
    """Start a file of ours with torchrun, a thread for each process. Returns the Popen object."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    command += ["--standalone", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=PROJECT, env=environment, encoding="utf-8", **options)


def result(folder):
    """What a run left: its weights, and the loss of every step."""
    run = json.loads((folder / "run.json").read_text())
    losses = [step["loss"] for step in read_history(folder)[0]]
    return load_file(folder / "model.safetensors"), torch.tensor(losses), run


def test_two_and_three_processes_train_the_model_that_one_would(tmp_path):
    """The same loss at every step and the same weights after: the window's sum over all processes
    is divided by the window's reviews over all processes, however unevenly they are shared out.
    """
    alone = run_script("finetune.py", *RAGGED, "--out", tmp_path / "1")
    assert alone.returncode == 0, alone.stderr
    weights, losses, run = result(tmp_path / "1")
    reviews = run["splits"]["train"]["reviews"]
    assert reviews % 3 and reviews % 7, "so that nothing comes out even"
    runs = {}
    for processes in (2, 3):  # both at once, because each spends seconds on starting
        words = ["finetune.py", *RAGGED, "--out", tmp_path / str(processes)]
        log = open(tmp_path / f"{processes}.log", "w+")
        runs[processes] = torchrun(processes, *words, stdout=log, stderr=log), log
    for processes, (started, log) in runs.items():
        folder = tmp_path / str(processes)
        started.wait(timeout=120)
        log.seek(0)
        output = log.read()
        assert started.returncode == 0, output
        assert output.count("saved in") == 1, "one process prints"
        others, their_losses, their_run = result(folder)
        assert torch.allclose(losses, their_losses, atol=1e-5)
        for name in weights:
            assert torch.allclose(weights[name], others[name], atol=1e-5), name
        assert run["results"]["test"]["confusion"] == their_run["results"]["test"]["confusion"]


def test_the_processes_agree_on_when_a_checkpoint_is_due(tmp_path):
    """They write it together, and each has a clock of its own. If each decided by itself, one would
    wait with its random numbers for the other's gradients, ten minutes after the start.
    """
    words = "--demo --epochs 2 --batch-size 4 --save-every 0.01 --out".split()
    started = torchrun(2, "finetune.py", *words, tmp_path / "model", stderr=subprocess.PIPE)
    _, errors = started.communicate(timeout=120)
    assert started.returncode == 0, errors


def test_under_fp16_a_process_may_have_no_review_in_its_first_window(monkeypatch, arguments):
    """The scaler is set up by the first loss. Without one it would end the run with a traceback."""
    monkeypatch.setattr(devices, "world", lambda: 2)
    shares = iter([[], [0]])  # of the first window nothing, of the second something
    monkeypatch.setattr(finetune, "share", lambda rows: next(shares))
    args = arguments(*"--epochs 1 --batch-size 1 --lr 1e-3".split())
    lines = train(make_model(), make_examples_of_lengths([6] * 2), args, "fp16")
    assert len(lines) == 2


def test_when_one_process_is_killed_the_others_end_and_say_so(tmp_path):
    """Otherwise a run on many machines waits for ever, and somebody pays for it."""
    log = tmp_path / "log"
    with open(log, "w") as file:
        words = ["finetune.py", "--demo", "--epochs", "500", "--out", tmp_path / "model"]
        started = torchrun(2, *words, stdout=file, stderr=file)
        while "epoch 1/500" not in log.read_text():
            assert started.poll() is None, log.read_text()
            time.sleep(0.2)
        children = subprocess.run(
            ["pgrep", "-P", str(started.pid)], capture_output=True, encoding="utf-8"
        )
        os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
        killed = time.monotonic()
        assert started.wait(timeout=60) != 0
    assert time.monotonic() - killed < 60
    assert "error: another process of this run has ended" in log.read_text()


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_shares_make_up_the_whole(monkeypatch, processes):
    """Every review is scored by exactly one process, so the sum over processes is the answer."""
    model, examples = (
        make_model(loud=True),
        make_examples_of_lengths([3 + i % 9 for i in range(11)]),
    )
    ask = (model, examples, make_collate(0), torch.device("cpu"))
    whole = predict_logits(*ask, batch_size=2)
    total = torch.zeros_like(whole)
    monkeypatch.setattr(devices, "world", lambda: processes)
    for rank in range(processes):
        monkeypatch.setattr(devices, "rank", lambda: rank)
        total += predict_logits(*ask, batch_size=2)
    assert torch.equal(total, whole)


def test_without_torchrun_nothing_is_shared():
    """A reader's single process has rank 0 of 1, and meets none of this."""
    model = torch.nn.Linear(2, 2)
    assert (devices.rank(), devices.world()) == (0, 1)
    assert devices.share([1, 2, 3]) == [1, 2, 3]
    assert devices.add_up_gradients(model) is None
    assert torch.equal(devices.add_up(torch.ones(2)), torch.ones(2))


def test_a_process_that_has_joined_no_others_does_all_the_work(monkeypatch):
    """extras/app.py may run where WORLD_SIZE and RANK are set by somebody else."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert devices.share([1, 2, 3]) == [1, 2, 3]


def test_every_process_gets_its_own_random_numbers_back(monkeypatch, arguments):
    """A resumed run of several processes drops what each of them would have dropped."""
    cpu, states, expected = torch.device("cpu"), [], []

    def become(rank):
        for name, value in (("rank", rank), ("world", 3)):
            monkeypatch.setattr(devices, name, lambda value=value: value)

    for rank in range(3):
        become(rank)
        torch.manual_seed(rank)
        states.append(devices.random_states(cpu))
        expected.append(torch.rand(4))
    together = [sum(one[0] for one in states)]  # as add_up() does
    for rank in range(3):
        become(rank)
        devices.put_back_random(cpu, together)
        assert torch.equal(torch.rand(4), expected[rank])


def test_a_process_without_a_review_in_a_window_adds_zeros(monkeypatch):
    """All processes have to take part in a sum, or the others would wait for ever."""
    model, seen = torch.nn.Linear(2, 1), []
    model.bias.requires_grad_(False)
    monkeypatch.setattr(devices, "world", lambda: 2)
    monkeypatch.setattr(devices, "add_up", lambda tensor: seen.append(tensor.clone()))
    devices.add_up_gradients(model)
    assert len(seen) == 1 and torch.equal(seen[0], torch.zeros(1, 2)), "and none for frozen ones"


def test_predict_and_evaluate_share_the_rows_out(rehearsed, tmp_path):
    """Two processes write what one writes: every row once, in the order of the file."""
    folder, _ = rehearsed
    data = PROJECT / "support" / "demo_reviews" / "test.csv"
    words = ["predict.py", "--model", folder, "--file", data, "--out"]
    assert run_script(*words, tmp_path / "1.csv").returncode == 0
    evaluate = ["evaluate.py", "--model", folder]
    started = torchrun(2, *words, tmp_path / "2.csv", stderr=subprocess.PIPE)
    beside = torchrun(2, *evaluate, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    behaviour = ["extras.behaviour", "--model", folder, "--results"]
    third = torchrun(2, "-m", *behaviour, tmp_path / "2.json", stdout=subprocess.PIPE)
    _, errors = started.communicate(timeout=120)
    assert started.returncode == 0, errors
    one, two = ((tmp_path / f"{n}.csv").read_text().splitlines() for n in (1, 2))
    assert [row.rsplit(",", 1)[0] for row in one] == [row.rsplit(",", 1)[0] for row in two]
    output, errors = beside.communicate(timeout=120)
    assert beside.returncode == 0, errors
    assert output.split("computed on")[0] == run_script(*evaluate).stdout.split("computed on")[0]
    asked, _ = third.communicate(timeout=120)
    assert asked == run_script(*behaviour, tmp_path / "1.json").stdout
    assert (tmp_path / "2.json").read_text() == (tmp_path / "1.json").read_text()
