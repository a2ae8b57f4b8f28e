"""Chapter 2 of 5: a pretrained encoder with a new head.

Teaches   on which device a model computes and in which number format; how an encoder that has read
          much text gets a small new part that judges; which of its weights training may move; and
          how to save a model so that it gives the same answers next year.
          Pretrained means: for days on end the model guessed words that had been hidden in books
          and in Wikipedia. So it knows which words go with which, and nothing of opinions. The
          layers that guessed words are thrown away. New ones, the head, are put in their place.
Words     A weight, or parameter, is a number in the model that training may change; DistilBERT has
          66 million. A layer is one stage: vectors in, vectors out. The encoder is a stack of them.
          In each layer every token looks at every other and takes something of it (attention), so
          that in the end the vector of "not" knows which word it denies. Dropout: in training a
          random share of a layer's numbers is set to 0, so that none of them is relied upon.
Order     after dataset.py; next is evaluate.py.
Run       python model.py "I regret watching this film"
          python model.py --model model "I regret watching this film"      one that you have trained
Expect    the device and why it was chosen; your sentence on its way through the model, with the
          shape of what comes out of each stage; and how many weights each part has. With a new head
          the verdict is a guess. The whole computation by hand: python -m extras.attention "..."
Shows     $ python model.py --model demo/untrained --device cpu --precision fp32 "Loved it"
          device     cpu: as asked with --device
          precision  fp32: as asked with --precision
          ...
          input_ids              [1, 4]   [CLS] loved it [SEP]
          encoder            [1, 4, 64]   a vector for each token
          logits                 [1, 2]   a score for each class
          ...
          embeddings             54,912   trains
          layer 1                33,472   trains
          layer 2                33,472   trains
          head                    4,290   trains
"""

import torch

from dataset import LINE_BREAK, clean
from support.errors import UserError, make_parser, run_command
from support.files import whole_files
from support.devices import exact_device
from support.faster import choose_attention, give_first_alone, last_layer, layer_stack, native
from support.faster import quantize, rest_of
from support.hub import TOKENIZER_FILES, WEIGHT_FILES, fetch_model, hub_error
from support.pretrained import check_layers, class_names, drawn_at_random, load_classifier
from support.pretrained import load_config, load_tokenizer, max_positions, save_tokenizer
from support.pretrained import set_dropout
from support.saved import check_loaded, listed, read_run, write_run


# ------------------------------------------------------------------------------ 1. hardware
def choose_device(wanted=None):
    """Return (torch.device, reason). wanted: None for the best there is, or "cpu", "cuda:1", ...

    Raises UserError where that device is not there. A run that falls back to the CPU in silence
    costs a day before anybody notices; so the choice is printed, with its reason.
    """
    present = {
        "cuda": torch.cuda.is_available(),  # NVIDIA, and AMD under ROCm
        "mps": torch.backends.mps.is_available(),  # the GPU of a Mac
        "xpu": torch.xpu.is_available(),  # Intel
        "cpu": True,
    }
    if wanted is not None:
        return exact_device(wanted, present), "as asked with --device"
    best = next(name for name, there in present.items() if there)
    absent = ", ".join(name for name in present if not present[name]) or "none"
    return exact_device(best, present), f"the best here; not present: {absent}"


def choose_precision(wanted, device):
    """Return (precision, reason): "fp32", "bf16", "fp16" or "int8". wanted: also "auto".

    fp32, 32 bits a number, is the reference. The 16-bit formats halve the memory traffic. Hardware
    that multiplies them natively is more than twice as fast with them; elsewhere they are slower.
        bf16  keeps fp32's range and drops digits. No number gets too large or too small for it.
        fp16  keeps more digits but ends at 65,504, and small gradients round to 0. So the loss is
              multiplied by a large number before the backward pass (which finds the gradients),
              and those are divided by it afterwards (finetune.py's GradScaler).
        int8  whole numbers, for the encoder's matrices and what they are multiplied with: a quarter
              of the bits, and coarser. Only to ask a model, on a CPU (support/faster.py).
    """
    if wanted == "int8" and device.type != "cpu":
        raise UserError(f"--precision int8 is for CPUs, not for {device.type}: add --device cpu")
    if wanted != "auto":
        return wanted, "as asked with --precision"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU multiplies bf16 natively"
        return "fp16", "this GPU has no native bf16, so fp16 with a gradient scaler"
    if device.type == "xpu":
        return "bf16", "Intel GPUs multiply bf16 natively"
    if device.type == "cpu":
        if found := native("amx_bf16", "avx512_bf16"):
            return "bf16", f"this CPU multiplies bf16 natively ({found[0]})"
        return "fp32", "this CPU has neither AVX512-BF16 nor AMX"
    return "fp32", f"the safe choice on {device.type}"


