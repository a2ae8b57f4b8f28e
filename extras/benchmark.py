"""Where does the time go? Ours beside Trainer, pipeline and ONNX engines, in one run.

Teaches   how to compare speeds so that the comparison holds: the same reviews, side by side, every
          contender in a process of its own, medians of several rounds, and beside them what the
          hardware could do at best. A machine that does other things at the same time is slow for
          all of them; a ratio survives that, a number of seconds does not.
After     finetune.py and evaluate.py; its measure of work is explained in extras/cost.py.
Run       pip install -r requirements-dev.txt          for accelerate (Trainer) and openvino
          python -m extras.benchmark                   about half an hour on two cores
          python -m extras.benchmark --rounds 1 --only score
          python -m docs.pages                         put what was stored into docs/speed.md
Expect    a table of reviews/s, padding, GFLOP/s, share of the limit and peak memory, and more of
          it in docs/results/benchmark-<hardware>.json.
"""

import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from tqdm import tqdm

from extras import cost
from dataset import draw, load_splits, take
from model import autocast, choose_hardware, load_pretrained
from extras.contenders import prepare
from extras.cost import finish
from support.devices import hardware_name, peak_bytes
from support.files import write_whole
from support.pretrained import load_tokenizer
from support.errors import UserError, make_parser, run_command
from support.hub import connect_to_hub

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"

# What is measured: (name, tokens, reviews, contenders). The first contender is ours.
TASKS = [
    ("train-256", 256, 192, ("finetune.py", "Trainer seed", "Trainer default", "Trainer best")),
    ("train-512", 512, 96, ("finetune.py", "Trainer default")),
    ("score-256", 256, 512, ("evaluate.py", "evaluate.py int8", "ONNX Runtime int8",
                             "OpenVINO bf16", "pipeline")),
    (
        "change-256",
        256,
        96,
        (
            "finetune.py",
            "but all tokens in the last layer",
            "but the library's attention",
            "but attention dropout 0.1",
            "but AdamW not fused",
            "but batches not grouped",
            "but fp32",
        ),
    ),
]
ABOUT = {
    "finetune.py": "as it stands",
    "Trainer seed": "batch 2 x 2, padded to the maximum, fp32",
    "Trainer default": "batch 16, DataCollatorWithPadding, fp32",
    "Trainer best": "batch 16, bf16, group_by_length, fused AdamW",
    "evaluate.py": "as it stands",
    "evaluate.py int8": "--precision int8",
    "ONNX Runtime int8": "quantize_dynamic(), a scale per channel, our batches",
    "OpenVINO bf16": "fp32 where the CPU has no bf16, our batches",
    "pipeline": "pipeline(..., batch_size=64), fp32",
}


# ------------------------------------------------------------------------------ 1. one measurement
def measure(contender, tokens, model_name, rows):
    """Time one contender once, in this process. Returns a dict of plain numbers.

    rows: {"texts": [...], "labels": [...]}. What it computes is seen from outside, by a hook on the
    model, so the same is counted for all: B, T and the real tokens of each micro-batch.
    """
    tokenizer = load_tokenizer(model_name)
    # The checkpoint's attention dropout for Trainer, ours for us: the recipes as they stand.
    theirs = contender.startswith("Trainer") or contender == "but attention dropout 0.1"
    model, _ = load_pretrained(
        model_name, ["negative", "positive"], 42, attention_dropout=None if theirs else 0.0
    )
    run, precision = prepare(contender, model, tokenizer, rows["texts"], rows["labels"], tokens)
    warm_up(model, tokenizer, rows["texts"][:16], precision)
    shapes, masks = [], []

    def look(module, args, kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))  # (B, T)
        masks.append(kwargs["attention_mask"])  # read later: to read makes a GPU wait

    watching = model.register_forward_pre_hook(look, with_kwargs=True)
    device = next(model.parameters()).device
    started = time.perf_counter()
    predicted = run()  # None for training
    finish(device)
    seconds = time.perf_counter() - started
    watching.remove()
    real = sum(int(mask.sum()) for mask in masks)  # tokens that are no padding

    vars(model).pop("forward", None)  # an engine's, in its place
    products = cost.products_of(model, shapes, training=predicted is None)
    figures = {
        "seconds": seconds,
        "precision": precision,
        "real_tokens": real,
        "padding_share": 1 - real / sum(b * t for b, t in shapes),
        "flops": cost.count_flops(products),
        "peak_bytes": peak_bytes(device),
        "predicted": predicted,
    }
    if contender in ("finetune.py", "Trainer best", "evaluate.py"):  # the products alone
        figures["limit_seconds"] = cost.time_products(products, device, precision)
    return figures


def warm_up(model, tokenizer, texts, precision):
    """One batch forward and backward: a first call sets up threads and kernels, for all alike."""
    device = next(model.parameters()).device
    batch = tokenizer(texts, truncation=True, max_length=64, padding=True, return_tensors="pt")
    with autocast(device, precision):
        logits = model(**batch.to(device)).logits
    if logits.requires_grad:  # other engines have no gradients
        logits.float().sum().backward()
    model.zero_grad()


