"""What the README and the docstrings print can be typed, and shows what they say."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import distribution

import pytest
from conftest import PROJECT, run_script
from packaging.requirements import Requirement


def readme_commands():
    """The lines of the README's bash blocks that run one of our files."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text.replace("\\\n", ""), flags=re.S)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if "python " in part or part.startswith("torchrun ")]


def test_what_the_four_packages_bring_along_is_pinned():
    """Else the next reader installs other versions, that nobody has run this with."""
    pinned = {}
    for name in ("requirements.txt", "constraints.txt"):
        for line in (PROJECT / name).read_text().splitlines():
            if "==" in line:
                package, _, version = line.partition("==")
                pinned[package] = version
    todo, found = ["torch", "transformers", "datasets", "tqdm"], {}
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name in found or name.startswith(("nvidia", "cuda", "triton")):  # torch pins those
            continue
        found[name] = distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
    assert len(found) > 40 and set(found) <= set(pinned), set(found) - set(pinned)
    for name, package in found.items():
        assert package.version.partition("+")[0] == pinned[name], name


def test_every_option_in_the_readme_exists():
    """A flag that was renamed must not live on in the README."""
    helps = {"finetune.py": run_script("finetune.py", "--help").stdout}
    for command in readme_commands():
        script = re.search(r"(\w+\.py)(.*)", command)
        if not script:
            assert command in ("python -m pytest -n 2", "python -m venv .venv"), command
            continue
        if script[1] not in helps:
            helps[script[1]] = run_script(script[1], "--help").stdout
        own, _, passed_on = script[2].partition(" -- ")  # sweep.py passes the rest to finetune.py
        for words, name in ((own, script[1]), (passed_on, "finetune.py")):
            for option in re.findall(r"(?<= )--[a-z-]+", f" {words}"):
                assert option in helps[name], command


@pytest.fixture
def copied(rehearsed, tmp_path):
    """A copy of the project, with the folder that the rehearsal made in it."""
    for path in PROJECT.glob("*.py"):
        shutil.copy(path, tmp_path)
    shutil.copytree(PROJECT / "demo_reviews", tmp_path / "demo_reviews")
    shutil.copytree(rehearsed[0], tmp_path / "demo")
    return tmp_path


def test_every_file_shows_what_its_docstring_says(copied):
    """Under "Shows" stand a command and lines of its output, in their order; "..." leaves some out.

    A trained model's figures differ a little from machine to machine: they count as digits only.
    """
    shown = 0
    for path in sorted(PROJECT.glob("*.py")):
        block = re.search(r"^Shows     \$ python (.*?)(?=\n\n|\n\Z)", describe(path), re.S | re.M)
        if not block:
            continue
        command, *lines = block[1].split("\n")
        done = run_script(*shlex.split(command), cwd=copied)
        output = done.stdout + done.stderr

        def simplify(line):
            return (
                re.sub(r"[\d.,#]+", "0", line).split()
                if "demo" in command.split()
                else line.split()
            )

        rest = iter([simplify(line) for line in output.splitlines()])
        for line in lines:
            assert line == "          ..." or simplify(line) in rest, (command, line, output)
        shown += 1
    assert shown >= 18


def describe(path):
    """The docstring of a file."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False) or ""


def test_the_readmes_commands_without_network_run_as_printed(copied):
    """In their order."""
    # (Others are run by test_parallel.py, test_app.py and test_sweep.py.)
    commands = [c for c in readme_commands() if "demo" in c and "torchrun" not in c]
    commands = [c for c in commands if not re.search("finetune.py|app.py|sweep.py", c)]
    assert any("evaluate.py" in c for c in commands) and any("predict.py" in c for c in commands)
    for command in commands:
        if command.startswith("python "):  # in this process, which has torch already
            done = run_script(*shlex.split(command)[1:], cwd=copied)
        else:
            command = command.replace("python ", f"{sys.executable} ", 1)
            done = subprocess.run(
                command, shell=True, cwd=copied, capture_output=True, text=True, timeout=120
            )
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout.strip(), command