def choose_hardware(device=None, precision="auto"):
    """Both choices. Returns (torch.device, precision, {"device": reason, "precision": reason})."""
    device, device_reason = choose_device(device)
    precision, precision_reason = choose_precision(precision, device)
    return device, precision, {"device": device_reason, "precision": precision_reason}


def autocast(device, precision):
    """The `with` block in which matrix products run in 16 bits; the weights themselves stay fp32.

    A layer multiplies vectors by a matrix of weights; these products are most of the work. The loss
    is a sum, which needs many digits, so it is computed outside of the block.
    """
    precision = rest_of(precision)  # int8: what is not done in whole numbers
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def to_device(batch, device):
    """A batch's tensors on the device. batch: {name: tensor}.

    A GPU works on while Python goes ahead, as long as Python never has to wait for it. A usual copy
    waits. From pinned memory, which the system may not move meanwhile, a CUDA GPU fetches the batch
    when it is ready, and Python goes on at once (non_blocking).
    """
    if device.type == "cuda":
        return {key: x.pin_memory().to(device, non_blocking=True) for key, x in batch.items()}
    return {key: x.to(device) for key, x in batch.items()}


# ------------------------------------------------------------------------------ 2. a new head
def load_pretrained(name, label_names, seed, dropout=None, attention_dropout=0.0):
    """Load an encoder and put a new head on it. Returns (model, note about what was loaded).

    name: a hub name or a local folder of any model with a ...ForSequenceClassification class.
    label_names: one name per class. They are saved with the model, so that every tool shows
        "positive" and not "LABEL_1". None for the checkpoint's own.
    dropout, attention_dropout: see support/pretrained.py.
    DistilBERT's encoder makes of input_ids [B, T] a vector of 768 numbers for each token, [B, T,
    768], in which each token has looked at all others. Its head takes the vector at [CLS], [B,
    768], through one layer of the same size and one that ends in C numbers, the logits [B, C].
    A checkpoint that already judges the same classes, in upper or lower case, keeps its head:
    training then goes on where it ended. Raises UserError where there is no such model, or one that
    is not whole.
    """
    try:
        fetch_model(name, TOKENIZER_FILES + WEIGHT_FILES)
        config = load_config(name)
        old_names = class_names(config)
        label_names = label_names or old_names
        config.id2label = dict(enumerate(label_names))  # as many classes as there are names
        config.label2id = {label: i for i, label in enumerate(label_names)}
        set_dropout(config, dropout, attention_dropout)
        torch.manual_seed(seed)  # right here: load_classifier() draws the head at random
        # load_classifier() makes all weights 32-bit numbers, whatever the file has. In 16 bits
        # a weight plus one small step often rounds to the same weight, and nothing is learned.
        # ignore_mismatched_sizes: a head for another number of classes is replaced, not refused.
        model, info = load_classifier(name, config, ignore_mismatched_sizes=True)
    except Exception as error:  # the library has no common type: OSError, ValueError, KeyError, ...
        raise hub_error("model", name, error) from error

    head = {parameter for parameter, part in parameter_parts(model) if part == "head"}
    drawn = drawn_at_random(name, model, info, head)  # more than the head would be an error
    same = [name.casefold() for name in old_names] == [name.casefold() for name in label_names]
    trained = not drawn or info["mismatched_keys"]  # it brought a head, of this size or another
    if not drawn and not same:
        # A trained head for as many other classes has been loaded: it would begin with strong
        # opinions about the wrong question. Draw a new one, from the same seed. Each architecture
        # has its own kind of head. So build a whole new model, and take nothing but its head.
        torch.manual_seed(seed)
        fresh = type(model)(model.config).state_dict()  # {name: tensor} of all parameters
        model.load_state_dict({key: fresh[key] for key in head}, strict=False)  # the rest stays
        drawn = head
    model.config.problem_type = "single_label_classification"  # each text has one class
    if not drawn:
        return model, "its own head is kept: the classes are the same"
    note = f"the head is new (--seed {seed})"
    if trained:
        note += f"; left out is its own, for {listed(old_names)}"
    return model, note


