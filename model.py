"""Chapter 3, part 2 of 3: a pretrained encoder with a new head.

Teaches   how an encoder that has read much text gets a small new head that judges; and which of its
          parameters training may move.
          Pretrained means: for days on end it guessed words that had been hidden in books and in
          Wikipedia. So it knows which words go with which, and nothing of opinions. The layers that
          guessed words are thrown away, and new ones that judge are put in their place: the head.
Order     after hardware.py; next is attention.py.
Run       python model.py "I regret watching this film"
Expect    which weights were found and which drawn; your sentence on its way through the model, each
          stage with the shape that comes out of it and the number of its parameters; and where
          [CLS] looks in the last layer. The verdict is a guess, because the head is new (unless
          --model names a folder that finetune.py saved).
Shows     $ python model.py --model demo/untrained "Loved it"
          stage                                   shape   parameters
          input_ids                              [1, 4]   [CLS] loved it [SEP]
          distilbert.embeddings              [1, 4, 64]       54,912
          encoder layer 1                    [1, 4, 64]       33,472
          encoder layer 2                    [1, 4, 64]       33,472
          one vector for the whole text         [1, 64]            0
          pre_classifier                        [1, 64]        4,160
          classifier                             [1, 2]          130
"""

import os

# First: once errors.py is in, Ctrl-C ends in one line, also while torch is imported (seconds).
from errors import UserError, make_parser, run_command

import torch
from torch import nn

from hub import TOKENIZER_FILES, WEIGHT_FILES, fetch_model, hub_error

# The tokenizer uses all cores; said aloud, or it prints a warning if your own code forks a process.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


# ------------------------------------------------------------------------------ 1. load
def load_tokenizer(name):
    """The tokenizer that belongs to a pretrained model. name: a hub name or a local folder.

    Raises UserError where there is none, or one that cannot pad.
    """
    try:
        fetch_model(name, TOKENIZER_FILES)
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            name,
            local_files_only=True,  # fetch_model() has brought them, if there was a way
            trust_remote_code=False,  # nothing that comes from the hub is run as a program
            split_special_tokens=True,  # "[SEP]" in a review is text, and does not end the review
            # Not token_type_ids: they tell the first of two texts from the second, we have one.
            model_input_names=["input_ids", "attention_mask"],
        )
    except Exception as error:  # the library has no common type: OSError, ValueError, KeyError, ...
        raise hub_error("model", name, error) from error
    if tokenizer.pad_token_id is None or not tokenizer.is_fast:
        raise UserError(
            f"{name}: its tokenizer cannot pad, or is not a fast one; try another model"
        )
    if tokenizer.padding_side != "right":
        raise UserError(f"{name}: wants its padding on the left, as XLNet does; try another model")
    return tokenizer


