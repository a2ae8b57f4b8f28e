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
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from tqdm import tqdm

from dataset import draw, load_splits, take
from extras import cost
from extras.contenders import CHANGES, CONTENDERS
from model import autocast, choose_hardware, load_pretrained
from support.devices import hardware_name, peak_bytes
from support.errors import UserError, check_counts, make_parser, run_command
from support.files import read_json, write_whole
from support.hub import connect_to_hub
from support.pretrained import load_tokenizer

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
# What is measured, at how many tokens: (reviews, contenders). The first contender is ours.
TASKS = {
    "train-256": (192, ["finetune.py", "Trainer seed", "Trainer default", "Trainer best"]),
    "train-512": (96, ["finetune.py", "Trainer default"]),
    "score-256": (512, ["evaluate.py", "evaluate.py int8", "ONNX Runtime int8", "OpenVINO bf16",
                        "pipeline"]),
    "change-256": (96, ["finetune.py", *CHANGES]),
}
LIMITED = ("finetune.py", "Trainer best", "evaluate.py")  # compared with what they multiply


# ------------------------------------------------------------------------------ 1. one measurement
def measure(contender, tokens, model_name, rows):
    """Time one contender once, in this process. Returns a dict of plain numbers.

    rows: {"texts": [...], "labels": [...]}. What it computes is seen from outside, by a hook on the
    model, so the same is counted for all: B, T and the real tokens of each micro-batch.
    """
    tokenizer, (_, prepare, how) = load_tokenizer(model_name), CONTENDERS[contender]
    # The checkpoint's attention dropout for Trainer, ours for us: the recipes as they stand.
    theirs = contender.startswith("Trainer") or contender == "but attention dropout 0.1"
    dropout = None if theirs else 0.0
    model, _ = load_pretrained(model_name, ["negative", "positive"], 42, None, dropout)
    run, precision = prepare(how, model, tokenizer, rows["texts"], rows["labels"], tokens)
    warm_up(model, tokenizer, rows["texts"][:16], precision)
    shapes, masks = [], []

    def look(module, args, kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))  # (B, T)
        masks.append(kwargs["attention_mask"])  # read later: to read makes a GPU wait

    watching = model.register_forward_pre_hook(look, with_kwargs=True)
    device = next(model.parameters()).device
    started = time.perf_counter()
    predicted = run()  # None for training
    cost.finish(device)
    seconds = time.perf_counter() - started
    watching.remove()
    peak = peak_bytes(device)
    vars(model).pop("forward", None)  # an engine's, in its place
    products = cost.products_of(model, shapes, training=predicted is None)
    real = sum(int(mask.sum()) for mask in masks)  # tokens that are no padding
    limit = cost.time_products(products, device, precision) if contender in LIMITED else None
    return {
        "seconds": seconds,
        "precision": precision,
        "real_tokens": real,
        "padding_share": 1 - real / sum(b * t for b, t in shapes),
        "flops": cost.count_flops(products),
        "peak_bytes": peak or 0,
        "limit_seconds": limit,
        "predicted": predicted,
    }


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
def summarize(task, reviews, rounds):
    """Each contender's figures, medians over rounds. rounds: dicts {contender: of measure()}."""
    ours, rows = next(iter(rounds[0])), {}
    for name, first in rounds[0].items():
        runs = [one[name] for one in rounds]
        seconds = [run["seconds"] for run in runs]
        rows[name] = {
            "precision": first["precision"],
            "seconds": seconds,
            "reviews_per_second": reviews / median(seconds),
            "padding_share": first["padding_share"],
            "flops_per_second": first["flops"] / median(seconds),
            "peak_bytes": max(run["peak_bytes"] for run in runs),
            # Round by round, because within a round the machine was in the same mood.
            "ours_is_faster_by": median(
                one[name]["seconds"] / one[ours]["seconds"] for one in rounds
            ),
        }
        if first["limit_seconds"]:
            shares = [run["limit_seconds"] / run["seconds"] for run in runs]
            rows[name]["share_of_limit"] = median(shares)
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
                ": ".join(filter(None, [name, CONTENDERS[name][0]])),
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
    parser = make_parser(__doc__)
    parser.add_argument("--model", default="distilbert-base-uncased", help="hub name or folder")
    parser.add_argument("--data", default="stanfordnlp/imdb", help="see finetune.py")
    parser.add_argument("--rounds", type=int, default=3, help="of each, for the median (default 3)")
    parser.add_argument("--only", default="", help="tasks whose name holds this: train, score, 512")
    parser.add_argument("--reviews", type=int, help="in each task (default: 96 to 512)")
    args = parser.parse_args()
    check_counts(args, "rounds", "reviews")
    tasks = {name: what for name, what in TASKS.items() if args.only in name}
    if not tasks:
        raise UserError(f"--only {args.only}: has to be in one of {', '.join(TASKS)}")
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
    name = f"benchmark {result['hardware']} {result['threads']} {precision}"
    path = RESULTS / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.json"
    # With --only, what is not measured anew stays as it was.
    before = read_json(path) if args.only and path.exists() else result
    if before | {"tasks": []} != result:
        raise UserError(f"{path} was measured with another model or version: leave out --only")
    for task, (usual, contenders) in tasks.items():
        split, reviews = splits["train" if "train" in task else "test"], args.reviews or usual
        rows = take(split, draw(split["labels"], reviews, seed=42, equal=True))
        rounds = []
        for number in range(args.rounds):
            rounds.append({})
            for name in tqdm(contenders, desc=f"{task}, round {number + 1}"):
                # In a new process: nobody inherits another's memory, or warm caches.
                with ProcessPoolExecutor(1, get_context("spawn")) as process:
                    given = name, int(task.split("-")[1]), args.model, rows
                    rounds[-1][name] = process.submit(measure, *given).result()
        result["tasks"].append(summarize(task, reviews, rounds))
    print(f"{describe(result)}\n\n{table(result)}")
    done = {task["task"]: task for one in (before, result) for task in one["tasks"]}
    result["tasks"] = list(done.values())
    write_whole(path, json.dumps(result, indent=1) + "\n")
    print(f"\nin {path}; for docs/speed.md: python -m docs.pages")


if __name__ == "__main__":
    run_command(main)
