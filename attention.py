"""Chapter 3, part 3 of 3: the forward pass, by hand.

Teaches   all that happens between token ids and logits, in some fifty lines of plain products and
          sums: embeddings, attention, in which every token looks at every other, feed-forward
          layers, the head. And that the fastest way to compute attention depends on the hardware.
Order     after model.py; next is finetune.py.
Run       python attention.py "I regret watching this film" "Loved it"
Expect    a batch of your sentences on its way, each step with its shape; the logits, and how far
          they are from the library's (DistilBERT only); and which tokens [CLS] looks at in the last
          layer, with nothing for the padding of the shorter sentence.
Shows     $ python attention.py --model demo/untrained "Loved it"
          where [CLS] looks in the last layer, mean of 4 heads
                    [CLS]   23.2%  ############
                    loved   27.0%  ##############
                       it   24.3%  ############
                    [SEP]   25.5%  #############
"""

import torch
from torch.nn import functional

from errors import make_parser, run_command
from model import load_pretrained, load_tokenizer


# ------------------------------------------------------------------------------ 1. step by step
def forward_by_hand(model, input_ids, attention_mask, show=lambda step, tensor: None):
    """A DistilBERT classifier's logits, from its own weights and no module of the library.

    input_ids, attention_mask: [B, T]. show(step, tensor) is called along the way. Returns (logits
    [B, C], what each layer's tokens looked at: a list of [B, H, T, T]).
    Vaswani et al. 2017, without the decoder; W is 768 numbers for a token, H 12 heads of D = 64.
    """
    weights, config = model.state_dict(), model.config
    mask = attention_mask[:, None, None, :].bool()  # [B, 1, 1, T], for all heads and all tokens

    def linear(name, x):
        """[B, T, in] to [B, T, out]: each output is a weighted sum of all inputs."""
        # weight: [out, in], bias: [out]
        return x @ weights[name + ".weight"].T + weights[name + ".bias"]

    def layer_norm(name, x):
        """Each token's W numbers with mean 0 and variance 1; then W learned factors and shifts."""
        x = x - x.mean(dim=-1, keepdim=True)  # [B, T, W]
        # 1e-12, or W equal numbers would be divided by 0.
        x = x / (x.square().mean(dim=-1, keepdim=True) + 1e-12).sqrt()
        return x * weights[name + ".weight"] + weights[name + ".bias"]

    def heads(x):
        """[B, T, W] as [B, H, T, D]: each head works with a part of the numbers."""
        return x.unflatten(-1, (config.n_heads, -1)).transpose(1, 2)

    # A vector for "I am this word" plus a vector for "I am the 5th token".
    words = weights["distilbert.embeddings.word_embeddings.weight"][input_ids]  # [B, T, W]
    places = weights["distilbert.embeddings.position_embeddings.weight"]  # [512, W]
    hidden = layer_norm("distilbert.embeddings.LayerNorm", words + places[: input_ids.shape[1]])
    show("embeddings", hidden)

    looks = []
    for number in range(config.n_layers):
        layer = f"distilbert.transformer.layer.{number}."
        # Attention: every token has a query, a key and a value. The product of one's query and
        # another's key says how much of the other's value it takes. Divided by the root of D,
        # because sums of more numbers are larger.
        query, key, value = (
            heads(linear(f"{layer}attention.{part}_lin", hidden)) for part in "qkv"
        )  # [B, H, T, D] each
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5  # [B, H, T, T]
        # Padding: the exponential of -inf is exactly 0. (Every row may look at [CLS] at least.)
        scores = scores.masked_fill(~mask, -torch.inf)  # [B, H, T, T]
        # The largest is subtracted, which changes no quotient and keeps the exponential finite.
        powers = (scores - scores.amax(dim=-1, keepdim=True)).exp()  # [B, H, T, T]
        looks.append(powers / powers.sum(dim=-1, keepdim=True))  # softmax: each row's sum is 1
        mixture = (looks[-1] @ value).transpose(1, 2).flatten(2)  # [B, T, W]
        # Plus what was there before: a layer adds to its input and need not invent it anew.
        hidden = layer_norm(
            layer + "sa_layer_norm", hidden + linear(layer + "attention.out_lin", mixture)
        )  # [B, T, W]
        # Feed-forward: to four times the width, through GELU, and back, each token for itself.
        # (Without GELU, which is no straight line, two products would be no more than one.)
        wide = linear(layer + "ffn.lin1", hidden)  # [B, T, 4 W]
        wide = wide * (1 + (wide / 2**0.5).erf()) / 2  # GELU: negative numbers fade to 0
        hidden = layer_norm(
            layer + "output_layer_norm", hidden + linear(layer + "ffn.lin2", wide)
        )  # [B, T, W]
        show(f"encoder layer {number + 1}", hidden)  # [B, T, W]

    first = linear("pre_classifier", hidden[:, 0]).clamp(min=0)  # [B, W], of [CLS] alone
    show("[CLS] in the head", first)
    logits = linear("classifier", first)  # [B, C]
    show("logits", logits)
    return logits, looks


