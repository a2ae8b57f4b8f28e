"""What is exported gives the answers of the model that was saved, or is not kept."""

import sys

import numpy
import pytest
import torch
from conftest import run_script

from extras import export
from model import load_model
from support.errors import UserError

pytestmark = pytest.mark.slow

onnxruntime = pytest.importorskip("onnxruntime")


def run_export(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["extras/export.py", *map(str, words)])
    export.main()


def without_exports(rehearsed):
    for path in rehearsed[0].glob("*.onnx"):
        path.unlink()
    return rehearsed[0]


def test_other_programs_get_the_same_logits(rehearsed, capsys, monkeypatch):
    """From one file, for any number of texts of any length, padded or not."""
    folder, _ = rehearsed
    run_export(monkeypatch, "--model", folder, "--int8")
    said = capsys.readouterr().out
    assert "200 of 200 answers equal" in said and "whole numbers in" in said
    assert not list(folder.glob(".exporting-*"))
    sizes = {name: (folder / name).stat().st_size for name in ("model.onnx", "model-int8.onnx")}
    assert sizes["model-int8.onnx"] < sizes["model.onnx"]
    model, *_ = load_model(folder)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    for texts, tokens in ((1, 2), (1, 64), (2, 3), (7, 19), (33, 50)):
        ids = torch.randint(5, 200, (texts, tokens))
        mask = torch.ones_like(ids)
        mask[0, tokens // 2 + 1 :] = 0
        with torch.inference_mode():
            ours = model(input_ids=ids, attention_mask=mask).logits.numpy()
        given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        assert numpy.abs(session.run(None, given)[0] - ours).max() < 1e-4


def test_a_file_that_answers_otherwise_is_not_kept(rehearsed, monkeypatch):
    """A wrong operator would otherwise be found by those who trust the file."""
    folder, ask = without_exports(rehearsed), export.ask
    monkeypatch.setattr(export, "ask", lambda *given: ask(*given) + 0.001)
    with pytest.raises(UserError, match="not the model that was saved"):
        run_export(monkeypatch, "--model", folder)
    assert not list(folder.glob("*.onnx")) and not list(folder.glob(".exporting-*"))


def test_whole_numbers_that_change_answers_are_tried_with_fewer_matrices(
    rehearsed, capsys, monkeypatch
):
    """All matrices, all but those behind GELU, those of attention; then it is given up."""
    folder, ask = without_exports(rehearsed), export.ask

    def wrong(path, batches):
        return ask(path, batches) * (-1 if "int8" in path.name else 1)

    monkeypatch.setattr(export, "ask", wrong)
    (folder / "model-int8.onnx").write_text("of the model that was here before")
    run_export(monkeypatch, "--model", folder, "--int8")
    said = capsys.readouterr().out
    assert all(what in said for what in export.LADDER) and said.count("not kept") == 3
    assert [path.name for path in folder.glob("*.onnx")] == ["model.onnx"]


def test_a_missing_package_is_one_line(rehearsed, monkeypatch):
    """Whoever has the four packages is told what to install."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match="onnxscript: pip install -r requirements-extra.txt"):
        run_export(monkeypatch, "--model", rehearsed[0])
    done = run_script("extras.export", "--model", "nothing here")
    assert done.returncode == 2 and "Traceback" not in done.stderr