def load_pretrained(name, label_names, seed, dropout=None, attention_dropout=0.0):
    """Load an encoder and put a new head on it. Returns (model, note about what was loaded).

    name: a hub name or a local folder of any model with a ...ForSequenceClassification class.
    label_names: one name per class; they go into the config, so that every tool shows "positive"
        and not "LABEL_1". None for the checkpoint's own.
    dropout, attention_dropout: see set_dropout().
    DistilBERT's head takes the vector at [CLS], which is hidden[:, 0] of hidden [B, T, 768],
    through pre_classifier [B, 768], ReLU, dropout and classifier [B, C]. Only a checkpoint that
    already judges the same classes keeps its head: training then goes on where it ended.
    """
    try:
        fetch_model(name, TOKENIZER_FILES + WEIGHT_FILES)
        from transformers import AutoModelForSequenceClassification
        from transformers.utils import logging

        logging.disable_progress_bar()  # for reading and writing weights; downloads keep theirs
        config = load_config(name)
        old_names = class_names(config)
        label_names = label_names or old_names
        config.id2label = dict(enumerate(label_names))  # their number is num_labels
        config.label2id = {label: i for i, label in enumerate(label_names)}
        set_dropout(config, dropout, attention_dropout)
        torch.manual_seed(seed)  # right here, because the next line draws the head at random
        model, info = AutoModelForSequenceClassification.from_pretrained(
            name,
            config=config,
            local_files_only=True,
            # Else the checkpoint's type, perhaps of 16 bits: there a weight plus one small step of
            # AdamW's often rounds to the same weight, and nothing is learned.
            dtype=torch.float32,
            use_safetensors=True,  # the other format, pickle, can run code when it is opened
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # a head for another number of classes is replaced
            output_loading_info=True,
        )
    except Exception as error:
        raise hub_error("model", name, error) from error

    head = {parameter for parameter, part in parameter_parts(model) if part == "head"}
    drawn = set(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]}
    if drawn - head:
        raise UserError(
            f"the model {name!r} lacks {len(drawn - head)} tensors of its own encoder (such as "
            f"{min(drawn - head)}): it is no pretrained {type(model).__name__}"
        )
    if not drawn and old_names != label_names:
        # A trained head for as many other classes has been loaded: draw a new one. Building the
        # whole model anew and taking its head fits every architecture.
        torch.manual_seed(seed)
        fresh = type(model)(model.config).state_dict()  # {name: tensor} of all parameters
        model.load_state_dict({key: fresh[key] for key in head}, strict=False)  # and no others
        drawn = head
    model.config.problem_type = (
        "single_label_classification"  # what we train it for: one class each
    )
    # from_pretrained() has printed a table that looks like an alarm; the note explains it.
    if not drawn:
        return model, "the checkpoint's own head is kept, because it judges the same classes"
    return model, (
        f"transformers' LOAD REPORT is as it should be. MISSING: {len(drawn)} tensors of the new "
        f"head, drawn with --seed {seed}, which training will fill. UNEXPECTED: "
        f"{len(info['unexpected_keys'])} tensors of the old pretraining head, left behind."
    )


def class_names(config):
    """The names of a model's classes, in the order of its logits (a file may have another)."""
    return [config.id2label[number] for number in sorted(config.id2label)]


def load_config(name):
    """A model's config. Raises ValueError if it asks for attention code from somewhere else.

    Where a package named kernels is installed, transformers fetches such code and runs it.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    for key, value in vars(config).items():
        if "attn_implementation" in key and "/" in str(value):
            raise ValueError(f"its config.json asks for the code of {value}, which is not run here")
    return config


def set_dropout(config, dropout, attention_dropout):
    """Set a model's two kinds of dropout, under whatever names its config has for them.

    dropout: the share of a layer's numbers that are set to 0 in training, anew each time; None for
        the checkpoint's own (DistilBERT: 0.1, and 0.2 in its head).
    attention_dropout: the same for attention weights. Most checkpoints have 0.1, ours is 0: on a
        CPU it makes training slower, and no better that we could measure (README, "Fast").
    """
    for name, value in vars(config).items():
        rate = attention_dropout if "att" in name else dropout
        if "dropout" in name and rate is not None and isinstance(value, (int, float)):
            setattr(config, name, rate)


def max_positions(model):
    """The most tokens, special ones included, that the model has positions for.

    RoBERTa starts to count behind its padding id: of its table of 514 positions, 512 can be used.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings"):
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - unused
    # ModernBERT and others compute positions and have no table. T5 counts distances only,
    # which have no end.
    most = getattr(model.config, "max_position_embeddings", None)
    return most if most and most > 0 else 1_000_000


