"""Why did the model say so?

Teaches   two ways to ask a model which words decided: leave each word out and see how much the
          answer changes; or follow the gradient from a text without words to the real one
          (integrated gradients). Both tell about this model, not about the world.
After     predict.py.
Run       python -m extras.explain "I regret watching this film"
          python -m extras.explain --html why.html "I regret watching this film" "Loved it"
Expect    under each answer its words with their shares in the decision. Green, or (+), speaks for
          the answer; red, or (-), against it. Then how much the gradients leave unexplained.
Shows     $ python -m extras.explain --model demo "Loved it"
          positive   0.999  Loved it
              left out   Loved(+++) it
              gradients  Loved(+++) it
              log-odds of positive: -6.78 without words, +7.12 with all.
              The words' shares leave 0.023 of 13.91 unexplained.
"""

import json
import os
import sys

import numpy
import torch

from dataset import clean, special_ids, truncate
from model import choose_hardware
from support.files import check_target, write_whole
from extras.page import card, cards, color_words, document, levels
from predict import Classifier
from support.errors import UserError, make_parser, plain, run_command


# ------------------------------------------------------------------------------ 1. words, tokens
def encode_words(text, tokenizer, max_length, how):
    """(words, input_ids, word_of): of each token, the number of its word, or None for [CLS], [SEP].

    A word is what stands between spaces, with its punctuation: a share of "##ing" would tell a
    reader nothing. Words that truncation cuts away have no token.
    """
    text = clean(text)  # one space between two words
    how_to = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    encoded = tokenizer(text, **how_to)
    ids, places = encoded["input_ids"], encoded["offset_mapping"]
    before, after = special_ids(tokenizer)
    kept = truncate(list(range(len(ids))), max_length - len(before) - len(after), how)
    # How many words have begun where a token ends. (Not where it begins: some tokenizers count the
    # space before a word as part of it.)
    word_of = [len(text[: places[i][1]].split()) - 1 for i in kept]
    word_of = [None] * len(before) + word_of + [None] * len(after)
    return text.split(), before + [ids[i] for i in kept] + after, word_of


def margin(logits, target):
    """How far class `target` is ahead: its log-odds, log(p / (1 - p)). [N, C] becomes [N].

    A probability ends at 1. Log-odds do not end: from 0.98 to 0.99 is as far as from 0.33 to 0.5,
    both times twice the odds.
    """
    others = [c for c in range(logits.shape[1]) if c != target]
    return logits[:, target] - logits[:, others].logsumexp(dim=1)


# ------------------------------------------------------------------------------ 2. leave it out
def leave_out(classifier, input_ids, word_of, target):
    """{word number: how much the margin of `target` falls when the word's tokens are left out}."""
    numbers = sorted({number for number in word_of if number is not None})
    rows = [input_ids] + [
        [token for token, owner in zip(input_ids, word_of) if owner != number] for number in numbers
    ]
    margins = margin(classifier.logits(rows), target)  # [1 + words]
    return dict(zip(numbers, (margins[0] - margins[1:]).tolist()))


# ------------------------------------------------------------------------------ 3. gradients
def integrate_gradients(function, start, end, steps=64, at_once=16):
    """Sundararajan et al. 2017: share out function(end) - function(start) among the numbers of end.

    function: [n, ...] gives [n], each row for itself. start, end: [...]. Returns (shares [...],
    gap): the shares should add up to the difference of the two values; the gap is what is missing.
    On the straight way from start to end, the share of a number is its gradient times how far it
    moves. The integral of the gradients is a sum over `steps` points (Gauss-Legendre: the points
    and weights that are exact for polynomials of degree 2 * steps - 1).
    """
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


def follow_gradients(classifier, input_ids, word_of, target, tries=STEPS):
    """({word number: its share in the margin of `target`}, gap, margin without words).

    The way starts at the same text with [PAD]'s vector in place of every word's. tries: numbers of
    steps, until the gap is small enough.
    """
    model, device = classifier.model, classifier.device
    ids = torch.tensor(input_ids, device=device)  # [T]
    is_word = torch.tensor([owner is not None for owner in word_of], device=device)  # [T]
    vectors = model.get_input_embeddings()  # a table: [V, W]
    end = vectors(ids).detach()  # [T, W]
    pad = vectors.weight[classifier.tokenizer.pad_token_id].detach()  # [W]
    start = torch.where(is_word[:, None], pad, end)  # [T, W]

    def function(embeddings):  # [n, T, W] gives [n]
        mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=device)  # [n, T]
        return margin(model(inputs_embeds=embeddings, attention_mask=mask).logits.float(), target)

    for steps in tries:
        shares, gap = integrate_gradients(function, start, end, steps)
        if abs(gap) <= 0.005 * abs(shares.sum().item() + gap):
            break
    found = dict.fromkeys(word_of, 0.0)
    for owner, share in zip(word_of, shares.sum(dim=-1).tolist()):  # [T]
        found[owner] += share
    found.pop(None, None)  # [CLS] and [SEP] are no words, and have not moved
    with torch.no_grad():
        return found, gap, function(start[None]).item()


