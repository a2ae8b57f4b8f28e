"""The notebook runs from its first cell to its last, and repeats nothing of the chapters."""

import json
import os
import re
import shutil
import sys
import time

import pytest
from conftest import PROJECT

from dataset import clean

NOTEBOOK = PROJECT / "tutorial.ipynb"


def cells(kind):
    """The texts of the notebook's cells of a kind, "code" or "markdown"."""
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def without_magic(source):
    """A cell as Python: lines for the shell and for Jupyter are left out."""
    return re.sub(r"^( *)[!%].*$", r"\1pass", source, flags=re.M)


def test_the_notebook_is_kept_without_results_and_leads_to_pages_that_exist():
    """Results belong to the machine that made them, and would change with each run."""
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    results = [cell.get(key) for cell in found["cells"] for key in ("outputs", "execution_count")]
    assert not any(results)
    for target in re.findall(r"\]\((?!http)([^)#]+)", "\n".join(cells("markdown"))):
        assert (PROJECT / target).exists(), target
    assert clean("x<br />y") == "x y", "what the first sentence shows"


def test_the_notebook_imports_the_chapters_and_repeats_none_of_their_code():
    """Two loops that are nearly the same would soon differ, and nobody would notice."""
    code = "\n".join(map(without_magic, cells("code")))
    compile(code, "tutorial.ipynb", "exec")
    for chapter in ("dataset", "model", "finetune", "evaluate", "predict"):
        assert re.search(rf"^(from|import) {chapter}\b", code, re.M), chapter
    assert ".backward(" not in code and "optimizer.step" not in code and "def " not in code
    lines = {line.strip() for line in code.splitlines() if len(line.strip()) > 50}
    for path in PROJECT.glob("*.py"):
        own = {line.strip() for line in path.read_text(encoding="utf-8").splitlines()}
        again = [line for line in lines & own if not line.startswith(("from ", "import "))]
        assert not again, (path.name, again)


@pytest.mark.slow
def test_every_cell_runs_on_a_machine_without_a_gpu(tmp_path):
    """As Jupyter runs it, with the rehearsal, in a copy of the project: within a minute."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    for name in ("support", "extras", "docs"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    for path in [*PROJECT.glob("*.py"), *PROJECT.glob("requirements*.txt"), NOTEBOOK]:
        shutil.copy(path, tmp_path)
    notebook = nbformat.read(tmp_path / NOTEBOOK.name, as_version=4)
    where = {"resources": {"metadata": {"path": str(tmp_path)}}, "timeout": 150}
    client = nbclient.NotebookClient(notebook, kernel_name="python3", **where)
    client.create_kernel_manager()
    # The Python that runs the tests, whatever Jupyter knows under this name.
    client.km.kernel_spec.argv[0] = sys.executable
    started = time.monotonic()
    client.execute(env=dict(os.environ, CUDA_VISIBLE_DEVICES=""))
    seconds = time.monotonic() - started
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    pictures = [out for out in outputs if "image/png" in out.get("data", {})]
    text = "".join(out.get("text", "") for out in outputs)
    assert len(pictures) == 4 and "padding" not in text.split("loss before")[0]
    assert "[CLS]" in text and "macro F1" in text and (tmp_path / "notebook" / "run.json").exists()
    (colored,) = [out["data"]["text/html"] for out in outputs if "text/html" in out.get("data", {})]
    assert colored.count('class="words"') == 3
    assert not any(out.output_type == "error" for out in outputs)
    assert seconds < 120, f"{seconds:.0f} s: the issue asks for 60 on a machine of its own"
    if folder := os.environ.get("KEEP_NOTEBOOK"):
        nbformat.write(notebook, folder)
