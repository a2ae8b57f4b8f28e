"""Appendix O: why did it say so?

Teaches   two ways to ask a model which words decided: leave each word out and see what changes; and
          follow the gradient from a text without words to the real one (integrated gradients).
          They answer different questions, and both are about this model, not about the world.
Order     after predict.py, whose --explain this is.
Run       python predict.py --explain "I regret watching this film"
          python predict.py --explain --html why.html "I regret watching this film"
Expect    each word with its share in the decision, in color where the terminal has any: green
          speaks for the answer, red against it. And the gap: what the second way does not explain.
Shows     $ python explain.py --model demo/untrained "I regret watching a filmmaker"
                             I  [34]
                        regret  [262]
                      watching  [327]
                             a  [26]
                     filmmaker  [182, 85, 73, 83, 77, 90]
"""

from bisect import bisect_right

import torch

from dataset import clean, make_examples, special_ids, truncate
from errors import UserError, make_parser, plain, run_command
from evaluate import predict_logits
from model import load_tokenizer
from page import card, cards, color_words, document, levels


# ------------------------------------------------------------------------------ 1. words, tokens
def encode_words(text, tokenizer, max_length, how):
    """(words, input_ids, word_of): of each token, the number of its word, or None for [CLS], [SEP].

    A word is what stands between spaces, with its punctuation: shares of "##ing" tell a reader
    nothing. Words that truncation cuts away have no token.
    """
    words = clean(text).split()
    starts = [0]  # where in the text each word begins; after clean() one space is between two
    for word in words[:-1]:
        starts.append(starts[-1] + len(word) + 1)
    encoded = tokenizer(
        " ".join(words), add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
    before, after = special_ids(tokenizer)
    kept = truncate(list(range(len(ids))), max_length - len(before) - len(after), how)
    # By a token's last letter: some tokenizers count the space before a word as part of it.
    word_of = [bisect_right(starts, ends[i] - 1) - 1 for i in kept]
    word_of = [None] * len(before) + word_of + [None] * len(after)
    return words, before + [ids[i] for i in kept] + after, word_of


def margin(logits, target):
    """How far class `target` is ahead: the logarithm of p / (1 - p). [N, C] becomes [N].

    Unlike p it has no ends: from 0.98 to 0.99 is as far as from 0.33 to 0.5, twice the odds.
    """
    others = [c for c in range(logits.shape[1]) if c != target]
    return logits[:, target] - logits[:, others].logsumexp(dim=1)


# ------------------------------------------------------------------------------ 2. leave it out
def leave_out(model, collate, input_ids, word_of, target, device):
    """{word number: how much the margin of `target` falls when the word's tokens are left out}."""
    numbers = sorted({number for number in word_of if number is not None})
    rows = [input_ids] + [
        [token for token, owner in zip(input_ids, word_of) if owner != number] for number in numbers
    ]
    logits = predict_logits(model, make_examples(rows, [0] * len(rows)), collate, device)
    margins = margin(logits, target)  # [1 + words]
    return dict(zip(numbers, (margins[0] - margins[1:]).tolist()))


# ------------------------------------------------------------------------------ 3. gradients
def integrate_gradients(function, start, end, steps=64, at_once=16):
    """Sundararajan et al. 2017: share out function(end) - function(start) among the numbers of end.

    function: [n, ...] gives [n], each row for itself. start, end: [...]. Returns (shares [...],
    gap): the shares' sum should be the difference of the two values; the gap is what is missing.
    On the straight way from start to end, each number's share is its gradient times how far it
    moves. The integral of the gradients is a sum over `steps` points (Gauss-Legendre: the points
    and weights that are exact for polynomials of degree 2 * steps - 1).
    """
    import numpy

    points, weights = numpy.polynomial.legendre.leggauss(steps)  # from -1 to 1
    points = torch.tensor((points + 1) / 2, dtype=end.dtype, device=end.device)  # [steps], 0 to 1
    weights = torch.tensor(weights / 2, dtype=end.dtype, device=end.device)
    total = torch.zeros_like(end)
    for some in torch.arange(steps).split(at_once):
        along = points[some].reshape(-1, *[1] * end.dim())  # [n, 1, ...]
        way = (start + along * (end - start)).detach().requires_grad_()  # [n, ...]
        (gradient,) = torch.autograd.grad(function(way).sum(), way)
        total += (weights[some].reshape(along.shape) * gradient).sum(dim=0)
    shares = (end - start) * total
    with torch.no_grad():
        values = function(torch.stack([start, end]))
    return shares.detach(), (values[1] - values[0] - shares.sum()).item()


STEPS = (32, 64, 128, 256, 512)  # from one to the next until the gap is under half a percent


def follow_gradients(model, input_ids, word_of, target, pad_token_id, device, tries=STEPS):
    """({word number: its share in the margin of `target`}, gap, margin without words).

    The start is the same text with every word's vector replaced by that of [PAD]. tries: numbers of
    steps, until the gap is small enough.
    """
    ids = torch.tensor(input_ids, device=device)  # [T]
    is_word = torch.tensor([owner is not None for owner in word_of], device=device)  # [T]
    vectors = model.get_input_embeddings()  # a table: [V, W]
    end = vectors(ids).detach()  # [T, W]
    start = torch.where(is_word[:, None], vectors.weight[pad_token_id].detach(), end)

    def function(embeddings):  # [n, T, W] gives [n]
        mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=device)  # [n, T]
        logits = model(inputs_embeds=embeddings, attention_mask=mask).logits
        return margin(logits.float(), target)

    for steps in tries:
        shares, gap = integrate_gradients(function, start, end, steps)
        if abs(gap) <= 0.005 * abs(shares.sum().item() + gap):
            break
    per_token = shares.sum(dim=-1).tolist()  # [T]
    found = {owner: 0.0 for owner in word_of if owner is not None}
    for owner, share in zip(word_of, per_token):
        if owner is not None:
            found[owner] += share
    with torch.no_grad():
        empty = function(start[None]).item()
    return found, gap, empty


