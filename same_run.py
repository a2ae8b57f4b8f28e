"""Appendix Y: is it still the same run?

Teaches   on what a result depends: a run that goes on after a stop is the one it was only if its
          options, data, pretrained weights, libraries, machine and code are.
Order     after resume.py, for --resume.
Run       python same_run.py
Expect    the files whose code can change a result, each with a fingerprint that changes with its
          code (but not with its comments).
"""

import ast
import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import parallel
from errors import UserError, make_parser, run_command

# Options that may change on --resume: where model and data lie, too, because what they are is
# compared by fingerprints.
FREE = {"out", "resume", "overwrite", "save_every", "model", "data", "sanity"}
# Files whose code can change the result.
CODE = ("dataset", "sources", "splits", "hardware", "model", "attention", "optimizer", "finetune")
CODE += ("evaluate", "history", "resume", "checkpoint", "parallel")


def what_matters(args, run, examples, model):
    """{name: value} of everything that has to be the same for a run to go on exactly.

    run: see checkpoint.describe_run(). examples: {role: list of dicts}. The token ids are in it, so
    a changed tokenizer is noticed. Of the code, comments and docstrings may change.
    """
    same = {
        f"--{name.replace('_', '-')}": value
        for name, value in vars(args).items()
        if name not in FREE
    }
    same |= {name: version(name) for name in ("torch", "transformers", "tokenizers", "datasets")}
    same["precision"] = run["device"]["precision"]
    same["the kind of device"] = run["device"]["type"]
    same["the number of threads (OMP_NUM_THREADS)"] = run["device"]["threads"]
    same["the number of processes"] = parallel.world()
    same["the data (a fingerprint)"] = run["data_fingerprint"]
    tokens = json.dumps([[row["input_ids"] for row in split] for split in examples.values()])
    same["the token ids (a fingerprint)"] = digest(tokens)
    same["the pretrained weights (a fingerprint)"] = run["weights_fingerprint"]
    same["the model's config.json (a fingerprint)"] = digest(str(model.config))
    same |= {f"{name} (a fingerprint)": value for name, value in code_fingerprints().items()}
    return json.loads(json.dumps(same))  # as it comes back from a file


def code_fingerprints():
    """{name of a file: its code's fingerprint}."""
    paths = [Path(__file__).with_name(f"{name}.py") for name in CODE]
    return {path.name: digest(code_of(path.read_text(encoding="utf-8"))) for path in paths}


def code_of(source):
    """A program without its comments and docstrings, as text. source: as it stands in the file."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and isinstance(body[:1] and body[0], ast.Expr):
            if isinstance(body[0].value, ast.Constant):
                del body[0]
    return ast.dump(tree)


def digest(text):
    """16 letters that change when the text does."""
    return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()[:16]


def check_same(before, now, out):
    """Raise UserError, naming every difference, unless the run that goes on is the one it was."""
    changed = [
        f"{name} was {before.get(name)} and is {now.get(name)}"
        for name in sorted(before | now)
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise UserError(
            f"--resume {out}: this would be another run: {'; '.join(changed)}. Make it the same "
            "again, or start over with --overwrite"
        )


def main():
    make_parser(__doc__).parse_args()
    for name, value in code_fingerprints().items():
        print(f"{value}  {name}")


if __name__ == "__main__":
    run_command(main)
