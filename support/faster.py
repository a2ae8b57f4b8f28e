"""Less to compute, and the rest of it in the way that is fastest here."""

import threading

import torch
from torch import nn
from torch.nn import functional


# ------------------------------------------------------------------------------ 1. the last layer
def layer_stack(model):
    """The name of the list that holds the encoder's layers, lowest first; None if there is none.

    Each family has names of its own: DistilBERT's layers are transformer.layer.0 to 5, BERT's
    encoder.layer.0 to 11. So look for the list that has as many modules as there are layers.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == model.config.num_hidden_layers:
            return name
    return None


def last_layer(model):
    """(the encoder's last layer, its key and value projections), or (None, ()).

    None if the head reads more than the first vector of that layer, or no two such projections are
    found, or the model computes its attention in a way of its own.
    """
    stack = layer_stack(model)
    if stack is None or model.config._attn_implementation not in ("sdpa", "by_hand"):
        return None, ()
    layer = model.get_submodule(stack)[-1]
    projections = [
        module
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear) and name.split(".")[-1][0] in "kv"  # key, k_lin, k_proj
    ]

    def spoil(module, args, output):  # every vector but the first is no number any more
        vectors = output if isinstance(output, torch.Tensor) else output[0]  # [B, T, W]
        vectors[:, 1:] = torch.nan

    spoiling = layer.register_forward_hook(spoil)
    try:
        alone = bool(ask(model).isfinite().all())  # a head of zeros would show it, too: 0 x nan
    except Exception:  # a model that wants more than ids and a mask
        alone = False
    finally:
        spoiling.remove()
    return (layer, projections) if alone and len(projections) == 2 else (None, ())


def give_first_alone(model, layer, keys_and_values):
    """Give the last layer the first token's vector, and its keys and values those of all.

    It is done by hooks, functions that a module calls before or after its own: here with other
    arguments. Only where the whole model is called, its head included, and nothing but logits is
    asked for. Returns False, and leaves the model as it was, if its logits would change.
    """
    expected = ask(model)
    now = threading.local()  # of the call that this thread is in

    def begin(module, args, options):
        asked = ("output_hidden_states", "output_attentions")
        now.narrow = model.config._attn_implementation in ("in_one", "by_hand") and not any(
            options.get(name) or getattr(model.config, name, False) for name in asked
        )

    def first(module, args):
        if not getattr(now, "narrow", False):
            return args
        now.vectors = args[0]  # [B, T, W]
        return (args[0][:, :1], *args[1:])  # [B, 1, W]

    def all_of_them(module, args):
        return (now.vectors,) if hasattr(now, "vectors") else args  # [B, T, W]

    hooks = [
        model.register_forward_pre_hook(begin, with_kwargs=True),
        layer.register_forward_pre_hook(first),
        *(one.register_forward_pre_hook(all_of_them) for one in keys_and_values),
        model.register_forward_hook(lambda *_: vars(now).clear(), always_call=True),
    ]
    try:
        same = torch.allclose(ask(model), expected, rtol=1e-4, atol=1e-5)
    except Exception:  # whatever a model does with shapes that it does not expect
        same = False
    for hook in hooks if not same else ():
        hook.remove()
    layer.keys_and_values = keys_and_values if same else None  # extras/cost.py counts by it
    return same


def ask(model):
    """The logits [2, C] of two texts of four and of two tokens, as they come out in eval mode."""
    device, was_training = next(model.parameters()).device, model.training
    input_ids = torch.arange(3, 11, device=device).reshape(2, 4) % model.config.vocab_size
    attention_mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], device=device)
    model.eval()
    try:
        with torch.no_grad():
            return model(input_ids=input_ids, attention_mask=attention_mask).logits
    finally:
        model.train(was_training)


def unfold(query, key, value, attention_mask):
    """One query for each text, but keys and values of all tokens: bring them to one form.

    transformers gives all three the shape that the query has. With a single query [B, H, 1, D] the
    keys of T tokens come as [B, T*H, 1, D]: the same numbers in the same order. [B, H, T, D] again.
    """
    heads = query.shape[1]
    if key.shape[1] != heads:
        key, value = (
            x.transpose(1, 2).reshape(len(x), -1, heads, x.shape[-1]).transpose(1, 2)
            for x in (key, value)
        )
    if attention_mask is not None:
        attention_mask = attention_mask[..., : query.shape[2], :]  # [B, 1, 1, T]
    return query, key, value, attention_mask


# ------------------------------------------------------------------------------ 2. attention
# Models that ask for nothing on top of it, such as scores that depend on the distance.
PLAIN_ATTENTION = ("distilbert", "bert", "roberta", "xlm-roberta", "modernbert")
SCORES_AT_ONCE = 12 * 2**20  # 24 MB in bf16, about what the cache of a CPU can hold


def choose_attention(model, device, precision, one_query=False):
    """Let the model compute its attention in the way that is fastest here.

    PyTorch has one function for all of attention. On GPUs it is hard to beat, and on CPUs in fp32.
    On a CPU in bf16 the few lines below take less time than it does. one_query: whether the last
    layer has one query for each text; the library's way to PyTorch's function does not know that.
    """
    plain = model.config.model_type in PLAIN_ATTENTION
    name = "in_one" if one_query else "sdpa"
    if device.type == "cpu" and precision == "bf16" and plain:
        name = "by_hand"
    elif model.config._attn_implementation not in ("in_one", "by_hand") and not one_query:
        return  # it has the library's
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    # The library looks its attention up by name. This adds two, and the model asks for one.
    for own, function in (("in_one", attention_in_one), ("by_hand", attention_by_hand)):
        AttentionInterface.register(own, function)
        AttentionMaskInterface.register(own, sdpa_mask)  # True where a token may look
    model.set_attn_implementation(name)


def attention_in_one(module, query, key, value, attention_mask, **options):
    """PyTorch's own function, by way of the library."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(module, *unfold(query, key, value, attention_mask), **options)


def attention_by_hand(module, query, key, value, attention_mask, dropout=0.0, **options):
    """Every token asks a query of every other's key, and gets a mixture of their values.

    softmax(Q K^T / sqrt(D)) V, from Vaswani et al. 2017. query, key, value: [B, H, T, D], for H
    heads of D numbers each. attention_mask: [B, 1, T, T], the library's form, says in row i at whom
    token i may look; None where there is no padding.
    Returns [B, T, H, D], and None for the weights, which transformers would hand on if asked.
    """
    query, key, value, attention_mask = unfold(query, key, value, attention_mask)
    scale = options.get("scaling") or query.shape[-1] ** -0.5  # scores would grow with D
    # Some reviews at a time: all scores together leave the cache, and memory is slower than sums.
    reviews = max(1, SCORES_AT_ONCE // (query.shape[1] * query.shape[2] * key.shape[2]))
    mixtures = []
    for start in range(0, len(query), reviews):
        some = slice(start, start + reviews)
        scores = (query[some] * scale) @ key[some].transpose(2, 3)  # [b, H, T, T]
        if attention_mask is not None:
            # The lowest number, not -inf: where tokens look only at near ones (ModernBERT), padding
            # may have nobody to look at, and a row of -inf alone would be 0 / 0.
            scores = scores.masked_fill(~attention_mask[some], torch.finfo(scores.dtype).min)
        # The sum of each row is 1. dropout: 0.0 when the model is in eval mode, says the library.
        weights = functional.dropout(scores.softmax(dim=-1), dropout)  # [b, H, T, T]
        mixtures.append((weights @ value[some]).transpose(1, 2))  # [b, T, H, D]
    return torch.cat(mixtures), None