def explain(classifier, text, quick=False, target=None):
    """All about one text, as a dict: words, target, score, left_out, shares, gap, from, to.

    classifier: a predict.Classifier. left_out, shares: {word number: share}; words that were cut
    away are in neither. "from" and "to": the margin without words, and with all of them.
    quick: leave no words out, and try few steps: for a page that must not wait. target: the class
    to explain; None for the answer. Raises UserError for a model that takes token ids only.
    """
    how = (classifier.run["arguments"][name] for name in ("max_length", "truncation"))
    words, input_ids, word_of = encode_words(text, classifier.tokenizer, *how)
    logits = classifier.logits([input_ids])  # [1, C]
    target = logits.argmax(dim=-1).item() if target is None else target
    classifier.model.eval()
    about = classifier, input_ids, word_of, target
    try:
        shares, gap, empty = follow_gradients(*about, STEPS[:2] if quick else STEPS)
    except (TypeError, NotImplementedError) as error:  # Longformer; T5 and BART
        raise UserError("this model takes token ids only: its answers have no gradients") from error
    return {
        "words": words,
        "target": target,
        "score": logits.softmax(dim=-1)[0, target].item(),
        "left_out": {} if quick else leave_out(*about),
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


def print_explanation(label, found, colored):
    """One text's answer, both ways' shares in it, and the gap."""
    print(f"{label:10} {found['score']:.3f}  {plain(' '.join(found['words']))}")
    print(f"    left out   {paint(found['words'], found['left_out'], colored)}")
    print(f"    gradients  {paint(found['words'], found['shares'], colored)}")
    ends = f"{found['from']:+.2f} without words, {found['to']:+.2f} with all"
    print(f"    log-odds of {label}: {ends}.\n    {gap_in_words(found)}")


def write_page(rows):
    """A page that needs nothing else. rows: [(label, found of explain()), ...]."""
    about = "<p>Green speaks for the answer, red and underlined against it; point at a word.</p>"
    parts = []
    for label, found in rows:
        words = "<p>left out</p>" + color_words(found["words"], found["left_out"])
        words += "<p>gradients</p>" + color_words(found["words"], found["shares"])
        title, note = f"{label} {found['score']:.3f}", gap_in_words(found)
        parts.append(card(title, words, note=note, wide=True))
    return document("Why did it say so?", about, cards(*parts))


def main():
    parser = make_parser(__doc__, "model json device")
    parser.add_argument("texts", nargs="+", help="reviews of your own, each in quotes")
    parser.add_argument("--html", metavar="FILE", help="write a page with the words in color, too")
    args = parser.parse_args()
    if not all(map(clean, args.texts)):
        raise UserError("a text is empty: give it some words")
    check_target(args.html, args.model)
    device, precision, _ = choose_hardware(args.device, "fp32")
    classifier = Classifier(args.model, device, precision)
    if classifier.run["arguments"]["demo"]:
        print("(a rehearsal model: tiny, and not pretrained)", file=sys.stderr)
    colored, rows = sys.stdout.isatty() and "NO_COLOR" not in os.environ, []
    for text in args.texts:
        found = explain(classifier, text)
        label, score, shares = classifier.names[found["target"]], found["score"], found["shares"]
        rows.append((label, found))
        if args.json:
            words = [{"word": w, "share": shares.get(i, 0.0)} for i, w in enumerate(found["words"])]
            answer = {"text": text, "label": label, "score": score, "words": words}
            print(json.dumps(answer | {"gap": found["gap"]}), flush=True)
        else:
            print_explanation(label, found, colored)
    if not args.json:
        print("(+) speaks for the answer, (-) against it. The two ways can disagree.")
    if args.html is not None:
        write_whole(args.html, write_page(rows))
        print(f"a page with the words in color is in {args.html}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
