"""Stopped runs: nothing is lost, nothing written twice, and nothing goes on in silence."""

import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import PROJECT, run_script

import finetune
from support import runs, unfinished
from support.files import write_whole
from support.options import parse_arguments
from support.runs import only_run

pytestmark = pytest.mark.slow

# Dropout, accumulation with a short last window, two phases. 48 reviews are 24 micro-batches and 8
# steps an epoch; a checkpoint at each look, which here is every third step.
WORDS = "--model encoder --data good.csv --max-length 20 --epochs 3 --batch-size 2 --accumulate 3 "
WORDS = (WORDS + "--head-epochs 1 --attention-dropout 0.1 --lr 1e-3 --save-every 0").split()
STEPS = 24


@pytest.fixture
def place(workplace, monkeypatch):
    """The working folder, and a look at every third step, so that short runs have checkpoints."""
    monkeypatch.setattr("support.unfinished.LOOK_EVERY", 3)
    return workplace


def run(place, *words):
    """Run finetune.py there, in this process, as LOOK_EVERY has been set."""
    return run_script("finetune.py", *words, cwd=place, module=finetune)


def at_step(monkeypatch, number, act):
    """Let `act()` happen in the middle of optimizer step `number`, counted from now."""
    step, count = torch.optim.AdamW.step, 0

    def stepping(self, *args):
        nonlocal count
        count += 1
        if count == number:
            act()
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", stepping)


def interrupt(number=signal.SIGINT):
    return lambda: os.kill(os.getpid(), number)


def outcome(out):
    """All that a run leaves, but for times and paths."""
    kept = json.loads((out / "run.json").read_text())
    for record in [*kept["history"], kept["results"]]:
        record.pop("seconds", None)
        record.pop("reviews_per_second")
        record.pop("peak_bytes", None)
    for option in ("out", "resume"):
        del kept["arguments"][option]
    files = {path.name for path in out.iterdir()}
    names = ("model.safetensors", "history.jsonl")
    return kept, files, [(out / name).read_bytes() for name in names]


@pytest.fixture(scope="module")
def undisturbed(workplace):
    """What the run leaves when nobody stops it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("support.unfinished.LOOK_EVERY", 3)
        done = run(workplace, *WORDS, "--out", "whole")
    assert done.returncode == 0, done.stderr
    return outcome(workplace / "whole")


@pytest.fixture(scope="module")
def stopped_once(workplace):
    """A run that was stopped in step 17 of 24; its checkpoints are of 16 and 17."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("support.unfinished.LOOK_EVERY", 3)
        at_step(patch, 17, interrupt())
        done = run(workplace, *WORDS, "--out", "stopped")
    assert done.returncode == 130 and "--resume" in done.stderr, done.stderr
    return workplace / "stopped"


@pytest.fixture
def stopped(place, stopped_once, tmp_path):
    """A copy of its folder."""
    return shutil.copytree(stopped_once, tmp_path / "stopped")


# ------------------------------------------------------------------------------ exactly
def test_killed_runs_end_like_the_undisturbed_one(tmp_path):
    """At any moment, while a checkpoint is written, while the model is saved; some of them twice.

    Twenty of them: python tests/kill_runs.py
    """
    script = [sys.executable, PROJECT / "tests" / "kill_runs.py", "--runs", "2"]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("identical") == 2