# ------------------------------------------------------------------------------ 2. the whole
def measure_apart(contender, tokens, model_name, file):
    """measure() in a new process: nobody inherits another's memory, or warm caches."""
    command = [sys.executable, "-m", "extras.benchmark", "--worker"]
    command += [contender, str(tokens), model_name, file]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it says nothing"]
        raise UserError(f"{contender} at {tokens} tokens failed: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def summarize(task, reviews, contenders, rounds):
    """The median figures of each contender. rounds: a list of {contender: measure()'s dict}."""
    ours, rows = contenders[0], {}
    for name in contenders:
        runs = [one[name] for one in rounds]
        middle = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
        rows[name] = {
            "precision": middle["precision"],
            "seconds": [run["seconds"] for run in runs],
            "reviews_per_second": reviews / median(run["seconds"] for run in runs),
            "tokens_per_second": median(run["real_tokens"] / run["seconds"] for run in runs),
            "padding_share": middle["padding_share"],
            "flops_per_second": median(run["flops"] / run["seconds"] for run in runs),
            "peak_bytes": max(run["peak_bytes"] or 0 for run in runs),
            # Round by round, because within a round the machine was in the same mood.
            "ours_is_faster_by": median(
                one[name]["seconds"] / one[ours]["seconds"] for one in rounds
            ),
        }
        if "limit_seconds" in middle:
            rows[name]["share_of_limit"] = median(
                run["limit_seconds"] / run["seconds"] for run in runs
            )
        if middle["predicted"]:
            equal = map(int.__eq__, middle["predicted"], rounds[0][contenders[-1]]["predicted"])
            rows[name]["equal_labels"] = sum(equal) / reviews
    return {"task": task, "reviews": reviews, "rounds": len(rounds), "contenders": rows}


def table(result):
    """A result file as tables in Markdown, for the terminal and for docs/speed.md."""
    titles = {"train": "Training", "score": "Scoring", "change": "One thing changed"}
    lines = []
    for task in result["tasks"]:
        kind, tokens = task["task"].split("-")
        lines += [
            f"**{titles[kind]}, {task['reviews']} reviews, {tokens} tokens** "
            f"({task['rounds']} rounds)",
            "",
            "| contender | reviews/s | ours faster | padding | GFLOP/s | of limit | GiB |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, row in task["contenders"].items():
            cells = [
                f"{name}: {ABOUT[name]}" if name in ABOUT else name,
                f"{row['reviews_per_second']:.2f}",
                f"{row['ours_is_faster_by']:.2f}",
                f"{row['padding_share']:.1%}",
                f"{row['flops_per_second'] / 1e9:,.0f}",
                f"{row['share_of_limit']:.0%}" if "share_of_limit" in row else "",
                f"{row['peak_bytes'] / 2**30:.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def describe(result):
    """One sentence on what a result was measured with."""
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        f"`{result['model']}` on {result['hardware']} ({result['threads']} threads), "
        f"{result['precision']}, {versions}; each figure is a median over rounds."
    )


def main():
    if sys.argv[1:2] == ["--worker"]:
        contender, tokens, model_name, file = sys.argv[2:]
        rows = json.loads(Path(file).read_text())
        print(json.dumps(measure(contender, int(tokens), model_name, rows)))
        return
    parser = make_parser(__doc__)
    parser.add_argument("--model", default="distilbert-base-uncased", help="hub name or folder")
    parser.add_argument("--data", default="stanfordnlp/imdb", help="see finetune.py")
    parser.add_argument("--rounds", type=int, default=3, help="of each, for the median (default 3)")
    parser.add_argument("--only", default="", help="tasks whose name holds this: train, score, 512")
    parser.add_argument("--reviews", type=int, help="in each task (default: 96 to 512)")
    args = parser.parse_args()
    tasks = [task for task in TASKS if args.only in task[0]]
    if not tasks or min(args.rounds, args.reviews or 1) < 1:
        raise UserError("nothing to measure: --rounds 1 or more, --only train, score, 256 or 512")
    connect_to_hub(args.model, args.data)
    device, precision, _ = choose_hardware()
    splits, *_ = load_splits(args.data)
    packages = "torch transformers accelerate onnxruntime openvino".split()
    result = {
        "model": args.model,
        "hardware": hardware_name(device),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "versions": {"Python": platform.python_version()} | {p: version(p) for p in packages},
        "tasks": [],
    }
    RESULTS.mkdir(exist_ok=True)
    name = f"benchmark {result['hardware']} {result['threads']} {precision}"
    path = RESULTS / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.json"
    before = json.loads(path.read_text()) if args.only and path.exists() else None
    if before and any(before[key] != result[key] for key in ("model", "precision", "versions")):
        raise UserError(f"{path} was measured with another model or version: leave out --only")
    total = args.rounds * sum(len(contenders) for *_, contenders in tasks)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=total, unit=" runs") as bar:
        for task, tokens, reviews, contenders in tasks:
            split = splits["train" if task.startswith("train") else "test"]
            file = Path(folder, task)
            reviews = args.reviews or reviews
            chosen = draw(split["labels"], reviews, seed=42, equal=True)
            file.write_text(json.dumps(take(split, chosen)))
            rounds = []
            for _ in range(args.rounds):
                rounds.append({})
                for name in contenders:
                    bar.set_description(f"{task}, {name}")
                    rounds[-1][name] = measure_apart(name, tokens, args.model, str(file))
                    bar.update()
            result["tasks"].append(summarize(task, reviews, contenders, rounds))
    print(f"{describe(result)}\n\n{table(result)}")
    if before:  # what was not measured anew stays as it was
        new = {task["task"]: task for task in result["tasks"]}
        old = before["tasks"]
        result["tasks"] = [new.pop(task["task"], task) for task in old] + list(new.values())
    write_whole(path, json.dumps(result, indent=1) + "\n")
    print(f"\nin {path}; for docs/speed.md: python -m docs.pages")


if __name__ == "__main__":
    run_command(main)
