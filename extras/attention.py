"""The forward pass, by hand.

Teaches   all that happens between token ids and logits, in some fifty lines of plain products and
          sums: embeddings; attention, in which every token looks at every other; feed-forward
          layers; the head.
After     model.py.
Run       python -m extras.attention "I regret watching this film" "Loved it"
Expect    a batch of your sentences on its way through the model: each stage with the shape that
          comes out, the logits, and how far they are from the library's (DistilBERT only). Then
          the tokens at which [CLS] looks in the last layer: none of them is padding.
Shows     $ python -m extras.attention --model demo "I regret watching this film" "Loved it"
          embeddings            [2, 7, 64]
          encoder layer 1       [2, 7, 64]
          encoder layer 2       [2, 7, 64]
          [CLS] in the head        [2, 64]
          logits                    [2, 2]
          ...
          where [CLS] looks in the last layer, mean of 4 heads
          ...
                    [PAD]    0.0%
"""

import torch

from dataset import clean
from model import load_pretrained
from support.pretrained import load_tokenizer, max_positions
from support.errors import UserError, make_parser, run_command


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

    # A vector for "I am this token" plus a vector for "I stand in the 5th place".
    words = weights["distilbert.embeddings.word_embeddings.weight"][input_ids]  # [B, T, W]
    places = weights["distilbert.embeddings.position_embeddings.weight"]  # [512, W]
    hidden = layer_norm("distilbert.embeddings.LayerNorm", words + places[: input_ids.shape[1]])
    show("embeddings", hidden)

    looks = []
    for number in range(config.n_layers):
        layer = f"distilbert.transformer.layer.{number}."
        # Attention: every token has a query, a key and a value. The product of its query and
        # another's key says how much of the other's value it takes. It is divided by the root of
        # D, because sums of more numbers are larger.
        parts = (linear(f"{layer}attention.{part}_lin", hidden) for part in "qkv")
        query, key, value = map(heads, parts)  # [B, H, T, D] each
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5  # [B, H, T, T]
        # Padding: the exponential of -inf is exactly 0. (Every row may look at [CLS] at least.)
        scores = scores.masked_fill(~mask, -torch.inf)  # [B, H, T, T]
        # The largest is subtracted, which changes no quotient and keeps the exponential finite.
        powers = (scores - scores.amax(dim=-1, keepdim=True)).exp()  # [B, H, T, T]
        looks.append(powers / powers.sum(dim=-1, keepdim=True))  # softmax: each row's sum is 1
        mixture = (looks[-1] @ value).transpose(1, 2).flatten(2)  # [B, T, W]
        # Plus what was there before: a layer only adds to its input, and need not repeat it.
        total = hidden + linear(layer + "attention.out_lin", mixture)
        hidden = layer_norm(layer + "sa_layer_norm", total)  # [B, T, W]
        # Feed-forward: to four times the width, through GELU, and back, each token for itself.
        # Without GELU, which is a curve, the two products could be replaced by a single one.
        wide = linear(layer + "ffn.lin1", hidden)  # [B, T, 4 W]
        wide = wide * (1 + (wide / 2**0.5).erf()) / 2  # GELU: negative numbers fade to 0
        total = hidden + linear(layer + "ffn.lin2", wide)
        hidden = layer_norm(layer + "output_layer_norm", total)  # [B, T, W]
        show(f"encoder layer {number + 1}", hidden)  # [B, T, W]

    first = linear("pre_classifier", hidden[:, 0]).clamp(min=0)  # [B, W], of [CLS] alone
    show("[CLS] in the head", first)
    logits = linear("classifier", first)  # [B, C]
    show("logits", logits)
    return logits, looks


# ------------------------------------------------------------------------------ 2. your sentences
def main():
    parser = make_parser(__doc__, "model", model="distilbert-base-uncased")
    parser.add_argument("texts", nargs="+", help="sentences of your own, each in quotes")
    args = parser.parse_args()
    texts = [clean(text) for text in args.texts]
    if not all(texts):
        raise UserError("a text is empty: give it some words")
    model, _ = load_pretrained(args.model, None, seed=42)
    model.eval()  # no dropout
    tokenizer, most = load_tokenizer(args.model), min(64, max_positions(model))
    batch = tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt")
    model.set_attn_implementation("eager")  # the library's slow way, which tells where tokens look
    with torch.inference_mode():
        theirs = model(**batch, output_attentions=True)
        looks = getattr(theirs, "attentions", None)  # [B, H, T, T] of each layer
        if not looks:
            raise UserError(f"{args.model}: such a model does not tell where its tokens look")
        if model.config.model_type == "distilbert":
            ours, looks = forward_by_hand(
                model,
                batch["input_ids"],  # [B, T]
                batch["attention_mask"],  # [B, T]
                lambda stage, tensor: print(f"{stage:20} {str(list(tensor.shape)):>12}"),
            )
            print(f"logits by hand       {ours.tolist()}")
            off = (ours - theirs.logits).abs().max()
            print(f"largest difference from the library's: {off:.1g}")

    shortest = batch["attention_mask"].sum(dim=1).argmin().item()  # it has the most padding
    tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][shortest])
    heads = looks[-1][shortest]  # [H, T, T]
    print(f"\nwhere {tokens[0]} looks in the last layer, mean of {len(heads)} heads")
    for token, share in zip(tokens, heads.mean(dim=0)[0].tolist()):  # the first token's row: [T]
        print(f"{token:>15}  {share:6.1%}  {'#' * round(50 * share)}".rstrip())


if __name__ == "__main__":
    run_command(main)
