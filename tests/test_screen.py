"""What a run shows: our own lines, 80 columns wide, and none of the libraries' that mislead."""

import logging
import os
import re
import shutil
import struct
import sys

import pytest
import torch
from conftest import PROJECT, run_script

from evaluate import score
from model import load_pretrained
from support import errors, hub
from support.saved import print_scores

TITLES = "REHEARSAL model device precision train validation test length steps time epoch accuracy "
TITLES += "loss macro saved python A negative positive warning"


def in_a_terminal(words, cwd, columns=80):
    """Run a command in a terminal of so many columns. Returns all that it writes, as text."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        os.chdir(cwd)
        os.execve(sys.executable, [sys.executable, *map(str, words)], dict(os.environ))
    written = b""
    try:
        while part := os.read(terminal, 1 << 16):
            written += part
    except OSError:  # the other end is closed
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, written.decode()
    return written.decode()


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    """What a short rehearsal writes to a terminal, bars and all."""
    words = [PROJECT / "finetune.py", "--demo", "--epochs", "2", "--subset", "200"]
    return in_a_terminal(words, tmp_path_factory.mktemp("terminal"))


def test_no_line_of_a_run_wraps_at_80_columns(screen):
    """Nobody has resized this terminal. A line that wraps breaks a table, and a bar becomes two."""
    pieces = re.split(r"[\r\n]+|\x1b\[A", screen)
    wide = [piece for piece in pieces if len(re.sub(r"\x1b\[[0-9;]*\w", "", piece)) > 80]
    assert len(pieces) > 30 and not wide


def test_a_run_shows_nothing_that_is_not_ours(screen):
    """A table of MISSING and UNEXPECTED looks like an alarm, and has made people give up."""
    lines = [line.rpartition("\r")[2] for line in screen.replace("\r\n", "\n").split("\n")]
    # What stands below the text of another line goes on with it.
    ours = [line for line in lines if line.strip() and not line.startswith(" " * 11)]
    words = [line.split()[0].strip(":") for line in ours]
    others = [word for word in words if word not in TITLES.split() and not word.isdecimal()]
    assert not others


def test_a_rehearsal_fits_one_and_a_half_screens(rehearsed):
    """Of 24 lines each, as terminals have had since 1978: what scrolls away is not read."""
    folder, printed = rehearsed
    # This one lies in a folder with a long name, which takes a line more than "demo" does.
    assert len(printed.rstrip().splitlines()) <= 36 + 1


def test_verbose_lets_all_through(tmp_path):
    """Whoever looks for a mistake wants to see what the library says, harmless or not."""
    words = ("finetune.py", "--demo", "--epochs", "1", "--subset", "40", "--out", tmp_path / "run")
    done = run_script(*words, "--verbose", env=dict(os.environ))
    assert done.returncode == 0 and "LOAD REPORT" in done.stderr
    for detail in ("parameters in matrices", "if batches were not grouped", "what trains"):
        assert detail in done.stdout


def test_only_what_is_known_to_be_harmless_is_kept_back(caplog, monkeypatch):
    """A filter that took all warnings would take the one that matters."""
    library = logging.getLogger("a_library")
    monkeypatch.setattr(library, "handlers", [caplog.handler])
    monkeypatch.setattr(library, "propagate", False)
    with hub.without("a_library", "LOAD REPORT"):
        library.warning("a LOAD REPORT")
        library.warning("the disk is full")
    library.warning("a LOAD REPORT, later")
    assert caplog.messages == ["the disk is full", "a LOAD REPORT, later"]
    monkeypatch.setattr(hub, "VERBOSE", True)
    with hub.without("a_library", "LOAD REPORT"):
        library.warning("a LOAD REPORT, --verbose")
    assert caplog.messages[-1] == "a LOAD REPORT, --verbose"


def test_layers_that_a_config_leaves_out_are_still_a_warning(workplace, tmp_path, capsys):
    """The library's table would have said so. Half an encoder trains, and is worse."""
    shutil.copytree(workplace / "encoder", tmp_path / "half")
    config = (tmp_path / "half" / "config.json").read_text()
    assert '"n_layers": 2' in config
    (tmp_path / "half" / "config.json").write_text(config.replace('"n_layers": 2', '"n_layers": 1'))
    _, note = load_pretrained(str(workplace / "encoder"), ["a", "b"], seed=42)
    assert note == "the head is new (--seed 42)" and not capsys.readouterr().out
    load_pretrained(str(tmp_path / "half"), ["a", "b"], seed=42)
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("warning 16 tensors of ") and ".layer.1." in said


def test_figures_stand_beside_what_to_compare_them_with(capsys):
    """96 % is little where 19 in 20 texts are of one class."""
    logits = torch.zeros(20, 2)
    logits[:, 0] = 1.0
    print_scores(score(logits, [0] * 19 + [1], ["common", "rare"]), "test")
    said = capsys.readouterr().out
    assert "accuracy   95.00%" in said and "always 'common': 95.00%" in said
    f1 = 100 * (2 * 0.95 / 1.95) / 2
    assert f"macro F1   {f1:.2f}%" in said and f"always one: {f1:.2f}%" in said
    assert "not one of the 1 reviews of rare" in " ".join(said.split())
    assert "no better than always 'common'" in said


@pytest.mark.parametrize("classes", [2, 4, 5])
def test_the_confusion_matrix_is_shown_whole(classes, capsys):
    """Beside the figures of the classes where it fits, else below them."""
    names = [f"class-{c}" for c in range(classes)]
    labels = torch.arange(classes).repeat_interleave(3)
    logits = torch.nn.functional.one_hot((labels + (torch.arange(len(labels)) % 3 == 0)) % classes)
    figures = score(logits.float(), labels.tolist(), names)
    print_scores(figures, "test")
    lines = capsys.readouterr().out.splitlines()
    for name, row in zip(names, figures["confusion"]):
        rows = [line.split() for line in lines if line.startswith(name)]
        assert [row_shown for row_shown in rows if row_shown[-classes:] == [*map(str, row)]]
    assert classes > 2 or max(map(len, lines)) <= 80


@pytest.mark.parametrize("classes", [12, 77])
def test_of_many_classes_the_most_confused_pairs_are_shown(classes, capsys):
    """A table of 77 x 77 cells is seen by nobody; neither are 77 rows."""
    names, labels = [f"class-{c}" for c in range(classes)], torch.arange(classes).repeat(4)
    said = labels.clone()
    said[:3] = 5  # classes 0, 1 and 2 once each are called class-5; class-3 three times class-4
    said[[3, 3 + classes, 3 + 2 * classes]] = 4
    logits = torch.nn.functional.one_hot(said, classes).float()
    print_scores(score(logits, labels.tolist(), names), "test")
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("most often confused")
    assert lines[at + 1].split() == ["3", "is", "class-3,", "called", "class-4"]
    assert len(lines) < 36 and max(map(len, lines)) <= 80
    shown = [line for line in lines if line.startswith("class-") and line.endswith(" 4")]
    assert len(shown) == (12 if classes == 12 else 10)


def test_a_long_line_goes_on_below_its_text(capsys):
    """A path, which has no spaces, stays whole: it is there to be copied."""
    errors.show("model", "a/b " * 40 + "x" * 90)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("model      a/b") and all(x.startswith(" " * 11) for x in lines[1:])
    assert lines[-1].strip() == "x" * 90 and max(map(len, lines[:-1])) <= 80
