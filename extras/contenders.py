"""The programs that extras.benchmark compares: ours, Trainer and pipeline, and ONNX engines.

Each function prepares one and returns (what is to be timed, its precision). Each computes from the
same reviews; what is timed returns the answers, or None for training.
"""

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


def train_ours(change, model, tokenizer, texts, labels, tokens):
    """One epoch of finetune.py's loop, from token ids on. change: "but ...", or "finetune.py"."""
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


def train_with_trainer(recipe, model, tokenizer, texts, labels, tokens, epochs=1, **more):
    """Transformers' Trainer, from token ids on.

    recipe: "seed", the batches of many first notebooks; "default", as its documentation begins;
    "best", every flag it has that makes it faster here. more: other TrainingArguments.
    """
    from datasets import Dataset
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    device, precision, _ = choose_hardware()
    encoded = tokenizer(
        texts,
        truncation=True,
        max_length=tokens,
        padding="max_length" if recipe == "seed" else False,
    )
    options = {"per_device_train_batch_size": 16, "disable_tqdm": True}
    if recipe == "seed":
        options |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    if recipe == "best":
        options |= {
            "bf16": precision == "bf16",
            "fp16": precision == "fp16",
            "optim": "adamw_torch_fused",
            "train_sampling_strategy": "group_by_length",
        }
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            tempfile.mkdtemp(),
            num_train_epochs=epochs,
            learning_rate=5e-5,
            use_cpu=device.type == "cpu",
            report_to=[],
            save_strategy="no",
            logging_steps=1000,
            dataloader_pin_memory=device.type == "cuda",
            **options | more,
        ),
        train_dataset=Dataset.from_dict({**encoded, "label": labels}),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )

    def run():
        trainer.train()

    return run, precision if recipe == "best" else "fp32"


def scoring(model, tokenizer, texts, labels, tokens, device, precision):
    """A function that computes the answers to raw texts as evaluate.py does, tokens included."""
    collate = make_collate(tokenizer.pad_token_id)

    def run():
        input_ids, _ = encode(texts, tokenizer, tokens, "head")  # as pipeline cuts
        examples = make_examples(input_ids, labels)
        return predict_logits(model, examples, collate, device, precision).argmax(dim=-1).tolist()

    return run


def score_ours(precision, model, *given):
    """evaluate.py, with its --precision."""
    device, precision, _ = choose_hardware(precision=precision)
    if precision == "int8":
        quantize(model)
    speed_up(model.to(device), device, precision)
    return scoring(model, *given, device, precision), precision


def score_with_engine(engine, model, *given):
    """The same by a program that reads ONNX: it computes the logits in place of the model.

    Everything around it is ours: tokens, batches sorted by length, the count of what is computed.
    """
    with tempfile.TemporaryDirectory() as folder:
        exact, whole = Path(folder, "exact.onnx"), Path(folder, "whole.onnx")
        export.write_onnx(model, exact)
        if engine == "ONNX Runtime int8":
            import onnxruntime

            export.write_int8(exact, whole, export.LADDER["all matrices"])
            session = onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"])
            ask = lambda batch: session.run(None, batch)[0]  # noqa: E731
        else:
            import openvino

            how = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16"}
            compiled = openvino.Core().compile_model(exact, "CPU", how)
            ask = lambda batch: compiled(batch)[0]  # noqa: E731

    def forward(**batch):
        numbers = {name: tensor.numpy() for name, tensor in batch.items()}
        return SimpleNamespace(logits=torch.from_numpy(ask(numbers)))

    model.forward = forward  # hooks on the model see the calls
    return scoring(model, *given, torch.device("cpu"), "fp32"), engine.split()[-1]


def score_with_pipeline(model, tokenizer, texts, labels, tokens):
    """The same with transformers' pipeline, in its own order, a batch padded to its longest."""
    from transformers import pipeline

    device, _, _ = choose_hardware()
    classify = pipeline(
        "text-classification", model=model, tokenizer=tokenizer, device=device, batch_size=64
    )

    def run():
        answers = classify(texts, truncation=True, max_length=tokens)
        return [model.config.label2id[answer["label"]] for answer in answers]

    return run, "fp32"


def prepare(contender, *given):
    """The contender by its name: returns (what is to be timed, its precision)."""
    if contender.startswith("Trainer "):
        return train_with_trainer(contender.removeprefix("Trainer "), *given)
    if contender.startswith("evaluate.py"):
        return score_ours("int8" if contender.endswith("int8") else "auto", *given)
    if contender.split()[0] in ("ONNX", "OpenVINO"):
        return score_with_engine(contender, *given)
    if contender == "pipeline":
        return score_with_pipeline(*given)
    return train_ours(contender, *given)
