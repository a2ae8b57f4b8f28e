"""What the tests share: no network, tiny models of several families, and one rehearsed model."""

import contextlib
import io
import os
import runpy
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test may touch a network
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# The tests run in several processes at once (-n), with tiny models. If each had a thread for every
# core, they would wait for each other most of the time. Before torch is imported, too.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from filelock import FileLock
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertTokenizer,
    DistilBertConfig,
    ModernBertConfig,
    RobertaConfig,
)

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import finetune
from support.errors import run_command
from support.options import parse_arguments
from support.unfinished import Run

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "a film it isn ' t good bad loved hated plot ##ting act long not but the was . , ! ? : ( )"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FAMILIES = ("distilbert", "bert", "roberta", "modernbert")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: left out, unless asked for with -m slow, or by file")
    # What a shell starts in the background ignores Ctrl-C, and so does all that is started there.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    """Leave the slow tests out where nothing else was asked for: all others take three minutes."""
    named = any(Path(argument.partition("::")[0]).is_file() for argument in config.args)
    if not (named or config.option.markexpr):
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """A WordPiece tokenizer with some thirty words."""
    vocabulary = {token: i for i, token in enumerate(SPECIAL + WORDS.split())}
    return BertTokenizer(
        vocab=vocabulary,
        model_input_names=["input_ids", "attention_mask"],
        split_special_tokens=True,
    )


def make_model(family="distilbert", classes=2, loud=False, dropout=0.1):
    """A tiny random model. loud: large weights, so that a wrong mask changes the logits a lot."""
    size = {"vocab_size": 64, "pad_token_id": 0, "num_labels": classes}
    like_bert = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "initializer_range": 0.3 if loud else 0.02,
    }
    drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    config = {
        "distilbert": lambda: DistilBertConfig(
            dim=32,
            n_layers=2,
            n_heads=2,
            hidden_dim=64,
            max_position_embeddings=40,
            dropout=dropout,
            attention_dropout=dropout,
            seq_classif_dropout=dropout,
            initializer_range=0.3 if loud else 0.02,
            **size,
        ),
        "bert": lambda: BertConfig(max_position_embeddings=40, **like_bert, **drop, **size),
        # RoBERTa starts to count positions at its padding id + 1.
        "roberta": lambda: RobertaConfig(max_position_embeddings=41, **like_bert, **drop, **size),
        "modernbert": lambda: ModernBertConfig(
            max_position_embeddings=40,
            local_attention=8,
            bos_token_id=2,
            cls_token_id=2,
            eos_token_id=3,
            sep_token_id=3,
            **like_bert,
            **size,
        ),
    }[family]()
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.fixture
def arguments():
    """finetune.py's arguments, from a command line given as words."""
    return lambda *words: parse_arguments("", list(words))


def make_examples_of_lengths(lengths, classes=2):
    """Random token ids of the given lengths, opened by [CLS] and closed by [SEP]."""
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "input_ids": [2, *torch.randint(5, 30, (n - 2,), generator=generator).tolist(), 3],
            "label": i % classes,
        }
        for i, n in enumerate(lengths)
    ]


def train(model, examples, args, precision="fp32", run=None):
    """Run the loop of finetune.py in memory. Returns the lines that history.jsonl would hold."""
    args.epochs, args.lr = args.epochs or 2, args.lr or 5e-5
    run = run or Run(args)
    tokenizer = types.SimpleNamespace(pad_token_id=0)
    splits, names = {"train": {"examples": examples}}, ["negative", "positive"]
    cpu = torch.device("cpu")
    finetune.fine_tune(model, tokenizer, splits, names, args, cpu, precision, run)
    return run.lines


def epoch_losses(lines):
    """The mean loss of each epoch, over its reviews."""
    found = []
    for epoch in sorted({line["epoch"] for line in lines}):
        steps = [(line["loss"], line["reviews"]) for line in lines if line["epoch"] == epoch]
        found.append(sum(loss * n for loss, n in steps) / sum(n for _, n in steps))
    return found


def run_script(*words, cwd=PROJECT, module=None, **options):
    """Run one of the project's files as a user would. Returns returncode, stdout and stderr.

    In this process, because importing torch anew takes seconds; with options (input, env, ...) in a
    process of its own. module: the file as it has been imported, and perhaps altered by a test.
    """
    words = [str(word) for word in words]
    if options:
        command = [sys.executable, *["-m"] * words[0].startswith(("extras.", "docs.")), *words]
        return subprocess.run(
            command, cwd=cwd, capture_output=True, encoding="utf-8", timeout=170, **options
        )
    output, errors, before, code = io.StringIO(), io.StringIO(), (sys.argv, os.getcwd()), 0
    try:
        named = words[0].startswith(("extras.", "docs."))  # python -m extras.report
        path = f"{words[0].replace('.', '/')}.py" if named else words[0]
        sys.argv = [str(PROJECT / path) if named else path, *words[1:]]
        os.chdir(cwd)
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            if module:
                run_command(module.main)
            runpy.run_path(str(PROJECT / path), run_name="__main__")
    except SystemExit as stopped:
        code = stopped.code or 0
    finally:
        sys.argv = before[0]
        os.chdir(before[1])
    return types.SimpleNamespace(
        returncode=code, stdout=output.getvalue(), stderr=errors.getvalue()
    )


@pytest.fixture(scope="module")
def browser():
    """A real browser without a window; where there is none, the tests that need it are skipped."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = [path for name in BROWSERS if (path := shutil.which(name))]
    if not found:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as started:
        # Its sandbox needs rights that a container's root may lack; we open only our own pages.
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = started.chromium.launch(executable_path=found[0], args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def workplace(tmp_path_factory, tokenizer):
    """A folder with an untrained encoder, "encoder", and 60 short reviews, "good.csv"."""
    root = tmp_path_factory.mktemp("workplace")
    make_model().distilbert.save_pretrained(root / "encoder")
    tokenizer.save_pretrained(root / "encoder")
    rows = [f"{'good' if i % 2 else 'bad'} film {'. ' * (i % 7)}{i},{i % 2}" for i in range(60)]
    (root / "good.csv").write_text("\n".join(["text,label", *rows]))
    return root


@pytest.fixture(scope="session")
def rehearsed(tmp_path_factory):
    """The folder that `python finetune.py --demo` makes, and what it printed."""
    # The processes of pytest-xdist (-n) share it: the first trains it, the others wait. Each gets a
    # copy, because some tests write into it.
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder, printed = root / "rehearsal" / "demo", root / "rehearsal.txt"
    with FileLock(root / "rehearsal.lock"):
        if not printed.exists():
            # In a process of its own, with the user's environment: the one run that nothing here
            # prepares.
            done = run_script("finetune.py", "--demo", "--out", folder, env=dict(os.environ))
            assert done.returncode == 0, done.stderr
            printed.write_text(done.stdout)
    mine = shutil.copytree(folder, tmp_path_factory.mktemp("rehearsed") / "demo")
    return mine, printed.read_text()
