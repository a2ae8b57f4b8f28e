"""Bad input gets one clear line and exit code 2; nothing that was saved is harmed."""

import hashlib
import io
import json
import re
import shlex
import shutil
import sys
import zipfile

import pyarrow.parquet
import pytest
from conftest import make_model

import dataset
import evaluate
import finetune
import model
import predict
from extras import baseline, behaviour, compare, explain, explore
from support.errors import run_command

COMMANDS = {
    "finetune": finetune,
    "evaluate": evaluate,
    "predict": predict,
    "dataset": dataset,
    "model": model,
    "compare": compare,
    "explain": explain,
    "behaviour": behaviour,
    "baseline": baseline,
    "explore": explore,
}
GOOD = "text,label\n" + "".join(f"good film {i},{i % 2}\n" for i in range(60))


@pytest.fixture(scope="module")
def place(tmp_path_factory, tokenizer):
    """A working folder with an encoder, a finished model, and files of every bad kind."""
    root = tmp_path_factory.mktemp("place")
    make_model().distilbert.save_pretrained(root / "encoder")
    tokenizer.save_pretrained(root / "encoder")
    files = {
        "good.csv": GOOD.encode(),
        "empty.csv": b"",
        "header.csv": b"text,label\n",
        "columns.csv": b"mark,what was said\n1,fine film\n2,bad one\n1,so so\n2,never again\n",
        "bytes.csv": b"text,label\ncaf\x81,1\n",
        "mostly.csv": "text,label\nna\u00efve caf\u00e9,1\n".encode() + b"caf\xe9,0\n",
        "zeros.csv": "text,label\nfine,1\n".encode("utf-16-le"),
        "broken.csv.gz": b"no archive",
        "broken.xlsx": b"no sheet",
        "oneclass.csv": b"text,label\nfine,1\nbad,1\n",
        "fractions.csv": b"text,label\nfine,0.5\nbad,1.5\n",
        "cells.csv": b"text,label\nfine, really,1\n",
        "blank.csv": b"text,label\n ,1\n,0\n",
        "ids.csv": b"text,label\n" + b"".join(b"fine %d,%d\n" % (i, i) for i in range(500)),
        "notes.txt": b"fine\n",
        "notes.docx": b"fine\n",
        "broken.jsonl": b'{"text": "fine", "label": 1}\n{"text": \n',
        "list.jsonl": b"[1, 2]\n",
        "lists.json": b'{"train": [["fine", "a"]], "test": [["bad", "b"]]}',
        "broken.parquet": b"PAR1 but no more",
        "othernames.csv": b"text,label\nfine,happy\nbad,sad\n",
        "tiny.csv": b"text,label\nfine,1\nbad,0\n",
        "seven.csv": b"text,label\nfine,1\nbad,7\n",
        "openquote.csv": b'text,label\n"fine,1\n' + GOOD.encode(),
        "twolabels.csv": b"text,label,label\nfine,1,0\n",
        "nested.jsonl": b'{"text": "a", "label": 1}\n{"text": ["b"], "label": 0}\n',
        "deep.jsonl": b'{"text": ' + b"[" * 100_000 + b"\n",
    }
    for name, content in files.items():
        (root / name).write_bytes(content)
    (root / "nothing").mkdir()
    (root / "theirs").mkdir()
    (root / "theirs" / "README.md").write_text("my notes")
    for name in ("theirs2", "theirs3/checkpoints", "begun/checkpoints", "torn/checkpoints", "led"):
        (root / name).mkdir(parents=True)
    (root / "theirs2" / "run.json").write_text('{"mine": 1}')
    (root / "theirs3" / "checkpoints" / "best.pt").write_text("mine")
    begun = {"model": "encoder", "data": "good.csv", "epochs": 1, "max_length": 20, "out": "begun"}
    (root / "begun" / "checkpoints" / "arguments.json").write_text(json.dumps(begun))
    (root / "torn" / "checkpoints" / "arguments.json").write_text('{"model": "enc')
    (root / "led" / "history.jsonl").symlink_to(root / "good.csv")
    (root / "led2" / "untrained").mkdir(parents=True)
    (root / "led2" / "untrained").rmdir()
    (root / "led2" / "untrained").symlink_to(root / "theirs")
    for name in ("train", "test"):
        (root / "hub/data").mkdir(parents=True, exist_ok=True)
        (root / f"hub/data/{name}.csv").write_text(GOOD)
    latin = pyarrow.array([b"caf\xe9", b"fine"]).view(pyarrow.string())  # which promises UTF-8
    pyarrow.parquet.write_table(
        pyarrow.table({"text": latin, "label": [0, 1]}), root / "latin.parquet"
    )
    (root / "twotrains").mkdir()
    for kind in ("csv", "tsv"):
        (root / "twotrains" / f"train.{kind}").write_bytes(b"text,label\n")
    with zipfile.ZipFile(root / "two.csv.zip", "w") as packed:
        packed.writestr("a.csv", "text,label\n")
        packed.writestr("b.csv", "text,label\n")
    return root


