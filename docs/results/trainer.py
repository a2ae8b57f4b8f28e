"""Transformers' Trainer on the reviews that finetune.py draws: the peer of our accuracies.

Run       python -m docs.results.trainer --model sentence-transformers/all-MiniLM-L6-v2 --seed 42
          (after pip install -r requirements-dev.txt)
Expect    a JSON line with its accuracy on the test reviews that `evaluate.py --subset` draws. With
          --results FILE the same as a file, with each answer, right or wrong.
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch

from extras.contenders import train_with_trainer
from dataset import draw, draw_rules, encode, load_splits, make_collate, make_examples, take
from evaluate import predict_logits, score
from docs.results.record import pack
from model import choose_hardware, load_pretrained
from support.devices import hardware_name
from support.files import write_whole
from support.pretrained import load_tokenizer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--recipe", choices=("seed", "default", "best"), default="default")
parser.add_argument("--data", default="stanfordnlp/imdb")
parser.add_argument("--model", default="distilbert-base-uncased")
for option, value in (("subset", 2000), ("epochs", 3), ("max-length", 256), ("seed", 42)):
    parser.add_argument(f"--{option}", type=int, default=value)
parser.add_argument("--bf16", action="store_true", help="in half the time, on a CPU that has it")
parser.add_argument("--test", type=int, default=5000)
parser.add_argument("--draw-seed", type=int, help="of the test reviews, as for evaluate.py")
parser.add_argument("--results", type=Path)
args = parser.parse_args()

splits, names, _, source = load_splits(args.data, seed=args.seed)
drawn = {}
for role, count in (("train", args.subset), ("test", args.test)):
    seed, equal = draw_rules(role, args.seed)
    seed = args.draw_seed if role == "test" and args.draw_seed is not None else seed
    rows = draw(splits[role]["labels"], count, seed, equal)
    drawn[role] = take(splits[role], rows)
tokenizer = load_tokenizer(args.model)
model, _ = load_pretrained(args.model, names, args.seed, attention_dropout=None)
train, test = drawn["train"], drawn["test"]
more = {"seed": args.seed, "disable_tqdm": False}
if args.bf16:
    more["bf16"] = True
processes = int(os.environ.get("WORLD_SIZE", 1))
if processes > 1:  # the recipe's batch, dealt out; averaging by tokens would double the loss
    more |= {"per_device_train_batch_size": 16 // processes, "ddp_find_unused_parameters": False}
    more["average_tokens_across_devices"] = False
run, precision = train_with_trainer(
    args.recipe, model, tokenizer, *train.values(), args.max_length, args.epochs, **more
)
began = time.perf_counter()
run()
seconds, device = time.perf_counter() - began, choose_hardware()[0]
precision = "bf16" if args.bf16 else precision
input_ids, _ = encode(test["texts"], tokenizer, args.max_length, "head")  # as Trainer's texts were
examples, collate = make_examples(input_ids, test["labels"]), make_collate(tokenizer.pad_token_id)
logits = predict_logits(model.to(device), examples, collate, device, precision, title="testing")
figures = score(logits, test["labels"], names)
if int(os.environ.get("RANK", 0)) == 0:
    shown = {key: figures[key] for key in ("correct", "n", "accuracy")}
    arguments = {key: value for key, value in vars(args).items() if key != "results"}
    print(json.dumps(arguments | shown))
    if args.results:  # in the form of evaluate.py's
        right = logits.argmax(dim=-1) == torch.tensor(test["labels"])  # [N]
        device = {"name": hardware_name(device), "threads": torch.get_num_threads()}
        device["processes"] = processes
        run = {"arguments": arguments, "device": device | {"precision": precision}}
        run |= {"splits": {"train": {"reviews": len(train["labels"])}}, "seconds": seconds}
        run |= {"data_fingerprint": source.fingerprint}
        found = {"run": run, "evaluated": {"figures": figures, "right": pack(right.tolist())}}
        write_whole(args.results, json.dumps(found, indent=1) + "\n")