@pytest.mark.parametrize("step", [1, 8, 13, STEPS])
def test_a_run_that_is_stopped_in_a_step_finishes_it_and_goes_on_exactly(
    place, undisturbed, monkeypatch, tmp_path, step
):
    """The first step, the last of an epoch, one in between, and the last of all."""
    out = tmp_path / "out"
    number = signal.SIGTERM if step == 13 else signal.SIGINT
    with monkeypatch.context() as patch:
        at_step(patch, step, interrupt(number))
        done = run(place, *WORDS, "--out", out)
    assert done.returncode == 128 + number
    command = done.stderr.strip().splitlines()[-1]
    assert command == f"stopped. To go on: python finetune.py --resume {out}"
    lines = (out / "history.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == step, "the step was finished, and written down"
    done = run(place, "--resume", out)
    assert done.returncode == 0 and f"after step {step}:" in done.stdout, done.stderr
    assert outcome(out) == undisturbed


@pytest.mark.parametrize("name", ["add_lines", "checkpoint", "note"])
def test_a_signal_between_two_steps_saves_what_belongs_together(
    place, undisturbed, monkeypatch, tmp_path, name
):
    """While a step is written down, the weights must not be saved with the record before it. And
    it is not forgotten where it comes behind the last look of an epoch, which is in note().
    """
    work, calls, last = getattr(unfinished.Run, name), [], 8 if name == "note" else 2

    def pressed(*args):
        calls.append(args)
        if name == "note":
            work(*args)
        if len(calls) == last:  # for add_lines(): after step 6; for note(): after the epoch's last
            os.kill(os.getpid(), signal.SIGINT)
        return work(*args) if name != "note" else None

    with monkeypatch.context() as patch:
        patch.setattr(unfinished.Run, name, pressed)
        done = run(place, *WORDS, "--out", tmp_path / "out")
    assert done.returncode == 130 and len(calls) == last
    assert run(place, "--resume", tmp_path / "out").returncode == 0
    assert outcome(tmp_path / "out") == undisturbed


def test_a_resumed_run_still_knows_what_nobody_typed(place, monkeypatch, tmp_path):
    """Else its record and its card would show the rule's --lr as somebody's choice."""
    words = [word for word in WORDS if word not in ("--lr", "1e-3")]
    with monkeypatch.context() as patch:
        at_step(patch, 10, interrupt())
        assert run(place, *words, "--out", tmp_path / "out").returncode == 130
    assert run(place, "--resume", tmp_path / "out").returncode == 0
    kept = json.loads((tmp_path / "out" / "run.json").read_text())
    assert kept["recipe"] == {"lr": 5e-5} and kept["arguments"]["lr"] == 5e-5
    assert kept["arguments"]["epochs"] == 3, "which was typed"


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_run_that_ends_while_it_validates_loses_nothing(
    place, undisturbed, monkeypatch, tmp_path, how
):
    """Validation can take minutes, so it ends at once; it is repeated, the epoch is not."""
    ask, calls = finetune.predict_logits, []

    def stop(*args, **options):
        calls.append(args)
        if len(calls) == 2:  # the validation of epoch 2
            sys.exit(3) if how == "killed" else os.kill(os.getpid(), signal.SIGINT)
        return ask(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "predict_logits", stop)
        done = run(place, *WORDS, "--save-every", "10", "--out", tmp_path / "out")
    assert done.returncode == (3 if how == "killed" else 130) and len(calls) == 2
    done = run(place, "--resume", tmp_path / "out", "--save-every", "0")
    assert done.returncode == 0 and "after step 16:" in done.stdout
    kept, files, content = outcome(tmp_path / "out")
    assert kept["arguments"].pop("save_every") == undisturbed[0]["arguments"]["save_every"] == 0
    assert (files, content) == undisturbed[1:]
    assert kept["history"] == undisturbed[0]["history"]


def test_an_epoch_that_has_been_judged_is_not_judged_again(
    place, undisturbed, monkeypatch, tmp_path
):
    """Killed in the first step after a validation: its epoch must not be in the history twice."""
    with monkeypatch.context() as patch:
        at_step(patch, 9, lambda: sys.exit(3))  # nothing is saved on the way out, as with a kill
        assert run(place, *WORDS, "--out", tmp_path / "out").returncode == 3
    done = run(place, "--resume", tmp_path / "out")
    assert "after step 8:" in done.stdout and "\n    1  " not in done.stdout
    assert outcome(tmp_path / "out") == undisturbed


def test_a_second_ctrl_c_stops_in_mid_step_and_saves_no_half_moved_weights(
    place, undisturbed, monkeypatch, tmp_path
):
    """Whoever presses it twice wants to be out; what is on disk has to stay good."""
    with monkeypatch.context() as patch:
        at_step(patch, 13, lambda: (interrupt()(), interrupt()()))
        done = run(place, *WORDS, "--out", tmp_path / "out")
    assert done.returncode == 130
    done = run(place, "--resume", tmp_path / "out")
    assert "after step 12:" in done.stdout
    assert outcome(tmp_path / "out") == undisturbed


def test_the_random_numbers_are_part_of_the_state(stopped, place, undisturbed, monkeypatch):
    """Without them the next steps drop other numbers, and the test above would be worth nothing."""
    read = unfinished.read_checkpoint

    def forgetful(*args):
        return read(*args) | {"random": [torch.manual_seed(1).get_state()[None]]}

    monkeypatch.setattr(unfinished, "read_checkpoint", forgetful)
    assert run(place, "--resume", stopped).returncode == 0
    assert outcome(stopped)[2] != undisturbed[2]


# ------------------------------------------------------------------------------ damage
def damages():
    """(name, function of a checkpoint's folder) of every kind: cut, one bit flipped, removed."""

    def cut(name, part):
        return lambda folder: os.truncate(folder / name, int(part * (folder / name).stat().st_size))

    def flip(name, part):
        def act(folder):
            data = bytearray((folder / name).read_bytes())
            data[int(part * (len(data) - 1))] ^= 1 << int(part * 7)
            (folder / name).write_bytes(data)

        return act

    for name in (*unfinished.FILES, "SHA256SUMS"):
        parts = (0, 0.3, 0.6, 0.999) if name in unfinished.FILES else (0.2, 0.9)
        for part in parts:
            yield pytest.param(cut(name, part), id=f"{name} cut at {part}")
            yield pytest.param(flip(name, part), id=f"a bit flipped in {name} at {part}")
        yield pytest.param(lambda f, n=name: (f / n).unlink(), id=f"{name} removed")


@pytest.mark.parametrize("damage", list(damages()))
def test_a_damaged_checkpoint_is_found_and_the_one_before_it_used(
    stopped, place, undisturbed, damage
):
    """A disk that loses a sector must not become a model that is slightly wrong."""
    numbers = unfinished.numbers(stopped)
    assert len(numbers) == 2
    damage(stopped / "checkpoints" / str(numbers[-1]))
    done = run(place, "--resume", stopped)
    assert done.returncode == 0, done.stderr
    assert f"checkpoint {numbers[-1]} in" in done.stdout and "is damaged" in done.stdout
    assert "after step 16:" in done.stdout
    assert outcome(stopped) == undisturbed


def test_when_all_checkpoints_are_damaged_the_run_does_not_begin_anew_by_itself(stopped, place):
    """Hours of computing start only when somebody asks for them."""
    for number in unfinished.numbers(stopped):
        (stopped / "checkpoints" / str(number) / "state.pt").write_bytes(b"")
    done = run(place, "--resume", stopped)
    assert done.returncode == 2 and "no checkpoint in it is whole" in done.stderr


def test_a_record_that_lacks_a_line_is_not_gone_on_with(stopped, place):
    """Figures are read from history.jsonl alone: a gap would become a wrong loss of an epoch."""
    path = stopped / "history.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3] + lines[4:]))
    done = run(place, "--resume", stopped)
    assert done.returncode == 2 and "no checkpoint in it is whole" in done.stderr


def test_a_full_disk_is_said_and_leaves_the_last_good_checkpoint(
    place, undisturbed, monkeypatch, tmp_path
):
    """Here a limit on the size of files stands for it, which fails in the middle of writing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))

    try:
        with monkeypatch.context() as patch:
            at_step(patch, 14, fill)
            done = run(place, *WORDS, "--out", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "is the disk full? To go on:" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "out" / "checkpoints").glob(".saving-*"))
    done = run(place, "--resume", tmp_path / "out")
    assert "after step 12:" in done.stdout and "damaged" not in done.stdout
    assert outcome(tmp_path / "out") == undisturbed


def test_a_checkpoint_of_a_stranger_cannot_run_code(stopped, place, tmp_path):
    """Its checksums can be as right as you like."""

    class Program:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was run"),)

    folder = stopped / "checkpoints" / str(unfinished.numbers(stopped)[-1])
    for evil in (pickle.dumps(Program()), None):
        if evil is None:
            torch.save({"step": Program()}, folder / "state.pt")
        else:
            (folder / "state.pt").write_bytes(evil)
        (folder / "SHA256SUMS").write_bytes(unfinished.checksums(folder))
        done = run(place, "--resume", stopped)
        assert done.returncode == 2 and "no checkpoint of ours" in done.stderr
        assert not (tmp_path / "was run").exists()


# ------------------------------------------------------------------------------ the same run
def test_what_would_make_it_another_run_is_refused_by_name(stopped, place, monkeypatch):
    """To go on with other data or other code is not to go on, whatever the program says."""
    data = (place / "good.csv").read_text()

    def refused(*words):
        done = run(place, "--resume", stopped, *words)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        return done.stderr.splitlines()[-1]

    assert "--lr was 0.001 and would be 0.1" in refused("--lr", "0.1")
    (place / "good.csv").write_text(data.replace("good", "fine", 1))
    assert re.search(r"the data \(a fingerprint\) was \w{16} and is \w{16}", refused())
    (place / "good.csv").write_text(data)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "version", lambda name: "0.1")
        assert "torch was 2.13.0" in refused()
        assert "transformers was 5.23.0 and is 0.1" in refused()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 77)
        assert "(OMP_NUM_THREADS) was" in refused() and "is 77" in refused()
    with monkeypatch.context() as patch:
        patch.setattr(runs, "code_of", lambda source: "other")
        assert "dataset.py (a fingerprint)" in refused()
    with monkeypatch.context() as patch:
        patch.setattr("model.choose_precision", lambda wanted, device: ("fp16", ""))
        assert "precision was" in refused()
    arguments = stopped / "checkpoints" / "arguments.json"
    arguments.write_text(arguments.read_text().replace('"seed": 42', '"seed": 43'))
    assert "--seed was 42 and is 43" in refused()


def test_the_code_is_known_where_a_link_led_to_it(monkeypatch, tmp_path):
    """A loop that was changed meanwhile must be noticed, however it is reached."""
    (tmp_path / "link").symlink_to(PROJECT)
    monkeypatch.setattr(finetune, "__file__", str(tmp_path / "link" / "finetune.py"))
    facts = dict.fromkeys(("data_fingerprint", "weights_fingerprint"))
    facts["device"] = {"precision": "fp32", "type": "cpu", "threads": 1}
    nothing = SimpleNamespace(config=None)
    same = runs.what_matters(parse_arguments("", []), facts, {}, nothing, ())
    assert {"finetune.py (a fingerprint)", "runs.py (a fingerprint)"} <= set(same)


def test_comments_and_docstrings_of_the_code_may_change():
    """A reader who adds a note must be able to go on."""
    one = "x = 1  # one\n\ndef f():\n    '''Old.'''\n    return x\n"
    two = "# two\nx = 1\ndef f():\n    '''New.'''\n    return x\n"
    assert runs.code_of(one) == runs.code_of(two)
    assert runs.code_of(one) != runs.code_of(one.replace("x = 1", "x = 2"))


def test_a_run_goes_on_where_it_was_moved_to_and_from_any_folder(
    stopped, place, undisturbed, tmp_path
):
    """What model and data are decides, and not where they lie."""
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(stopped, moved / "run")
    done = run_script("finetune.py", "--resume", "moved/run", cwd=tmp_path, module=finetune)
    assert done.returncode == 0, done.stderr
    assert outcome(moved / "run")[2] == undisturbed[2]


# ------------------------------------------------------------------------------ the folder
def test_two_runs_into_one_folder_the_second_is_refused(stopped, place):
    """Each would overwrite the other's checkpoints."""
    with only_run(stopped):
        for words in (["--resume", stopped], [*WORDS, "--overwrite", "--out", stopped]):
            done = run(place, *words)
            assert done.returncode == 2 and "another run is writing" in done.stderr
    assert run(place, "--resume", stopped).returncode == 0


def test_a_finished_model_and_an_unfinished_run_are_not_overwritten_unasked(
    stopped, place, undisturbed
):
    """Typing the command of yesterday must not cost the model of yesterday."""
    done = run(place, *WORDS, "--out", stopped)
    assert done.returncode == 2 and "a run that is not done" in done.stderr
    assert run(place, "--resume", stopped).returncode == 0
    assert outcome(stopped) == undisturbed
    done = run(place, *WORDS, "--out", stopped)
    assert done.returncode == 2 and "a finished model" in done.stderr
    assert outcome(stopped) == undisturbed
    done = run(place, "--resume", stopped)
    assert done.returncode == 0 and "is done" in done.stdout
    done = run(place, *WORDS, "--seed", "1", "--out", stopped, "--overwrite")
    assert done.returncode == 0 and outcome(stopped) != undisturbed


def test_files_that_only_look_like_ours_are_not_tidied_away(tmp_path):
    """Somebody may say --out . in a folder with other things in it."""
    ours, theirs = tmp_path / ".run.json.17.new", tmp_path / ".zshrc.new"
    ours.touch()
    theirs.touch()
    with only_run(tmp_path):
        assert theirs.exists() and not ours.exists()


def test_a_folder_from_a_stranger_cannot_clear_the_terminal(stopped, place):
    """Signs that command a terminal are shown as spaces."""
    typed = stopped / "checkpoints" / "arguments.json"
    typed.write_text(json.dumps(json.loads(typed.read_text()) | {"text_column": "\033[2J"}))
    done = run(place, "--resume", stopped)
    assert done.returncode == 2 and "[2J" in done.stderr and "\033" not in done.stderr


def test_a_run_that_is_stopped_after_overwrite_leaves_no_mixture_of_two(
    stopped, place, undisturbed, monkeypatch
):
    """Old weights beside a new history would be evaluated and reported as one model."""
    assert run(place, "--resume", stopped).returncode == 0
    with monkeypatch.context() as patch:
        at_step(patch, 2, interrupt())
        done = run(place, *WORDS, "--seed", "1", "--out", stopped, "--overwrite")
    assert done.returncode == 130
    left = {path.name for path in stopped.iterdir()}
    assert left == {"checkpoints", "history.jsonl"}, "nothing of the old run"
    done = run_script("evaluate.py", "--model", stopped, cwd=place)
    assert done.returncode == 2 and "no run.json in it" in done.stderr
    assert run(place, "--resume", stopped).returncode == 0


def test_a_run_that_fails_before_it_begins_leaves_no_trace(place, tmp_path):
    """A typing error must not make --overwrite necessary."""
    words = [*WORDS, "--out", tmp_path / "out"]
    assert run(place, *words, "--train-layers", "9").returncode == 2
    assert not list((tmp_path / "out").iterdir())
    assert run(place, *words).returncode == 0


def test_history_holds_every_step_and_every_epoch_once(undisturbed, place):
    """What extras/report.py and your own plots will read."""
    lines = [json.loads(line) for line in (place / "whole" / "history.jsonl").open()]
    steps = [line for line in lines if "loss" in line]
    epochs = [line for line in lines if "train_loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert [line["step"] for line in epochs] == [8, 16, 24]
    history = undisturbed[0]["history"]
    assert [line["train_loss"] for line in epochs] == [one["train_loss"] for one in history]
    assert all(line["norm"] > 0 and 0 <= line["rate"] <= 1e-3 for line in steps)
    for line, one in zip(epochs, history):
        assert line["validation"] == one["validation"], "run.json is derived from it"


@pytest.mark.parametrize(
    "key, value",
    [("same", [1]), ("step", {}), ("history", 7), ("seconds", 1), ("random", []), ("scaler", 1)],
)
def test_a_strange_checkpoint_with_right_checksums_is_refused_in_one_line(
    stopped, place, key, value
):
    """It was not written by this program, whoever computed its checksums."""
    folder = stopped / "checkpoints" / str(unfinished.numbers(stopped)[-1])
    state = torch.load(folder / "state.pt", weights_only=True)
    torch.save(state | {key: value}, folder / "state.pt")
    (folder / "SHA256SUMS").write_bytes(unfinished.checksums(folder))
    done = run(place, "--resume", stopped)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "no checkpoint of ours" in done.stderr or "does not fit this model" in done.stderr


def test_a_link_in_the_folder_of_a_stranger_leads_our_writing_nowhere(stopped, place, tmp_path):
    """A model folder that somebody sends must not write into the home of who resumes it."""
    (tmp_path / "precious").write_text("mine")
    (stopped / "history.jsonl").rename(tmp_path / "history.jsonl")
    (stopped / "history.jsonl").symlink_to(tmp_path / "precious")
    done = run(place, "--resume", stopped)
    assert done.returncode == 2 and "history.jsonl in it is a link" in done.stderr
    (tmp_path / "history.jsonl").rename(stopped / "history.jsonl")
    # A link that has the name of a temporary file is removed, not followed.
    for name in ("history.jsonl", "README.md", "other.json"):
        temporary = stopped / f".{name}.{os.getpid()}.new"
        temporary.symlink_to(tmp_path / "precious")
    write_whole(stopped / "other.json", "{}")
    assert not temporary.is_symlink() and (stopped / "other.json").read_text() == "{}"
    assert (
        run(place, "--resume", shutil.copytree(stopped, tmp_path / "b", symlinks=True)).returncode
        == 0
    )
    assert (tmp_path / "precious").read_text() == "mine"
    shutil.move(stopped / "checkpoints", tmp_path / "elsewhere")
    (stopped / "checkpoints").symlink_to(tmp_path / "elsewhere")
    assert "checkpoints in it is a link" in run(place, "--resume", stopped).stderr