def call(command, words, monkeypatch, capsys, place):
    """Run a command's main() in this process. Returns (exit code, output, errors)."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", [f"{command}.py", *words])
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run_command(COMMANDS[command].main)
    output, errors = capsys.readouterr()
    return stopped.value.code or 0, output, errors


@pytest.fixture
def trained(place, monkeypatch, capsys):
    """The folder "model", made by a first short run in the working folder."""
    if not (place / "model" / "run.json").exists():
        words = "--model encoder --data good.csv --epochs 1 --max-length 20".split()
        code, output, errors = call("finetune", words, monkeypatch, capsys, place)
        assert code == 0, errors
        for damaged in ("headless", "swapped", "strange"):
            shutil.copytree(place / "model", place / damaged)
        shutil.copy(place / "encoder" / "model.safetensors", place / "headless")
        run = json.loads((place / "model" / "run.json").read_text())
        (place / "swapped" / "run.json").write_text(json.dumps(run | {"labels": ["1", "0"]}))
        for name, key, value in (("long", "max_length", 10**6), ("listed", "data", 5)):
            shutil.copytree(place / "model", place / name)
            changed = json.loads(json.dumps(run))
            changed["arguments"][key] = value
            (place / name / "run.json").write_text(json.dumps(changed))
        for name in ("forged", "kernel"):
            shutil.copytree(place / "model", place / name)
        (place / "forged" / "run.json").write_text(json.dumps(run | {"labels": ["0\n1 0.9", "1"]}))
        config = json.loads((place / "kernel" / "config.json").read_text())
        config["_attn_implementation"] = "evil/kernel"
        (place / "kernel" / "config.json").write_text(json.dumps(config))
        run["arguments"]["truncation"] = "middle"
        (place / "strange" / "run.json").write_text(json.dumps(run))
    return place / "model"


TRAIN = "--overwrite --model encoder --max-length 20 --data "
BAD = [
    ("finetune", TRAIN + "missing.csv", "no such file"),
    ("finetune", TRAIN + "./missing", "no such file"),
    ("finetune", TRAIN + "no/such-data-set", "no answer from"),
    ("finetune", "--overwrite --model no/such-model --data good.csv", "no answer from"),
    ("finetune", "--overwrite --model nothing --data good.csv", "holds no model"),
    ("finetune", TRAIN + "empty.csv", "empty.csv is empty"),
    ("finetune", TRAIN + "header.csv", "no rows"),
    ("finetune", TRAIN + "bytes.csv", "neither UTF-8 nor cp1252.*--encoding"),
    ("finetune", TRAIN + "mostly.csv", "is UTF-8, but not in line 3"),
    ("finetune", TRAIN + "mostly.csv --encoding klingon", "no such encoding"),
    ("finetune", TRAIN + "zeros.csv", "--encoding utf-16-le"),
    (
        "finetune",
        TRAIN + "columns.csv",
        "no column of texts .* and no column of labels .*"
        "'mark', 'what was said'.*--text-column 'what was said' --label-column mark",
    ),
    ("finetune", TRAIN + "columns.csv --text-column mark", "no column of labels"),
    ("finetune", TRAIN + "columns.csv --text-column nope", "no column 'nope'"),
    ("finetune", TRAIN + "good.csv --labels 1", "--labels 1=negative,2=positive"),
    ("finetune", TRAIN + "good.csv --labels 7=x", "no row has the label '7'"),
    ("finetune", TRAIN + "good.csv --delimiter dash", "one sign, or comma"),
    ("finetune", TRAIN + "two.csv.zip", "holds 2 files"),
    ("finetune", TRAIN + "broken.csv.gz", "cannot be unpacked"),
    ("finetune", TRAIN + "broken.xlsx", "not a readable spreadsheet"),
    ("finetune", TRAIN + "oneclass.csv", "only '1'"),
    ("finetune", TRAIN + "fractions.csv", "not a whole number"),
    ("finetune", TRAIN + "cells.csv", "line 2: more cells"),
    ("finetune", TRAIN + "blank.csv", "."),
    ("finetune", TRAIN + "ids.csv", "500 different values"),
    ("finetune", TRAIN + "notes.docx", "has to end in"),
    ("finetune", TRAIN + "notes.txt", "no column of labels.*--delimiter"),
    ("finetune", TRAIN + "good.csv --delimiter tab", "most likely with --delimiter"),
    ("finetune", TRAIN + "broken.jsonl", "line 2: not JSON"),
    ("finetune", TRAIN + "list.jsonl", "line 1: not an object"),
    ("finetune", TRAIN + "lists.json", r"holds lists \('train', 'test'\), not rows"),
    ("evaluate", "--data seven.csv --labels 7", "--labels 1=negative,2=positive"),
    ("finetune", TRAIN + "broken.parquet", "not a readable parquet"),
    ("finetune", TRAIN + "tiny.csv", "has no"),
    ("finetune", TRAIN + "nothing", "no train file"),
    ("finetune", TRAIN + "twotrains", "keep one file, or all parts"),
    ("finetune", TRAIN + "good.csv --subset 0", "--subset 0"),
    ("finetune", TRAIN + "good.csv --subset -5", "--subset -5"),
    ("finetune", TRAIN + "good.csv --subset 1", "has no"),
    ("finetune", TRAIN + "good.csv --max-length 2", "3 or more"),
    ("finetune", TRAIN + "good.csv --fold 6/5", "write it like 2/5"),
    ("finetune", TRAIN + "good.csv --fold 0/5", "write it like 2/5"),
    ("finetune", TRAIN + "good.csv --fold second", "write it like 2/5"),
    ("finetune", TRAIN + "good.csv --fold 1/1", "nothing is left to learn from"),
    ("finetune", TRAIN + "good.csv --max-length 41", "40 positions"),
    ("finetune", TRAIN + "good.csv --epochs 0", "--epochs 0"),
    ("finetune", TRAIN + "good.csv --epochs many", "invalid int"),
    ("finetune", TRAIN + "good.csv --batch-size 0", "--batch-size 0"),
    ("finetune", TRAIN + "good.csv --accumulate -1", "--accumulate -1"),
    ("finetune", TRAIN + "good.csv --patience 0", "--patience 0"),
    ("finetune", TRAIN + "good.csv --lr 0", "--lr"),
    ("finetune", TRAIN + "good.csv --lr nan", "--lr"),
    ("finetune", TRAIN + "good.csv --clip inf", "--clip"),
    ("finetune", TRAIN + "good.csv --warmup 1", "--warmup"),
    ("finetune", TRAIN + "good.csv --dropout 1", "--dropout"),
    ("finetune", TRAIN + "good.csv --attention-dropout -0.1", "--attention-dropout"),
    ("finetune", TRAIN + "good.csv --weight-decay -1", "--weight-decay"),
    ("finetune", TRAIN + "good.csv --head-epochs -1", "--head-epochs"),
    ("finetune", TRAIN + "good.csv --train-layers 3", "layers are 0 to 2"),
    ("finetune", TRAIN + "good.csv --train-layers -1", "0 or more"),
    ("finetune", TRAIN + "good.csv --truncation middle", "invalid choice"),
    ("finetune", TRAIN + "good.csv --device cuda:99", "not present"),
    ("finetune", TRAIN + "good.csv --device toaster", "has to be one of"),
    ("finetune", TRAIN + "good.csv --out good.csv/model", "cannot be written"),
    ("finetune", TRAIN + "good.csv --out good.csv", "read from"),
    ("finetune", TRAIN + "good.csv --learning-rate 1", "unrecognized"),
    ("finetune", TRAIN + "good.csv --out ''", "--out is empty"),
    ("finetune", TRAIN + "good.csv --out encoder", "read from"),
    ("finetune", TRAIN + "good.csv --out theirs", "README.md that is not ours"),
    ("finetune", TRAIN + "good.csv --out theirs2", "run.json that is not ours"),
    ("finetune", TRAIN + "good.csv --out theirs3", "checkpoints that is not ours"),
    ("finetune", TRAIN + "good.csv --out led", "history.jsonl in it is a link"),
    ("finetune", "--model encoder --data good.csv", "finished model.*add --overwrite"),
    ("finetune", "--model encoder --data good.csv --out begun", "not done.*--resume begun"),
    ("finetune", TRAIN + "good.csv --save-every -1", "--save-every -1"),
    ("finetune", TRAIN + "good.csv --save-every nan", "--save-every nan"),
    ("finetune", "--resume nowhere", "no run has begun"),
    ("finetune", "--resume nothing", "no run has begun"),
    ("finetune", "--resume ''", "no run has begun"),
    ("finetune", "--resume torn", "arguments.json is damaged"),
    ("finetune", "--resume begun --overwrite", "not both"),
    ("finetune", "--resume begun --epochs 7", "--epochs was 1 and would be 7"),
    ("finetune", "--resume begun --seed 7", "--seed was 42 and would be 7"),
    ("finetune", TRAIN + "good.csv --out led2", "untrained in it is a link"),
    ("predict", "--model forged good", "run.json is damaged"),
    ("predict", "--model long good", "max_length has to be at most 40"),
    ("predict", "--model kernel good", "asks for the code of evil/kernel"),
    ("evaluate", "--model listed", "run.json is damaged"),
    ("predict", "--file good.csv --out tiny.csv --resume", "older than the file or the model"),
    ("predict", "--file missing.csv --out tiny.csv --resume", "older than|not a file"),
    ("predict", "good --resume", "--resume goes with"),
    ("compare", "good.csv missing.csv", "no column 'predicted'"),
    ("finetune", TRAIN + "good.csv --seed -1", "--seed -1"),
    (
        "finetune",
        TRAIN + "good.csv --lr 1e30 --epochs 1 --batch-size 100 --out x",
        "tenth of this --lr",
    ),
    ("finetune", TRAIN + "openquote.csv", "line .*: not readable as CSV"),
    ("finetune", TRAIN + "twolabels.csv", "two columns named 'label'"),
    ("finetune", TRAIN + "nested.jsonl", "row 2: .* is no text, but list"),
    ("finetune", TRAIN + "deep.jsonl", "not JSON"),
    ("evaluate", "--model nowhere", "no such folder"),
    ("evaluate", "--model nothing", "no run.json"),
    ("evaluate", "--model encoder", "does not say on what it was trained"),
    ("evaluate", "--model encoder --data good.csv", "an encoder and no head.*finetune.py --model"),
    ("evaluate", "--subset 0", "--subset 0"),
    ("evaluate", "--batch-size 0", "--batch-size 0"),
    ("evaluate", "--data missing.csv", "no such file"),
    ("evaluate", "--data othernames.csv", "not among the classes"),
    ("evaluate", "--data blank.csv", "no row"),
    ("evaluate", "--data columns.csv", "no column"),
    ("evaluate", "--data tiny.csv --save nowhere/p.csv", "cannot be written"),
    ("evaluate", "--data tiny.csv --save nothing", "cannot be written"),
    ("evaluate", "--data tiny.csv --save tiny.csv", "the file that is read"),
    ("evaluate", "--save good.csv", "the file that is read"),
    ("evaluate", "--save model/run.json", "the file that is read"),
    ("evaluate", "--save new.csv --results new.csv", "named twice"),
    ("evaluate", "--data hub --save hub/data/test.csv", "the file that is read"),
    ("baseline", "--like model --results model/run.json", "the file that is read"),
    ("baseline", "--data good.csv --save new.csv --results new.csv", "named twice"),
    ("explore", "--data good.csv --model model --out model/run.json", "the file that is read"),
    ("explore", "--data good.csv --model model --save explore.html", "named twice"),
    ("predict", "--file good.csv --out ''", "cannot be written"),
    ("predict", "--file good.csv --label-column nope", "no column 'nope'"),
    ("evaluate", "--data seven.csv", "row 2: the label '7' is not among"),
    ("evaluate", "--model headless", "not the whole model"),
    ("evaluate", "--model swapped", "different classes"),
    ("evaluate", "--model strange", "run.json is damaged"),
    ("predict", "--model nowhere good", "no such folder"),
    ("predict", "--model nothing good", "no run.json"),
    ("predict", "", "nothing to read"),
    ("predict", "good ''", "text 2 of 2 is empty"),
    ("predict", "' '", "text 1 of 1 is empty"),
    ("predict", "--file missing.csv", "not a file"),
    ("predict", "--file bytes.csv --out p.csv", "neither UTF-8 nor"),
    ("predict", "--file latin.parquet --out p.csv", "not a readable parquet"),
    ("finetune", TRAIN + "latin.parquet", "not a readable parquet"),
    ("predict", "--file columns.csv", "no column of texts"),
    ("predict", "--file header.csv", "no rows"),
    ("predict", "--file good.csv --out good.csv", "the file that is read"),
    ("predict", "--file good.csv --out nowhere/p.csv", "cannot be written"),
    ("predict", "--file good.csv good", "not both"),
    ("predict", "--out p.csv good", "goes with --file"),
    ("predict", "--batch-size 0 good", "--batch-size 0"),
    ("dataset", "--model encoder ''", "is empty"),
    ("dataset", "--model encoder --max-length 2 good", "3 or more"),
    ("dataset", "--model no/such good", "no answer from"),
    ("dataset", "", "give sentences"),
    ("model", "--model encoder ' '", "is empty"),
    ("model", "--model nothing good", "holds no model"),
    ("dataset", "--data missing.csv", "no such file"),
    ("dataset", "--data oneclass.csv", "only '1'"),
    ("dataset", "--data good.csv Fine", "one or the other"),
    ("explain", "--model nothing good", "no run.json"),
    ("explain", "--model model ' '", "is empty"),
    ("explain", "--model model good --html nowhere/p.html", "cannot be written"),
    ("behaviour", "--model model", "the model knows 0, 1"),
    ("behaviour", "--model model --pairs good.csv", "no column 'original'"),
]


@pytest.mark.parametrize("command, line, expected", BAD, ids=[f"{c} {line}" for c, line, _ in BAD])
def test_bad_input_gets_one_line_and_exit_code_2(
    command, line, expected, trained, place, monkeypatch, capsys
):
    """What is wrong, where, and what to do; no traceback, and every file as it was."""

    def fingerprints():
        return {
            path: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(place.rglob("*"))
            if path.is_file() and not path.name.startswith(".") and place / "x" not in path.parents
        }

    before = fingerprints()
    code, _, errors = call(command, shlex.split(line), monkeypatch, capsys, place)
    lines = [x for x in errors.splitlines() if x.startswith("error:")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in errors
    assert re.search(expected, lines[0]), lines[0]
    assert fingerprints() == before


def test_a_subset_larger_than_the_data_uses_all_and_says_so(trained, place, monkeypatch, capsys):
    """Not an error: the user asked for much, and gets what there is."""
    words = (TRAIN + "good.csv --epochs 1 --subset 5000 --out all").split()
    code, output, _ = call("finetune", words, monkeypatch, capsys, place)
    assert code == 0 and "using all" in output
