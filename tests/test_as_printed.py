"""What the README, docs/ and the docstrings print can be typed, and shows what they say."""

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

SCRIPT = re.compile(r"(?:python|torchrun\b.*?) (?:-m )?((?:extras|docs\.results)\.\w+|\w+\.py)(.*)")
OTHERS = {"python -m pytest -n 2", "python -m venv .venv", "python tests/kill_runs.py --runs 20"}
OTHERS |= {"python -m docs.pages", "python -m docs.pictures", "python -m pytest -n 2 -m slow"}
# Whoever opens the folder is to find these explained; support/ explains itself in one place.
DESCRIBED = [*sorted(PROJECT.glob("*.py")), *sorted((PROJECT / "extras").glob("*.py"))]


def pages_text():
    """README.md and the pages of docs/, one after the other."""
    paths = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def page_commands():
    """The lines of the pages' bash blocks that run one of our files, each once."""
    text = pages_text()
    blocks = re.findall(r"```bash\n(.*?)```", text.replace("\\\n", ""), flags=re.S)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    parts = [part for part in parts if "python " in part or part.startswith("torchrun ")]
    return list(dict.fromkeys(parts))


def commands_in_sentences():
    """Those that stand in the pages' sentences and tables, between backticks."""
    text = re.sub(r"```.*?```", "", pages_text(), flags=re.S)
    found = re.findall(r"`((?:python|torchrun) [^`]*)`", text)
    return [" ".join(command.split()) for command in found]


def docstring_commands():
    """Those under "Run" and "Shows"; what stands two spaces behind them is about them."""
    text = "\n".join(describe(path) for path in DESCRIBED)
    found = re.findall(r"^(?:Run|Shows)?\s+(?:\$ )?((?:python|torchrun) .*)$", text, flags=re.M)
    return [re.split(r"\s{2,}", command)[0] for command in found]


def describe(path):
    """The docstring of a file."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False) or ""


def words_of(command):
    """What run_script() takes, of a command that begins with "python"."""
    words = shlex.split(command)[1:]
    return words[1:] if words[0] == "-m" else words


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


@pytest.mark.parametrize(
    "commands",
    [page_commands, commands_in_sentences, docstring_commands],
    ids=lambda found_in: found_in.__name__,
)
def test_every_command_and_every_option_that_is_printed_exists(commands):
    """A file that has moved, or a flag that was renamed, must not live on in what we tell."""
    helps, found = {}, commands()
    assert len(found) > 10
    for command in ["python finetune.py", *found]:
        script = SCRIPT.search(command)
        if not script:
            assert command in OTHERS, command
            continue
        if script[1] not in helps and not script[1].startswith("docs.results."):
            helps[script[1]] = run_script(script[1], "--help").stdout
            assert helps[script[1]].startswith("usage"), command
        own, _, passed_on = script[2].partition(" -- ")  # extras.search passes on to finetune.py
        for words, name in ((own, script[1]), (passed_on, "finetune.py")):
            if name.startswith("docs.results."):  # these run when they are imported
                known = (PROJECT / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
            else:
                known = helps[name]
            for option in re.findall(r"(?<= --)[a-z0-9][a-z0-9-]*", f" {words}"):
                assert option in known, command


@pytest.fixture
def copied(rehearsed, tmp_path):
    """A copy of the project, with the folder that the rehearsal made in it."""
    for path in PROJECT.glob("*.py"):
        shutil.copy(path, tmp_path)
    for name in ("support", "extras"):
        shutil.copytree(
            PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    (tmp_path / "docs" / "results").mkdir(parents=True)
    shutil.copy(PROJECT / "docs" / "results" / "tables.py", tmp_path / "docs" / "results")
    shutil.copytree(rehearsed[0], tmp_path / "demo")
    return tmp_path


def shown_in(path):
    """(command, lines of its output) under "Shows" in a file's docstring, or None."""
    block = re.search(r"^Shows     \$ (python .*?)(?=\n\n|\n\Z)", describe(path), re.S | re.M)
    if not block:
        return None
    command, *lines = block[1].split("\n")
    return command, lines


SHOWN = [path for path in DESCRIBED if shown_in(path)]


def test_most_commands_show_their_own_step():
    """The five chapters all do; and of the extras those that need seconds, and no other files."""
    assert len(SHOWN) == 10
    assert len([path for path in SHOWN if path.parent == PROJECT]) == 5


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.stem)
@pytest.mark.slow
def test_every_file_shows_what_its_docstring_says(path, copied):
    """Under "Shows" stand a command and lines of its output, in their order; "..." leaves some out.

    A trained model's figures differ from machine to machine, and one near zero may change its sign:
    they count as digits only.
    """
    command, lines = shown_in(path)
    trained = {"demo", "--demo"} & set(command.split())
    done = run_script(*words_of(command), cwd=copied)
    output = done.stdout + done.stderr

    def simplify(line):
        return (re.sub(r"[+-]?[\d.,#]+", "0", line) if trained else line).split()

    rest = iter([simplify(line) for line in output.splitlines()])
    for line in lines:
        assert line == "          ..." or simplify(line) in rest, (command, line, output)


@pytest.mark.slow
def test_the_pages_commands_without_network_run_as_printed(copied):
    """In their order."""
    # (Others are run by test_parallel.py, test_app.py and test_search.py.)
    commands = [c for c in page_commands() if "demo" in c and "torchrun" not in c]
    commands = [c for c in commands if not re.search(r"finetune\.py|extras\.(app|search)", c)]
    for script in ("dataset.py", "evaluate.py", "predict.py", "-m extras.report"):
        assert any(f"python {script}" in command for command in commands), script
    for command in commands:
        if command.startswith("python "):  # in this process, which has torch already
            done = run_script(*words_of(command), cwd=copied)
        else:
            command = command.replace("python ", f"{sys.executable} ", 1)
            done = subprocess.run(
                command, shell=True, cwd=copied, capture_output=True, text=True, timeout=120
            )
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout.strip(), command
