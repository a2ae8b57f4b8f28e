"""Chapter 8: the honest floor.

Teaches   to ask what the large model adds: count words and pairs of neighbouring words, weigh each
          by how much more often it stands in reviews of one class than in the others, and let a
          logistic regression correct the weights. No layers, no pretraining, a minute of computing.
Order     after benchmark.py; it uses splits.py and evaluate.py, so its figures can be compared.
Run       python baseline.py                                    all of IMDB
          python baseline.py --subset 2000                      the reviews that --subset 2000 draws
          python baseline.py --data reviews.csv --save baseline.csv
Expect    the figures of evaluate.py for the same test split, those of always saying the commonest
          class, and the words that weigh most. Wang and Manning 2012 ("Baselines and Bigrams")
          found this hard to beat; whatever costs a thousand times as much should beat it clearly.
"""

import json
import re
import time
from collections import Counter

# First, because torch takes seconds to import, and Ctrl-C may come in them.
from errors import UserError, make_parser, run_command

import torch
from torch.nn import functional

from evaluate import check_target, print_scores, save_predictions, score, wilson_interval
from folder import write_whole
from splits import load_splits, require_all_classes

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[!?]")  # "isn't" is one word, and "!" has an opinion
STRENGTHS = (1e-4, 1e-5, 1e-6, 1e-7)  # of the pull toward 0; validation chooses one


# ------------------------------------------------------------------------------ 1. features
def features_of(text):
    """The words of a text and the pairs of neighbours, each once: "not good" is more than "good".

    How often a word stands in one review says little; that it stands there at all says most.
    """
    words = WORD.findall(text.lower())
    return {*words, *map(" ".join, zip(words, words[1:]))}


def count_features(texts, least=2):
    """{feature: its number}, of those that stand in at least so many of the (train) texts."""
    counts = Counter()
    for text in texts:
        counts.update(features_of(text))
    found = (feature for feature, count in counts.items() if count >= least)
    return {feature: number for number, feature in enumerate(found)}


def to_bags(texts, numbers):
    """(ids, offsets): the numbers of all texts' features in one row, and where each text begins.

    ids: [F], F being all features of all texts. offsets: [N]. A table [N, V] of noughts and ones
    would have billions of cells, of which one in ten thousand is a one.
    """
    ids, offsets = [], []
    for text in texts:
        offsets.append(len(ids))
        ids += [numbers[feature] for feature in features_of(text) if feature in numbers]
    return torch.tensor(ids), torch.tensor(offsets)


def add_weights(bags, weights):
    """For each text the sum of its features' weights, over the root of their number. [N, C].

    weights: [V, C]. The root, because a text of four times as many words has sums about twice as
    large by chance alone, and would seem twice as sure.
    """
    ids, offsets = bags
    sums = functional.embedding_bag(ids, weights, offsets, mode="sum")  # [N, C]
    return sums * features_per_text(bags).clamp(min=1).rsqrt()[:, None]


def features_per_text(bags):
    """[N]"""
    ids, offsets = bags
    return torch.diff(offsets, append=torch.tensor([len(ids)]))


# ------------------------------------------------------------------------------ 2. weights
def log_ratios(bags, labels, size, classes, smoothing=1.0):
    """Naive Bayes weights: how much likelier a feature is in a class than outside of it. [V, C].

    The logarithm of a ratio of two shares, so 0 says nothing, and positive speaks for the class.
    smoothing: added to each count, or a word met once would be proof.
    """
    ids, _ = bags
    label_of = torch.as_tensor(labels).repeat_interleave(features_per_text(bags))  # [F]
    counts = torch.zeros(size, classes)  # [V, C]
    counts.index_put_((ids, label_of), torch.tensor(1.0), accumulate=True)
    inside = counts + smoothing
    outside = counts.sum(dim=1, keepdim=True) - counts + smoothing
    return (inside / inside.sum(dim=0)).log() - (outside / outside.sum(dim=0)).log()


