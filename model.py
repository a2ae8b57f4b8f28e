"""Chapter 2: a pretrained encoder with a new head.

Teaches   which hardware does the work and in which number format; how an encoder that has read much
          text gets a small new layer that judges; and which of its parameters training may move.
Order     after dataset.py; next is finetune.py.
Run       python model.py "I regret watching this film"
Expect    your sentence on its way through the model: each stage with the shape that comes out of it
          and the number of its parameters. The last line is a guess: the head is untrained.
"""

import os

import torch
from torch import nn

from errors import UserError, make_parser, run_command
from sources import connect_to_hub, hub_error

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # else it warns when a process is forked


# ------------------------------------------------------------------------------ 1. device
def choose_device(wanted=None):
    """Return (torch.device, reason). wanted: None for the best there is, or "cpu", "cuda:1", ...

    Raises UserError when the device that was asked for is not there: silently training on the CPU
    instead would cost the user a day before they notice.
    """
    present = {
        "cuda": torch.cuda.is_available(),  # NVIDIA, and AMD under ROCm
        "mps": torch.backends.mps.is_available(),  # the GPU of a Mac
        "xpu": torch.xpu.is_available(),  # Intel
        "cpu": True,
    }
    if wanted is None:
        best = next(name for name, there in present.items() if there)
        passed_over = [name for name in present if not present[name]]
        return torch.device(best), f"the best here; not present: {', '.join(passed_over) or 'none'}"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    if device is None or device.type not in present:
        raise UserError(f"--device {wanted}: has to be one of {', '.join(present)}")
    count = torch.get_device_module(device).device_count() if present[device.type] else 0
    if (device.index or 0) >= count:
        there = ", ".join(name for name in present if present[name])
        raise UserError(f"--device {wanted}: not present on this machine; there is {there}")
    return device, "as asked with --device"


# ------------------------------------------------------------------------------ 2. precision
def choose_precision(wanted, device):
    """Return (precision, reason) with precision one of "fp32", "bf16", "fp16". wanted: also "auto".

    fp32 is the reference: 32 bits a number. Both 16-bit formats halve the memory traffic and, on
    hardware that multiplies them natively, more than double the speed.
        bf16  keeps fp32's range and drops digits: nothing over- or underflows, so no further care.
        fp16  keeps more digits but ends at 65,504, and small gradients round to 0: the loss has to
              be scaled up before backward and the gradients down after it (finetune.py's
              GradScaler).
    Where bf16 is emulated it is slower than fp32, so the hardware is asked.
    """
    if wanted != "auto":
        return wanted, "as asked with --precision"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU multiplies bf16 natively"
        return "fp16", "this GPU has no native bf16, so fp16 with a gradient scaler"
    if device.type == "xpu":
        return "bf16", "Intel GPUs multiply bf16 natively"
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        found = [name for name in ("amx_bf16", "avx512_bf16") if has.get(name)]
        if found:
            return "bf16", f"this CPU multiplies bf16 natively ({found[0]})"
        return "fp32", "this CPU has neither AVX512-BF16 nor AMX"
    return "fp32", f"the safe choice on {device.type}"


def choose_hardware(device=None, precision="auto"):
    """Both choices. Returns (torch.device, precision, {"device": reason, "precision": reason})."""
    device, device_reason = choose_device(device)
    precision, precision_reason = choose_precision(precision, device)
    return device, precision, {"device": device_reason, "precision": precision_reason}


