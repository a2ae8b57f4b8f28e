"""Dockerfile, .dockerignore and docs/container.md say what the code says. No container is needed.

That the image can be built, and what it does then, was tried by hand: see docs/container.md.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import PROJECT, run_script
from test_app import serving

from extras import app

SOURCE = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
PAGE = (PROJECT / "docs" / "container.md").read_text(encoding="utf-8")


def instructions(name):
    """What stands behind `name` in the Dockerfile, each time; a line that goes on below is one."""
    lines = [line for line in SOURCE.splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", "")
    return re.findall(rf"^{name} +(.*)$", whole, re.M)


def copied():
    """The paths that the image gets."""
    return [path for words in instructions("COPY") for path in words.split()[:-1]]


def asked_for():
    """What extras.app makes of the words that the image starts it with: a Namespace."""
    (command,) = map(json.loads, instructions("CMD"))
    assert command[:3] == ["python", "-m", "extras.app"]
    parse, found = argparse.ArgumentParser.parse_args, []

    def parse_and_stop(self):
        found.append(parse(self))
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        patch.setattr(sys, "argv", command[2:])
        app.main()
    return found[0]


def health_command():
    """The words of HEALTHCHECK's command."""
    (check,) = instructions("HEALTHCHECK")
    return json.loads(check.partition("CMD ")[2])


# ------------------------------------------------------------------------------ the files
def test_the_image_gets_every_chapter_and_what_it_stands_on():
    """A chapter that is renamed or added has to be copied, too."""
    assert all((PROJECT / path).exists() for path in copied()), copied()
    assert {path for path in copied() if path.endswith(".py")} == {
        path.name for path in PROJECT.glob("*.py")
    }


def test_what_is_left_out_is_nothing_that_is_copied():
    """.dockerignore leaves out all but what it names. A file missing there stops the build."""
    text = (PROJECT / ".dockerignore").read_text(encoding="utf-8")
    first, *lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert first == "*"
    assert sorted(line[1:] for line in lines if line.startswith("!")) == sorted(copied())


def test_what_is_copied_is_enough(rehearsed, tmp_path):
    """The chapters and extras run where nothing else of the project is."""
    for path in copied():
        take = shutil.copytree if (PROJECT / path).is_dir() else shutil.copy
        take(PROJECT / path, tmp_path / path)
    env = dict(os.environ)
    for words in (
        ("predict.py", "--model", rehearsed[0], "Loved it"),
        ("finetune.py", "--demo", "--epochs", 1, "--subset", 40, "--out", tmp_path / "run"),
        ("extras.app", "--help"),
    ):
        done = run_script(*words, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------ the page
def test_the_page_is_served_where_it_is_asked_for():
    """One port in four places: extras.app's, EXPOSE, the question about health, the page."""
    args = asked_for()
    assert args.host == "0.0.0.0", "127.0.0.1 in there is not to be reached from outside"
    assert args.model.startswith("/work/")
    assert instructions("EXPOSE") == [str(args.port)]
    assert f"http://127.0.0.1:{args.port}/" in health_command()[-1]
    published = re.findall(r"-p ([\d.:]+)", PAGE)
    assert published, "and in the commands that people type"
    for address in published:
        assert address.removeprefix("127.0.0.1:") == f"{args.port}:{args.port}"
    assert set(re.findall(r"http://([\d.]+:\d+)", PAGE)) == {f"127.0.0.1:{args.port}"}


def test_the_question_about_health_is_answered(rehearsed, tmp_path):
    """By a running page, whatever proxy there is; without one it fails."""
    python, *words, code = health_command()
    assert python == "python"
    env = os.environ | {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    with serving(rehearsed[0], tmp_path) as address:
        here = code.replace(f"http://127.0.0.1:{asked_for().port}", address)
        assert here != code
        command = [sys.executable, *words, here]
        assert subprocess.run(command, env=env).returncode == 0
    assert subprocess.run(command, env=env, stderr=subprocess.DEVNULL).returncode != 0


# ------------------------------------------------------------------------------ what it is made of
def test_its_python_is_the_one_that_the_readme_names():
    """Packages are fixed for it, and may not be there for another."""
    (base,) = instructions("FROM")
    version = re.fullmatch(r"python:(3\.\d+)-slim", base)[1]
    assert f"with Python {version}:" in (PROJECT / "README.md").read_text(encoding="utf-8")


def test_versions_stand_in_the_requirements_only():
    """Also torch's: the shell finds its line, and exactly that."""
    assert not re.search(r"==\s*\d", SOURCE)
    (line,) = [run for run in instructions("RUN") if "TORCH_INDEX" in run]
    (search,) = re.findall(r"\$\((.*?)\)", line)
    found = subprocess.run(search, shell=True, cwd=PROJECT, capture_output=True, text=True)
    assert re.fullmatch(r"torch==[\d.]+\n", found.stdout), found
    pip = [shlex.split(part) for part in line.split("&&")]
    assert pip[1][-2:] == ["-r", "requirements-extra.txt"], "then all the rest"


def test_it_does_not_run_as_root():
    """A number, the last thing before the command, and the user of that number is made."""
    names = re.findall(r"^([A-Z]+) ", SOURCE, re.M)
    (user,) = instructions("USER")
    assert user.isdecimal() and int(user) >= 1000
    assert f"useradd --uid {user} " in SOURCE
    assert not {"RUN", "COPY"} & set(names[names.index("USER") :]), "made by root, for everybody"


def test_what_it_downloads_and_saves_stays_in_the_mounted_folder():
    """As the page says it: /work is the reader's own folder, whoever that is."""
    variables = dict(word.split("=") for word in instructions("ENV")[0].split())
    cache = variables["HF_HOME"]
    assert cache.startswith("/work/") and f"`{cache.removeprefix('/work/')}`" in PAGE
    (name,) = re.findall(r"docker build -t (\w+) \.", PAGE)
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.S)
    commands = "".join(blocks).replace("\\\n", "").splitlines()
    runs = [shlex.split(line) for line in commands if line.startswith("docker run")]
    assert len(runs) >= 2
    for words in runs:
        assert name in words and words[words.index("--user") + 1] == "$(id -u):$(id -g)"
        assert words[words.index("-v") + 1].startswith("$PWD:/work")
