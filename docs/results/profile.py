"""Where the time of a training step goes, for docs/speed.md.

Run       python -m docs.results.profile     writes docs/results/profile.json
Needs DistilBERT; a minute. The reviews are random tokens: speed does not depend on them.
"""

import json
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

import finetune
from dataset import make_examples
from model import choose_hardware, load_pretrained, speed_up
from support.devices import hardware_name
from support.options import parse_arguments
from support.pretrained import load_tokenizer
from support.unfinished import Run

KINDS = {  # the beginnings of PyTorch's names for what it does
    "matrix products": ("addmm", "mm", "bmm", "linear", "mkldnn"),
    "attention": ("_scaled_dot_product",),
    "GELU": ("gelu",),
    "dropout": ("native_dropout", "bernoulli", "dropout"),
    "layer norms": ("native_layer_norm",),
    "AdamW": ("_fused_adamw",),
    "gradients of the embeddings": ("embedding_dense_backward",),
    "norm and clipping": ("_foreach", "linalg_vector_norm"),
    "casts and copies": ("copy_", "_to_copy"),
    "sums": ("sum", "add", "add_"),
}

name = "distilbert-base-uncased"
args = parse_arguments("", ["--epochs", "1", "--lr", "5e-5"])
device, precision, _ = choose_hardware()
model, _ = load_pretrained(name, ["negative", "positive"], 42)
speed_up(model.to(device), device, precision)
rows = torch.randint(1000, 20_000, (64, 256)).tolist()
splits = {"train": {"examples": make_examples(rows, [0, 1] * 32)}}
given = load_tokenizer(name), splits, ["negative", "positive"], args, device, precision
finetune.fine_tune(model, *given, Run(args))  # kernels are chosen and memory is set aside
with profile(activities=[ProfilerActivity.CPU]) as seen:
    finetune.fine_tune(model, *given, Run(args))
times = {one.key.removeprefix("aten::"): one.self_cpu_time_total for one in seen.key_averages()}
found, total = dict.fromkeys([*KINDS, "all else"], 0.0), sum(times.values())
for key, time in times.items():
    fits = [kind for kind, names in KINDS.items() if key.startswith(names)]
    found[fits[0] if fits else "all else"] += time / total
result = {"hardware": hardware_name(device), "precision": precision, "shares": found}
Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