# ------------------------------------------------------------------------------ 2. fast
# Models that ask for nothing on top of it, such as scores that depend on the distance.
PLAIN_ATTENTION = ("distilbert", "bert", "roberta", "xlm-roberta", "modernbert")
SCORES_AT_ONCE = 12 * 2**20  # 24 MB in bf16, about what the cache of a CPU can hold


def choose_attention(model, device, precision):
    """Let the model compute its attention in the way that is fastest here.

    PyTorch has one function for all of attention. On GPUs it is hard to beat, and on CPUs in fp32.
    On a CPU in bf16 the few lines below take less time than it does (README, "Fast").
    """
    if (
        device.type != "cpu"
        or precision != "bf16"
        or model.config.model_type not in PLAIN_ATTENTION
    ):
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    # The library looks its attention up by name. This adds one, and the model asks for it.
    AttentionInterface.register("by_hand", attention_by_hand)
    AttentionMaskInterface.register("by_hand", sdpa_mask)  # True where a token may look
    model.set_attn_implementation("by_hand")


def attention_by_hand(module, query, key, value, attention_mask, dropout=0.0, **options):
    """Every token asks a query of every other's key, and gets a mixture of their values.

    softmax(Q K^T / sqrt(D)) V, from Vaswani et al. 2017. query, key, value: [B, H, T, D], for H
    heads of D numbers each. attention_mask: [B, 1, T, T], the library's form, says in row i at whom
    token i may look; None where there is no padding.
    Returns [B, T, H, D], and None for the weights, which transformers would hand on if asked.
    """
    scale = options.get("scaling") or query.shape[-1] ** -0.5  # scores would grow with D
    tokens = query.shape[2]
    # Some reviews at a time: all scores together leave the cache, and memory is slower than sums.
    reviews = max(1, SCORES_AT_ONCE // (query.shape[1] * tokens * tokens))
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
        mixtures.append(weights @ value[some])  # [b, H, T, D]
    whole = mixtures[0] if len(mixtures) == 1 else torch.cat(mixtures)
    return whole.transpose(1, 2).contiguous(), None


# ------------------------------------------------------------------------------ your sentences
def show_looks(tokens, looks, row, name="[CLS]"):
    """Print where a text's first token looks, as bars.

    tokens: T strings. looks: [B, H, T, T], of a layer. row: which text of the batch.
    """
    shares = looks[row].mean(dim=0)[0].tolist()  # mean of the heads [T, T], first token's row [T]
    print(f"\nwhere {name} looks in the last layer, mean of {looks.shape[1]} heads")
    for token, share in zip(tokens, shares):
        print(f"{token:>15}  {share:6.1%}  {'#' * round(50 * share)}")


def look_at(model, tokenizer, texts):
    """The batch of some texts and, in each layer, where its tokens look: (batch, list of looks)."""
    batch = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the library's slow way, which shows its weights
    with torch.inference_mode():
        looks = model(**batch, output_attentions=True).attentions  # [B, H, T, T] each
    model.set_attn_implementation(before)
    return batch, looks


def main():
    parser = make_parser(__doc__)
    parser.add_argument("texts", nargs="+", help="sentences of your own")
    parser.add_argument("--model", default="distilbert-base-uncased", help="hub name or folder")
    args = parser.parse_args()
    model, _ = load_pretrained(args.model, None, seed=42)
    model.eval()
    tokenizer = load_tokenizer(args.model)
    batch, looks = look_at(model, tokenizer, args.texts)
    with torch.inference_mode():
        theirs = model(**batch).logits  # [B, C]
        if model.config.model_type == "distilbert":
            ours, looks = forward_by_hand(
                model,
                batch["input_ids"],
                batch["attention_mask"],
                lambda step, tensor: print(f"{step:20} {str(list(tensor.shape)):>15}"),
            )
            print(f"logits by hand       {ours.tolist()}")
            print(f"largest difference from the library's: {(ours - theirs).abs().max():.1g}")
        # Only bf16 takes ours; the numbers here stay fp32, so that the two can be compared.
        choose_attention(model, torch.device("cpu"), "bf16")
        fast = model(**batch).logits  # [B, C]
        print(f"and with our fast attention: {(fast - theirs).abs().max():.1g}")
    shortest = batch["attention_mask"].sum(dim=1).argmin().item()
    tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][shortest])
    show_looks(tokens, looks[-1], shortest, tokens[0])


if __name__ == "__main__":
    run_command(main)