def explain(model, tokenizer, collate, text, arguments, device, quick=False, target=None):
    """All about one text, as a dict: "words", "left_out", "shares", "gap", "from", "to", "target".

    arguments: of the run: max_length, truncation. left_out and shares: {word number: share}; words
    that were cut away are in neither. "from" and "to": the margin without words, and with all.
    quick: no words are left out one by one, and few steps are tried: for a page that must not wait.
    target: the class to explain; None for the answer. Raises UserError for a model that takes token
    ids only.
    """
    words, input_ids, word_of = encode_words(
        text, tokenizer, arguments["max_length"], arguments["truncation"]
    )
    logits = predict_logits(model, make_examples([input_ids], [0]), collate, device)  # [1, C]
    target = logits.argmax(dim=-1).item() if target is None else target
    model.eval()
    tries = STEPS[:2] if quick else STEPS
    try:
        shares, gap, empty = follow_gradients(
            model, input_ids, word_of, target, tokenizer.pad_token_id, device, tries
        )
    except (TypeError, NotImplementedError) as error:  # Longformer; T5 and BART
        raise UserError("this model takes token ids only: its answers have no gradients") from error
    left_out = {}
    if not quick:
        left_out = leave_out(model, collate, input_ids, word_of, target, device)
    return {
        "words": words,
        "target": target,
        "score": logits.softmax(dim=-1)[0, target].item(),
        "left_out": left_out,
        "shares": shares,
        "gap": gap,
        "from": empty,
        "to": margin(logits, target).item(),
    }


# ------------------------------------------------------------------------------ 4. show
def gap_in_words(found):
    """How much of the decision the gradients' shares leave unexplained."""
    moved = found["to"] - found["from"]
    return f"The words' shares leave {abs(found['gap']):.3f} of {abs(moved):.2f} unexplained."


def paint(words, shares, colored):
    """The text, each word marked by its share: in color, or with up to three signs behind it."""
    level, pieces = levels(shares), []
    for number, word in enumerate(map(plain, words)):
        strength = level.get(number, 0)
        if strength and colored:
            shade = 232 - 45 * abs(strength)  # of the two other colors: the less, the stronger
            rgb = (shade, 232, shade) if strength > 0 else (232, shade, shade)
            word = "\033[30;48;2;{};{};{}m{}\033[0m".format(*rgb, word)
        elif strength:
            word += "(" + ("+" if strength > 0 else "-") * abs(strength) + ")"
        pieces.append(word)
    return " ".join(pieces)


def print_explanation(found, name, colored):
    """Both ways' shares for people, and the gap."""
    print(f"    left out   {paint(found['words'], found['left_out'], colored)}")
    print(f"    gradients  {paint(found['words'], found['shares'], colored)}")
    moved = found["to"] - found["from"]
    print(
        f"    log-odds of {name}: {found['from']:+.2f} without words, {found['to']:+.2f} with all; "
        f"the gradients' shares add up to {moved - found['gap']:+.2f} of {moved:+.2f}, gap "
        f"{found['gap']:+.4f}"
    )


def write_page(rows):
    """A page that needs nothing else. rows: [(label, score, found of explain()), ...]."""
    about = "<p>Green speaks for the answer, red and underlined against it; point at a word.</p>"
    parts = []
    for label, score, found in rows:
        parts.append(
            card(
                f"{label} {score:.3f}",
                *("<p>left out</p>", color_words(found["words"], found["left_out"])),
                *("<p>gradients</p>", color_words(found["words"], found["shares"])),
                note=f"log-odds {found['from']:+.2f} without words, {found['to']:+.2f} with all; "
                f"gap {found['gap']:+.4f}",
                wide=True,
            )
        )
    return document("Why did it say so?", about, cards(*parts))


def main():
    parser = make_parser(__doc__)
    parser.add_argument("text", help="a sentence of your own")
    parser.add_argument("--model", default="distilbert-base-uncased", help="whose tokenizer to use")
    args = parser.parse_args()
    words, input_ids, word_of = encode_words(args.text, load_tokenizer(args.model), 256, "head")
    for number, word in enumerate(words):
        print(
            f"{plain(word):>20}  {[t for t, owner in zip(input_ids, word_of) if owner == number]}"
        )


if __name__ == "__main__":
    run_command(main)