# ------------------------------------------------------------------------------ 2. what trains
def parameter_parts(model):
    """[(parameter name, part), ...] with part "embeddings", "layer 1" (the lowest) ..., or "head".

    Embeddings are the table of one learned vector per token and per position. The layers are the
    list of as many modules as config.num_hidden_layers says. The head is all that stands outside
    the encoder, and BERT's pooler, one more layer on the [CLS] vector, which is often new too.
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
    """Freeze all but the head and the top `train_layers` encoder layers (None: freeze nothing).

    A frozen parameter gets no gradient and keeps its pretrained value. Backward stops at the lowest
    layer that trains, which is the time that freezing saves. Returns {part: (parameters, of them
    trainable)}. Raises UserError if the head would be frozen: a random head that never learns makes
    every prediction a coin toss.
    """
    depth = model.config.num_hidden_layers
    if train_layers is not None and not 0 <= train_layers <= depth:
        raise UserError(f"--train-layers {train_layers}: the model's layers are 0 to {depth}")
    if train_layers and not any(part == "layer 1" for _, part in parameter_parts(model)):
        raise UserError(
            f"--train-layers: the layers of {type(model).__name__} cannot be told apart"
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
def watch(model, record):
    """Call record(label, module, input, output) whenever one of the model's stages has run.

    The stages are the embeddings, each whole encoder layer, and each module of the head; not the
    hundred pieces inside of them. PyTorch calls a forward hook with what goes into a module and
    what comes out, and changes nothing.
    """
    head = {name.rsplit(".", 1)[0] for name, part in parameter_parts(model) if part == "head"}
    for name, module in model.named_modules():
        parent, _, last = name.rpartition(".")
        if last == "embeddings" or name in head:
            label = name
        elif last.isdigit() and len(model.get_submodule(parent)) == model.config.num_hidden_layers:
            label = f"encoder layer {int(last) + 1}"
        else:
            continue
        module.register_forward_hook(
            lambda module, given, output, label=label: record(label, module, given, output)
        )


def walk(model, tokenizer, text):
    """Send one text through the model, on the CPU in fp32, and print what each stage makes."""
    rows = []

    def record(label, module, given, output):
        output = output if torch.is_tensor(output) else output[0]
        given = list(given[0].shape) if given else []  # BERT's stages are called by keyword only
        if len(given) == 2 and rows and len(rows[-1][1]) == 3:  # [1, T, width] became [1, width]
            rows.append(("one vector for the whole text", given, 0))
        rows.append((label, list(output.shape), sum(p.numel() for p in module.parameters())))

    watch(model, record)
    most = max_positions(model)
    # input_ids and attention_mask, [1, T] each
    batch = tokenizer(text, truncation=True, max_length=most, return_tensors="pt")
    model.eval()  # dropout, which drops a tenth of the numbers at random in training, is off
    with torch.inference_mode():
        logits = model(**batch).logits  # [1, C]: a score for each class, any real number

    tokens = " ".join(tokenizer.convert_ids_to_tokens(batch["input_ids"][0]))
    print(f"{'stage':30} {'shape':>14} {'parameters':>12}")
    print(f"{'input_ids':30} {str(list(batch['input_ids'].shape)):>14}   {tokens[:50]}")
    for label, shape, size in rows:
        print(f"{label:30} {str(shape):>14} {size:>12,}")
    print(f"{'logits':30} {str(list(logits.shape)):>14}   {logits[0].tolist()}")
    for i, probability in enumerate(logits[0].softmax(dim=-1).tolist()):  # positive, their sum is 1
        print(f"{'probability of ' + model.config.id2label[i]:30} {probability:>14.3f}")


def main():
    parser = make_parser(__doc__)
    parser.add_argument("text", help="a sentence of your own")
    parser.add_argument("--model", default="distilbert-base-uncased", help="hub name or folder")
    args = parser.parse_args()
    if not args.text.strip():
        raise UserError("the text is empty: give it some words")
    model, note = load_pretrained(args.model, None, seed=42)
    tokenizer = load_tokenizer(args.model)
    print(f"{note}\n")
    walk(model, tokenizer, args.text)

    from attention import look_at, show_looks  # here, because it builds on this file

    # Beside a longer text, so that there is padding: the mask lets nobody look at it.
    batch, looks = look_at(model, tokenizer, [args.text, args.text + " And so on."])
    tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
    show_looks(tokens, looks[-1], 0, tokens[0])


if __name__ == "__main__":
    run_command(main)