# ------------------------------------------------------------------------------ 3. what trains
def parameter_parts(model):
    """[(parameter name, its part), ...]: "embeddings", "layer 1" (lowest) ..., "head" or "other".

    Embeddings are tables with one learned vector for each token and for each position. The encoder
    layers are the list of as many modules as config.num_hidden_layers says. The head is what stands
    after the encoder. BERT's pooler, a layer on the [CLS] vector, belongs to the encoder by name;
    here it is a part of the head, because it often comes with random weights, as the head does.
    """
    layers = f"{layer_stack(model) or 'no such layers'}."  # "distilbert.transformer.layer."
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

    A frozen weight gets no gradient and keeps its pretrained value. The backward pass, which finds
    out how each weight should change, goes from the head down and stops at the lowest layer that
    trains. That is the time which freezing saves. The lower layers know more of words and grammar,
    the upper ones more of meaning (Tenney et al. 2019, "BERT Rediscovers the Classical NLP
    Pipeline"), so freeze from below. The price: what is frozen cannot learn.
    Returns {part: (parameters, of them trainable)}. Raises UserError for more layers than there
    are, and where no head is found: if nothing but old layers trained, every answer would stay the
    toss of a coin.
    """
    depth = model.config.num_hidden_layers
    parts = parameter_parts(model)
    check_layers(model, parts, train_layers)
    on = {"head"} | {f"layer {n}" for n in range(depth - (train_layers or 0) + 1, depth + 1)}
    parameters, counts = dict(model.named_parameters()), {}
    for name, part in parts:
        parameters[name].requires_grad_(train_layers is None or part in on)
        total, trained = counts.get(part, (0, 0))
        size = parameters[name].numel()
        counts[part] = (total + size, trained + size * parameters[name].requires_grad)
    return counts


# ------------------------------------------------------------------------------ 4. less to compute
def speed_up(model, device, precision):
    """Let the last layer compute what is read of it, and all layers their attention the fast way.

    The head reads one vector of each text, that at [CLS]; the last layer makes one for every token.
    So let it make the one. Attention turns each token's vector into three: a query, a key, a value.
    The query of [CLS] is compared with the key of a token: that says how much of its value [CLS]
    takes. (extras/attention.py does it by hand.) So keys and values are needed of all:

        from the layer below    [CLS]  not  good  [SEP]     [B, T, W]; W numbers for each token
        keys and values           o     o     o     o       [B, T, W]
                                  |    /   _/   __/
        query, and all after it   o <-'---'----'            [B, 1, W]
        logits                    o                         [B, C]

    No logit changes, and no gradient. With six layers a seventh of all products is saved, in
    training and afterwards. Left as it is: a model whose head reads all tokens (as ModernBERT's
    may), and a call that asks for the states or attention weights of all.
    """
    layer, keys_and_values = last_layer(model)  # layer: None if the head reads more
    choose_attention(model, device, precision, one_query=layer is not None)
    if layer is not None and not give_first_alone(model, layer, keys_and_values):
        choose_attention(model, device, precision)  # it cannot be done here: as before


# ------------------------------------------------------------------------------ 5. save, reload
# A saved folder is all that an answer depends on:
#     model.safetensors, config.json             weights; architecture and names of the classes
#     tokenizer.json, tokenizer_config.json      the tokenizer
#     run.json                                   how it was made, and how to prepare texts for it
#     README.md                                  the same for people: a model card
# (finetune.py adds what it found on its way: history.jsonl, and answers to validation and test.)
def save_model(folder, model, tokenizer, run):
    """Write the folder described above. run: the dict that becomes run.json.

    First all files are written into a folder of another name, and read back: every weight has to
    be the one in memory. Then the old run.json goes, the files move to their places, and the new
    run.json comes last. So a run that is killed on the way leaves the old model, the new one, or a
    folder without run.json, which is refused; never a mixture of two. Raises UserError if the disk
    is full.
    """
    with whole_files(folder, last="run.json") as temporary:
        model.save_pretrained(temporary)  # as safetensors: numbers only, nothing that could run
        # The saved tokenizer cleans texts by itself, as dataset.clean() does. Other programs, such
        # as transformers' pipeline(), know nothing of clean(). They would give the model a `<br />`
        # that it has never seen, and get other probabilities.
        save_tokenizer(temporary, tokenizer, LINE_BREAK, max_positions(model))
        write_run(temporary, run)
        # Rounding, a forgotten head, a changed type: whatever happened to the weights is noticed
        # here, with the right ones in memory. fork_rng: dropout's random numbers go on as before.
        with torch.random.fork_rng(devices=[]):
            again = load_model(temporary)[0].state_dict()
        for name, weights in model.state_dict().items():
            assert torch.equal(weights.cpu(), again[name]), f"{name} is not what was saved"


def load_model(folder, device=torch.device("cpu"), precision="fp32", max_length=None):
    """Load what save_model() wrote. Returns (model in eval mode, tokenizer, run).

    folder: or that of a classifier which somebody else has saved. precision: in which the model
    will be asked; its weights are 32-bit numbers in any case. max_length: another one, or None.
    The logits are those of the model that was saved, bit for bit on the same CPU. Raises UserError
    where the folder holds no whole model.
    """
    run = read_run(folder, max_length)
    try:
        tokenizer = load_tokenizer(str(folder))
        model, info = load_classifier(folder, load_config(folder))
    except Exception as error:  # a damaged file: each library in the chain has errors of its own
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--model {folder}: cannot be loaded, a file is damaged or strange ({reason})"
        ) from error
    # The library fills what is missing with random numbers, and goes on. Here that is an error.
    check_loaded(folder, model, tokenizer, run, info)
    if precision == "int8":
        quantize(model)
    speed_up(model, device, precision)
    # eval: no dropout, or the same question would get another answer each time. (predict_logits()
    # does it again. Here it is for those who ask the model themselves.)
    return model.to(device).eval(), tokenizer, run


# ------------------------------------------------------------------------------ by itself
def main():
    """Send one sentence through the model, and show what comes out of each stage."""
    options = "model device precision"
    parser = make_parser(__doc__, options, model="distilbert-base-uncased")
    parser.add_argument("text", help="a sentence of your own")
    args = parser.parse_args()
    text = clean(args.text)
    if not text:
        raise UserError("the text is empty: give it some words")
    device, precision, reasons = choose_hardware(args.device, args.precision)
    for what, chosen in (("device", device), ("precision", precision)):
        print(f"{what:10} {chosen}: {reasons[what]}")
    model, note = load_pretrained(args.model, None, seed=42)
    tokenizer = load_tokenizer(args.model)
    print(f"{note}\n")
    most = max_positions(model)
    batch = tokenizer(text, truncation=True, max_length=most, return_tensors="pt")
    tokens = " ".join(tokenizer.convert_ids_to_tokens(batch["input_ids"][0]))
    batch = to_device(batch, device)  # input_ids and attention_mask, [1, T] each
    if precision == "int8":
        quantize(model)
    model.to(device).eval()
    # eval: dropout is off. inference_mode: nothing is kept for a backward pass.
    with torch.inference_mode(), autocast(device, precision):
        vectors = model.base_model(**batch)[0]  # [1, T, W], W numbers for each token
        logits = model(**batch).logits  # [1, C]
    stages = [("input_ids", batch["input_ids"], tokens[:50])]
    stages += [("encoder", vectors, "a vector for each token")]
    stages += [("logits", logits, "a score for each class")]
    for name, tensor, what in stages:
        print(f"{name:12} {str(list(tensor.shape)):>16}   {what}")
    # softmax makes the scores positive, with the sum 1: probabilities. They are close to 1 / C,
    # because the new head is drawn at random, unless --model names a model that has been trained.
    for i, probability in enumerate(logits[0].float().softmax(dim=-1).tolist()):
        print(f"{model.config.id2label[i]:12} {probability:>16.3f}")
    print()
    for part, (size, trained) in set_trainable(model).items():
        print(f"{part:12} {size:>16,}   {'trains' if trained else 'frozen'}")


if __name__ == "__main__":
    run_command(main)
