"""Less to compute, and the rest of it in the way that is fastest here."""

import threading

import torch
from torch import nn
from torch.nn import functional

from support.errors import UserError


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
    layer.keys_and_values = keys_and_values if same else None  # for whoever asks if it is so
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
            x.transpose(1, 2).reshape(x.shape[0], -1, heads, x.shape[-1]).transpose(1, 2)
            for x in (key, value)
        )
    if attention_mask is not None:
        attention_mask = attention_mask[..., : query.shape[2], :]  # [B, 1, 1, T]
    return query, key, value, attention_mask


def longest_first(lengths, size):
    """Row numbers in batches of like length. size: gives for the longest of a batch how many."""
    order, batches, start = sorted(range(len(lengths)), key=lambda i: -lengths[i]), [], 0
    while start < len(order):
        batches.append(order[start : start + size(lengths[order[start]])])
        start += len(batches[-1])
    return batches


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
    if device.type == "cpu" and rest_of(precision) == "bf16" and plain:
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


# ------------------------------------------------------------------------------ 3. whole numbers
def native(*names):
    """Which of these things this CPU computes natively, such as avx512_bf16."""
    return [name for name in names if torch.cpu.get_capabilities().get(name)]


def rest_of(precision):
    """In which format a model computes what is not quantized: bf16 where the CPU has it."""
    if precision != "int8":
        return precision
    return "bf16" if native("amx_bf16", "avx512_bf16") else "fp32"


ROWS = 512  # vectors at once: what is made of them on the way stays in the cache


class Int8Linear(nn.Linear):
    """A linear layer that multiplies whole numbers from -127 to 127, which is faster on a CPU.

    Each row of the matrix has a scale, which makes its largest number 127, and so has each vector:
    a few tokens have numbers that are far larger than those of all others, which would otherwise
    become 0 (Dettmers et al. 2022, "LLM.int8()"). Two numbers that were rounded are multiplied; the
    errors mostly cancel out in the sum of hundreds of products. The 32-bit matrix stays, because
    whole numbers have no gradient, and an explanation asks for one.
    """

    def __init__(self, linear):
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        matrix = linear.weight.detach()  # [out, in]
        self.scales = (matrix.abs().amax(dim=1) / 127).clamp(min=1e-9)  # [out]
        whole = (matrix / self.scales[:, None]).round().to(torch.int8)  # [out, in]
        self.packed = torch.ops.onednn.qlinear_prepack(whole, [ROWS, self.in_features])
        self.zeros = torch.zeros(self.out_features, dtype=torch.int32)
        self.added = torch.zeros(self.out_features) if self.bias is None else self.bias.detach()
        # Without these instructions a CPU adds up two products in 16 bits, which end at 32,767. So
        # there the vectors get numbers up to 63, and nothing can overflow.
        self.most = 127 if native("avx512_vnni", "avx_vnni", "amx_int8") else 63

    def forward(self, vectors):
        if vectors.requires_grad and torch.is_grad_enabled():
            return super().forward(vectors)
        # Queries, keys and values are made of the same vectors: these are rounded once for all.
        if not hasattr(vectors, "in_whole_numbers"):
            vectors.in_whole_numbers = self.round(vectors)
        whole, scale = vectors.in_whole_numbers  # [B*T, in], [B*T, 1]
        products = scale.new_empty(len(whole), self.out_features)  # [B*T, out]
        for start in range(0, len(whole), ROWS):
            some = slice(start, start + ROWS)
            product = torch.ops.onednn.qlinear_pointwise(
                *(whole[some], 1.0, self.most + 1, self.packed, self.scales, self.zeros, None),
                *(1.0, 0, torch.float32, "none", [], ""),  # of the product: as it comes out
            )
            torch.addcmul(self.added, product, scale[some], out=products[some])
        return products.reshape(*vectors.shape[:-1], self.out_features)

    def round(self, vectors):
        """(vectors in whole numbers [B*T, in], their scales [B*T, 1]). 0 becomes self.most + 1."""
        rows = vectors.reshape(-1, self.in_features).float()
        whole, scale = torch.empty(rows.shape, dtype=torch.uint8), rows.new_empty(len(rows), 1)
        half = torch.tensor(self.most + 1.5)  # to uint8 cuts the digits behind the point off
        for start in range(0, len(rows), ROWS):
            some = slice(start, start + ROWS)
            largest = torch.linalg.vector_norm(rows[some], torch.inf, dim=1, keepdim=True)
            scale[some] = largest.clamp_(min=1e-9) / self.most
            whole[some] = torch.addcmul(half, rows[some], 1 / scale[some])
        return whole, scale


def quantize(model):
    """Let the linear layers of the encoder multiply whole numbers. The head keeps its 32 bits.

    Raises UserError for a model without such layers, and on a machine that cannot do it.
    """
    stack = layer_stack(model)
    found = [
        (parent, name, module)
        for parent in (model.get_submodule(stack).modules() if stack else ())
        for name, module in parent.named_children()
        if type(module) is nn.Linear
    ]
    if not found:
        raise UserError(f"--precision int8: {type(model).__name__} has no layers for it")
    with torch.no_grad():
        for parent, name, module in found:
            try:
                whole, vectors = Int8Linear(module), module.weight[:8]  # some vectors to try it
                right = module(vectors)
                wrong = (whole(vectors) - right).abs().max() > 0.1 * right.abs().max()
            except (AttributeError, RuntimeError):  # no oneDNN in this PyTorch, or not for this CPU
                wrong = True
            if wrong:
                raise UserError("--precision int8: not on this machine; leave --precision out")
            setattr(parent, name, whole)
