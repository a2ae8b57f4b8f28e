"""Chapter 3, second half: attention, by hand.

Teaches   the part of an encoder layer in which every token looks at every other; and that the
          fastest way to compute it depends on the hardware, so it has to be measured.
Order     after model.py; next is finetune.py.
Run       python attention.py "I regret watching this film"
Expect    the model's logits with PyTorch's attention and with ours, which are equal to six digits,
          and which tokens [CLS] looks at in the last layer.
"""

import torch
from torch.nn import functional

from errors import make_parser, run_command
from model import load_pretrained, load_tokenizer

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

    AttentionInterface.register("by_hand", attention_by_hand)
    AttentionMaskInterface.register("by_hand", sdpa_mask)  # True where a token may look
    model.set_attn_implementation("by_hand")


def attention_by_hand(module, query, key, value, attention_mask, dropout=0.0, **options):
    """Every token asks a query of every other's key, and gets a mixture of their values.

    softmax(Q K^T / sqrt(D)) V, from Vaswani et al. 2017. query, key, value: [B, H, T, D], for H
    heads of D numbers each. attention_mask: [B, 1, T, T], or None where there is no padding.
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
            # The lowest number there is, not -inf: a row that may look at nothing would be nan.
            scores = scores.masked_fill(~attention_mask[some], torch.finfo(scores.dtype).min)
        weights = functional.dropout(scores.softmax(dim=-1), dropout)  # of each row the sum is 1
        mixtures.append(weights @ value[some])  # [b, H, T, D]
    whole = mixtures[0] if len(mixtures) == 1 else torch.cat(mixtures)
    return whole.transpose(1, 2).contiguous(), None


def main():
    parser = make_parser(__doc__)
    parser.add_argument("text", help="a sentence of your own")
    parser.add_argument("--model", default="distilbert-base-uncased", help="hub name or folder")
    args = parser.parse_args()
    model, _ = load_pretrained(args.model, None, seed=42)
    tokenizer = load_tokenizer(args.model)
    # input_ids and attention_mask, [1, T] each
    batch = tokenizer(args.text, truncation=True, max_length=64, return_tensors="pt")
    with torch.inference_mode():
        theirs = model(**batch).logits  # [1, C]
        model.set_attn_implementation("eager")  # the library's slow way, which shows its weights
        weights = model(**batch, output_attentions=True).attentions[-1]  # [1, H, T, T]
        choose_attention(model, torch.device("cpu"), "bf16")
        ours = model(**batch).logits  # [1, C]
    print(f"logits, PyTorch's attention  {theirs[0].tolist()}")
    print(f"logits, attention by hand    {ours[0].tolist()}\n")
    looks = weights[0].mean(dim=0)[0].tolist()  # of all heads, the row of the first token: [T]
    print(f"where {tokenizer.convert_ids_to_tokens(batch['input_ids'][0, :1].tolist())[0]} looks")
    for token, share in zip(tokenizer.convert_ids_to_tokens(batch["input_ids"][0]), looks):
        print(f"{token:>15}  {share:6.1%}  {'#' * round(50 * share)}")


if __name__ == "__main__":
    run_command(main)