def autocast(device, precision):
    """The context in which matrix products run in 16 bits, while the weights themselves stay fp32.

    Autocast leaves sums that need the digits (softmax, layer norm, the loss) in fp32.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


# ------------------------------------------------------------------------------ 3. load
def load_tokenizer(name):
    """The tokenizer that belongs to a pretrained model. name: a hub name or a local folder.

    split_special_tokens: a review that contains "[SEP]" as text gets no say over where texts end.
    model_input_names: no token_type_ids, which tell two texts apart; we have one, and DistilBERT
    none.
    """
    connect_to_hub(name)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name,
            split_special_tokens=True,
            trust_remote_code=False,
            model_input_names=["input_ids", "attention_mask"],
        )
    except (
        Exception
    ) as error:  # OSError, ValueError, KeyError, ...: the library names no common type
        raise hub_error("model", name, error) from error
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"the tokenizer of {name!r} has no padding token: choose an encoder like BERT"
        )
    return tokenizer


def load_pretrained(name, label_names, seed):
    """Load an encoder and put a new head on it. Returns (model, note about what was loaded).

    name: a hub name or a local folder of any model with a ...ForSequenceClassification class.
    label_names: one name per class; they go into the config, so that every tool shows "positive"
    and
        not "LABEL_1".
    The head is drawn at random, so the seed is set right before. Only a checkpoint that already
    judges the same classes keeps its head: training then goes on where it ended.
    """
    connect_to_hub(name)
    from transformers import AutoConfig, AutoModelForSequenceClassification

    id2label = dict(enumerate(label_names))
    torch.manual_seed(seed)
    try:
        old_names = AutoConfig.from_pretrained(name, trust_remote_code=False).id2label
        model, info = AutoModelForSequenceClassification.from_pretrained(
            name,
            id2label=id2label,
            label2id={label: i for i, label in id2label.items()},
            num_labels=len(label_names),
            dtype=torch.float32,  # else the checkpoint's; Adam's small updates vanish in 16 bits
            use_safetensors=True,  # the other format, pickle, can run code when it is opened
            trust_remote_code=False,  # no code from the hub either
            ignore_mismatched_sizes=True,  # a head for another number of classes is replaced
            output_loading_info=True,
        )
    except Exception as error:
        raise hub_error("model", name, error) from error

    head = [parameter_name for parameter_name, part in parameter_parts(model) if part == "head"]
    drawn = set(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]}
    if drawn - set(head):
        raise UserError(
            f"the model {name!r} lacks {len(drawn - set(head))} tensors of its own encoder (such "
            f"as {min(drawn - set(head))}): it is no pretrained {type(model).__name__}"
        )
    if not drawn & set(head) and old_names != id2label:
        torch.manual_seed(seed)
        fresh = type(model)(model.config).state_dict()
        model.load_state_dict({key: fresh[key] for key in head}, strict=False)
        drawn |= set(head)
    model.config.problem_type = "single_label_classification"
    if not drawn & set(head):
        return model, "the checkpoint's own head is kept: it judges the same classes"
    return model, (
        f"transformers' LOAD REPORT is as it should be. MISSING: {len(drawn)} tensors of the new "
        f"head, drawn with --seed {seed}, which training will fill. UNEXPECTED: "
        f"{len(info['unexpected_keys'])} tensors of the old pretraining head, left behind."
    )


def max_positions(model):
    """The most tokens, special ones included, that the model has positions for.

    RoBERTa starts to count behind its padding id: of its table of 514 positions, 512 can be used.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings"):
            return module.num_embeddings - (
                0 if module.padding_idx is None else module.padding_idx + 1
            )
    return model.config.max_position_embeddings  # ModernBERT and others compute positions, no table


# ------------------------------------------------------------------------------ 4. what trains
def parameter_parts(model):
    """[(parameter name, part), ...] with part "embeddings", "layer 1" (the lowest) ..., or "head".

    The layers are the encoder's one ModuleList of that length; the head is all that stands outside
    the encoder, and BERT's pooler, which sits on top of it and is often new too.
    """
    depth = model.config.num_hidden_layers
    stacks = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    layers = stacks[0] + "." if stacks else "no such layers"
    parts = []
    for name, _ in model.named_parameters():
        if name.startswith(layers):
            part = f"layer {int(name[len(layers) :].split('.')[0]) + 1}"
        elif name.startswith(model.base_model_prefix + ".") and ".pooler." not in name:
            part = "embeddings" if "embed" in name else "other"
        else:
            part = "head"
        parts.append((name, part))
    return parts


