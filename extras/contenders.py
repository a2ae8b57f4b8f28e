"""The programs that extras.benchmark compares: ours, Trainer and pipeline, and ONNX engines.

Each function prepares one and returns (what is to be timed, its precision). Each computes from the
same reviews; what is timed returns the answers, or None for training.
"""

import functools
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch

import finetune
from dataset import encode, make_collate, make_examples
from evaluate import predict_logits
from extras import export
from model import choose_hardware, speed_up
from support.faster import choose_attention, quantize
from support.options import parse_arguments
from support.unfinished import Run

# What finetune.py does for speed; each is left out for once.
CHANGES = [
    "but all tokens in the last layer",
    "but the library's attention",
    "but attention dropout 0.1",
    "but AdamW not fused",
    "but batches not grouped",
    "but fp32",
]


def train_ours(change, model, tokenizer, texts, labels, tokens):
    """One epoch of finetune.py's loop, from token ids on. change: one of CHANGES, or ""."""
    args = parse_arguments("", ["--max-length", str(tokens), "--epochs", "1", "--lr", "5e-5"])
    device, precision, _ = choose_hardware(precision="fp32" if change == "but fp32" else "auto")
    input_ids, _ = encode(texts, tokenizer, tokens, args.truncation)
    splits = {"train": {"examples": make_examples(input_ids, labels)}}
    model.to(device)
    if change == "but all tokens in the last layer":
        choose_attention(model, device, precision)
    elif change != "but the library's attention":
        speed_up(model, device, precision)
    if change == "but AdamW not fused":
        fused = torch.optim.AdamW
        torch.optim.AdamW = lambda *given, **named: fused(*given, **named | {"fused": False})
    if change == "but batches not grouped":
        finetune.make_batches = lambda lengths, size, seed, epoch: [
            rows.tolist() for rows in torch.randperm(len(lengths)).split(size)
        ]

    def run():
        names = list(model.config.id2label.values())
        finetune.fine_tune(model, tokenizer, splits, names, args, device, precision, Run(args))

    return run, precision


# How a Trainer is set up: as in many first notebooks; as its documentation begins; with every flag
# it has that makes it faster here.
RECIPES = {
    "seed": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "default": {},
    "best": {"optim": "adamw_torch_fused", "train_sampling_strategy": "group_by_length"},
}


def train_with_trainer(recipe, model, tokenizer, texts, labels, tokens, epochs=1, **more):
    """Transformers' Trainer, from token ids on. recipe: of RECIPES. more: TrainingArguments."""
    from datasets import Dataset
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    device, precision, _ = choose_hardware(precision="auto" if recipe == "best" else "fp32")
    padding = "max_length" if recipe == "seed" else False
    encoded = tokenizer(texts, truncation=True, max_length=tokens, padding=padding)
    options = {
        "num_train_epochs": epochs,
        "per_device_train_batch_size": 16,
        "learning_rate": 5e-5,
        "use_cpu": device.type == "cpu",
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1000,
        "disable_tqdm": True,
        "dataloader_pin_memory": device.type == "cuda",
    }
    trainer = Trainer(
        model=model,
        args=TrainingArguments(tempfile.mkdtemp(), **options | RECIPES[recipe] | more),
        train_dataset=Dataset.from_dict({**encoded, "label": labels}),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )

    def run():
        trainer.train()

    return run, precision


def scoring(model, tokenizer, texts, labels, tokens, device, precision):
    """A function that computes the answers to raw texts as evaluate.py does, tokens included."""
    collate = make_collate(tokenizer.pad_token_id)

    def run():
        input_ids, _ = encode(texts, tokenizer, tokens, "head")  # as pipeline cuts
        examples = make_examples(input_ids, labels)
        return predict_logits(model, examples, collate, device, precision).argmax(dim=-1).tolist()

    return run


def ask_ours(precision, model, *given):
    """evaluate.py, with its --precision."""
    device, precision, _ = choose_hardware(precision=precision)
    if precision == "int8":
        quantize(model)
    speed_up(model.to(device), device, precision)
    return scoring(model, *given, device, precision), precision


def ask_onnx(precision, model, *given):
    """The same by ONNX Runtime (int8) or OpenVINO (bf16), in place of the model's own forward().

    Everything around it is ours: tokens, batches sorted by length, the count of what is computed.
    """
    with tempfile.TemporaryDirectory() as folder:
        exact, whole = Path(folder, "exact.onnx"), Path(folder, "whole.onnx")
        export.write_onnx(model, exact)
        if precision == "int8":
            import onnxruntime

            export.write_int8(exact, whole, export.LADDER["all matrices"])
            session = onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"])
            ask = functools.partial(session.run, None)
        else:
            import openvino

            how = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16"}
            ask = openvino.Core().compile_model(exact, "CPU", how)

    def forward(**batch):
        numbers = {name: tensor.numpy() for name, tensor in batch.items()}
        return SimpleNamespace(logits=torch.from_numpy(ask(numbers)[0]))

    model.forward = forward  # hooks on the model see the calls
    return scoring(model, *given, torch.device("cpu"), "fp32"), precision


def ask_pipeline(batch_size, model, tokenizer, texts, labels, tokens):
    """The same with transformers' pipeline, in its own order, a batch padded to its longest."""
    from transformers import pipeline

    device, _, _ = choose_hardware()
    how = {"model": model, "tokenizer": tokenizer, "device": device, "batch_size": batch_size}
    classify = pipeline("text-classification", **how)

    def run():
        answers = classify(texts, truncation=True, max_length=tokens)
        return [model.config.label2id[answer["label"]] for answer in answers]

    return run, "fp32"


# name: (what it is, the function that prepares it, the first that it is given)
CONTENDERS = {
    "finetune.py": ("as it stands", train_ours, ""),
    "Trainer seed": ("batch 2 x 2, padded to the maximum, fp32", train_with_trainer, "seed"),
    "Trainer default": ("batch 16, DataCollatorWithPadding, fp32", train_with_trainer, "default"),
    "Trainer best": ("batch 16, bf16, group_by_length, fused AdamW", train_with_trainer, "best"),
    "evaluate.py": ("as it stands", ask_ours, "auto"),
    "evaluate.py int8": ("--precision int8", ask_ours, "int8"),
    "ONNX Runtime int8": ("quantize_dynamic(), a scale per channel, our batches", ask_onnx, "int8"),
    "OpenVINO bf16": ("fp32 where the CPU has no bf16, our batches", ask_onnx, "bf16"),
    "pipeline": ("pipeline(..., batch_size=64), fp32", ask_pipeline, 64),
} | {change: ("", train_ours, change) for change in CHANGES}