def fit(bags, labels, ratios, strength, start, steps=15):
    """Logistic regression on top. start: (factors [V, C], bias [C]). Returns both, improved.

    Naive Bayes takes every feature for a witness of its own, though "waste" and "waste of" say the
    same. So each ratio gets a factor, found by making the cross-entropy of the train reviews small;
    strength * factor^2 keeps those near 0 that explain little (Wang and Manning 2012).
    """
    labels = torch.as_tensor(labels)
    factors, bias = (part.clone().requires_grad_() for part in start)
    # LBFGS guesses the curvature of the loss from its last gradients. With all reviews at once and
    # a loss of a single valley it needs a few dozen steps, and no learning rate.
    optimizer = torch.optim.LBFGS(
        [factors, bias], max_iter=steps, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        logits = add_weights(bags, factors * ratios) + bias  # [N, C]
        value = functional.cross_entropy(logits, labels) + strength * factors.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return factors.detach(), bias.detach()


def train_baseline(splits, names):
    """Learn from train. Returns (classify, weights, features, the strength validation chose).

    classify(texts) gives logits [N, C]. weights: [V, C]. features: the V features by number.
    """
    train, validation = splits["train"], splits["validation"]
    numbers = count_features(train["texts"])
    if not numbers:
        raise UserError("no word stands in two train texts: there is nothing to count")
    bags, held_out = to_bags(train["texts"], numbers), to_bags(validation["texts"], numbers)
    ratios = log_ratios(bags, train["labels"], len(numbers), len(names))
    truth = torch.as_tensor(validation["labels"])
    best, found = None, (torch.zeros_like(ratios), torch.zeros(len(names)))
    for strength in STRENGTHS:  # each starts from what the one before has found
        found = fit(bags, train["labels"], ratios, strength, found)
        weights, bias = found[0] * ratios, found[1]
        loss = functional.cross_entropy(add_weights(held_out, weights) + bias, truth).item()
        if best is None or loss < best[0]:
            best = loss, weights, bias, strength
    _, weights, bias, strength = best

    def classify(texts):
        return add_weights(to_bags(texts, numbers), weights) + bias

    return classify, weights, list(numbers), strength


# ------------------------------------------------------------------------------ 3. beside it
def majority(train_labels, test_labels):
    """(correct, n) of always saying the class that is commonest in train."""
    commonest = Counter(train_labels).most_common(1)[0][0]
    return test_labels.count(commonest), len(test_labels)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--data", default="stanfordnlp/imdb", help="as for finetune.py")
    parser.add_argument("--text-column", default="text", help="column of the texts")
    parser.add_argument("--label-column", default="label", help="column of the labels")
    parser.add_argument("--subset", type=int, help="reviews to draw (default: all)")
    parser.add_argument("--seed", type=int, default=42, help="of the division and the draw")
    parser.add_argument("--save", metavar="FILE.csv", help="write text, label, predicted, score")
    parser.add_argument("--results", metavar="FILE.json", help="write the figures, for report.py")
    args = parser.parse_args()
    for target in (args.save, args.results):
        if target is not None:
            check_target(target, args.data)
    splits, names, notes, _ = load_splits(
        args.data, args.text_column, args.label_column, args.seed, args.subset
    )
    require_all_classes(splits, names, notes)
    started = time.perf_counter()
    classify, weights, features, strength = train_baseline(splits, names)
    test = splits["test"]
    logits = classify(test["texts"])  # [N, C]
    seconds = time.perf_counter() - started
    figures = score(logits, test["labels"], names)

    print(
        f"{len(splits['train']['texts']):,} train reviews, {len(features):,} words and pairs, "
        f"strength {strength:g}, {seconds:.0f} s"
    )
    print_scores(figures, "test")
    correct, n = majority(splits["train"]["labels"], test["labels"])
    low, high = wilson_interval(correct, n)
    print(f"\nalways the commonest class: {correct / n:.2%}   {low:.2%} to {high:.2%}")
    for c, name in enumerate(names):
        most = weights[:, c].topk(min(12, len(features))).indices.tolist()
        print(f"speaks for {name}: {', '.join(features[i] for i in most)}")
    if args.save:
        scores, predicted = logits.softmax(dim=-1).max(dim=-1)
        columns = test["texts"], test["labels"], predicted.tolist(), scores.tolist()
        save_predictions(
            args.save, [(text, names[l], names[p], s) for text, l, p, s in zip(*columns)]
        )
    if args.results:
        record = {"arguments": vars(args), "labels": names, "seconds": seconds}
        record["train_reviews"] = len(splits["train"]["texts"])
        write_whole(args.results, json.dumps(record | {"test": figures}, indent=2) + "\n")


if __name__ == "__main__":
    run_command(main)