def set_trainable(model, train_layers=None):
    """Freeze all but the head and the top `train_layers` encoder layers (None: nothing is frozen).

    A frozen parameter gets no gradient: it keeps its pretrained value, and backward ends above it.
    Returns {part: (parameters, of them trainable)}. Raises UserError if the head would be frozen: a
    random head that never learns makes every prediction a coin toss.
    """
    depth = model.config.num_hidden_layers
    if train_layers is not None and not 0 <= train_layers <= depth:
        raise UserError(
            f"--train-layers {train_layers}: has to be 0 to {depth}, the model's layers"
        )
    on = {"head"} | {f"layer {n}" for n in range(depth - (train_layers or 0) + 1, depth + 1)}
    parameters, counts = dict(model.named_parameters()), {}
    for name, part in parameter_parts(model):
        parameters[name].requires_grad_(train_layers is None or part in on)
        total, trained = counts.get(part, (0, 0))
        size = parameters[name].numel()
        counts[part] = (total + size, trained + size * parameters[name].requires_grad)
    if counts.get("head", (0, 0))[1] == 0:
        raise UserError(f"{type(model).__name__} has no head that could be trained")
    return counts


# ------------------------------------------------------------------------------ a sentence's way
def walk(model, tokenizer, text):
    """Send one text through the model and print what comes out of each stage."""
    seen = []

    def remember(label, module):
        def hook(module, inputs, output):
            first = output if torch.is_tensor(output) else output[0]
            seen.append((label, list(first.shape), sum(p.numel() for p in module.parameters())))

        return module.register_forward_hook(hook)

    # Hooks are called with a module's output each time it runs; they change nothing.
    labels = {name.rsplit(".", 1)[0]: part for name, part in parameter_parts(model)}
    hooks = []
    for name, module in model.named_modules():
        under = [labels[child] for child in labels if child == name or child.startswith(name + ".")]
        last = name.rsplit(".", 1)[-1]
        if last.isdigit() and under and under[0] == f"layer {int(last) + 1}":
            hooks.append(remember(f"encoder {under[0]}", module))
        elif last == "embeddings" or (name in labels and labels[name] == "head"):
            hooks.append(remember(name, module))
    batch = tokenizer(text, return_tensors="pt")
    model.eval()  # dropout off: the same text has to give the same answer
    with torch.inference_mode():
        logits = model(**batch).logits  # [1, classes]
    for hook in hooks:
        hook.remove()

    tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
    print(f"{'stage':34} {'shape':>16} {'parameters':>12}")
    print(f"{'input_ids':34} {str(list(batch['input_ids'].shape)):>16}   {' '.join(tokens)}")
    for label, shape, size in seen:
        print(f"{label:34} {str(shape):>16} {size:>12,}")
    probabilities = logits[0].softmax(dim=-1)  # [classes]: positive, and their sum is 1
    print(
        f"{'logits':34} {str(list(logits.shape)):>16}   {[round(x, 3) for x in logits[0].tolist()]}"
    )
    for i, probability in enumerate(probabilities.tolist()):
        print(f"{'probability of ' + model.config.id2label[i]:34} {probability:>16.3f}")


def main():
    parser = make_parser(__doc__)
    parser.add_argument("text", help="a sentence of your own")
    parser.add_argument(
        "--model", default="distilbert-base-uncased", help="hub name or local folder"
    )
    args = parser.parse_args()
    if not args.text.strip():
        raise UserError("the text is empty: give it some words")
    device, precision, reasons = choose_hardware()
    print(
        f"device     {device}: {reasons['device']}\nprecision  {precision}: {reasons['precision']}"
    )
    model, note = load_pretrained(args.model, ["negative", "positive"], seed=42)
    print(note + "\n")
    walk(model, load_tokenizer(args.model), args.text)


if __name__ == "__main__":
    run_command(main)
