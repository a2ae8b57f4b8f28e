"""Chapter 8: the honest floor.

Teaches   to ask what the large model adds: count words and pairs of neighbouring words, weigh each
          by how much more often it stands in reviews of one class than in the others, and let a
          logistic regression correct the weights. No layers, no pretraining, seconds of computing.
Order     after benchmark.py; it uses splits.py and evaluate.py, so its figures can be compared.
Run       python baseline.py                                    all of IMDB
          python baseline.py --subset 2000                      the reviews that --subset 2000 draws
          python baseline.py --like model                       what that model was trained on
          python baseline.py --data reviews.csv --save baseline.csv
Expect    the figures of evaluate.py for the same test split, those of always saying the commonest
          class, and the words that weigh most. Wang and Manning 2012 ("Baselines and Bigrams")
          found this hard to beat; whatever costs a thousand times as much should beat it clearly.
"""

import json
import re
import time
import warnings
from collections import Counter

# First: once errors.py is in, Ctrl-C ends in one line, also while torch is imported (seconds).
from errors import UserError, make_parser, run_command

import torch
from torch.nn import functional

from answers import save_predictions
from checkpoint import read_run
from evaluate import print_scores, score, wilson_interval
from folder import check_target, write_whole
from hardware import hardware_name
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
    # Sorted: sets have another order in every run, and sums would differ in their last digits.
    found = sorted(feature for feature, count in counts.items() if count >= least)
    return {feature: number for number, feature in enumerate(found)}


def to_table(texts, numbers):
    """A table [N, V], texts by features: 1 / sqrt(n) for each of a text's n features, else 0.

    Sparse: only one cell in ten thousand is not 0, and only those are kept (CSR format: all their
    columns in one list, and where in it each row begins). The root, because a text of four times as
    many words has sums about twice as large by chance alone, and would seem twice as sure.
    """
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
    # Not to check each table, said explicitly: else torch warns that it does not.
    torch.sparse.check_sparse_tensor_invariants.disable()
    columns, begins = [], [0]
    for text in texts:
        columns += sorted(numbers[word] for word in features_of(text) if word in numbers)
        begins.append(len(columns))
    begins = torch.tensor(begins)  # [N + 1]
    sizes = begins.diff()  # [N], features of each text
    values = sizes.clamp(min=1).rsqrt().repeat_interleave(sizes)
    shape = len(texts), len(numbers)
    return torch.sparse_csr_tensor(begins, torch.tensor(columns, dtype=torch.long), values, shape)


# ------------------------------------------------------------------------------ 2. weights
def log_ratios(table, truth, smoothing=1.0):
    """Naive Bayes weights: how much likelier a feature is in a class than outside of it. [V, C].

    The logarithm of a ratio of two shares, so 0 says nothing, and positive speaks for the class.
    table: [N, V]. truth: [N, C], 1 for the class of a text and 0 for the others. smoothing: added
    to each count, or a word met once would be proof.
    """
    there = torch.sparse_csr_tensor(
        table.crow_indices(), table.col_indices(), table.values().sign(), table.shape
    )
    counts = there.t().to_sparse_csr() @ truth  # [V, C], texts of a class that have the feature
    inside = counts + smoothing
    outside = counts.sum(dim=1, keepdim=True) - counts + smoothing
    return (inside / inside.sum(dim=0)).log() - (outside / outside.sum(dim=0)).log()


def fit(table, turned, truth, ratios, strength, start, steps=30):
    """Logistic regression on top. start: (factors [V, C], bias [C]). Returns both, improved.

    Naive Bayes takes every feature for a witness of its own, though "waste" and "waste of" say the
    same. So each ratio gets a factor, found by making the cross-entropy of the train reviews small;
    strength * factor^2 keeps those near 0 that explain little (Wang and Manning 2012).
    table: [N, V], turned: the same as [V, N].
    """
    factors, bias = (part.clone() for part in start)
    # LBFGS guesses the curvature of the loss from its last gradients. With all reviews at once and
    # a loss of a single valley it needs a few dozen steps, and no learning rate.
    optimizer = torch.optim.LBFGS(
        [factors, bias], max_iter=steps, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss():
        logits = table @ (factors * ratios) + bias  # [N, C]
        # The gradient by hand: by the logits, cross-entropy has the probabilities minus the truth
        # as its gradient; the table turned round hands it back to the features.
        error = (logits.softmax(dim=-1) - truth) / len(truth)  # [N, C]
        factors.grad = ratios * (turned @ error) + 2 * strength * factors
        bias.grad = error.sum(dim=0)
        return functional.cross_entropy(logits, truth) + strength * factors.square().sum()

    optimizer.step(loss)
    return factors, bias


def train_baseline(splits, names):
    """Learn from train. Returns (classify, weights, features, the strength validation chose).

    classify(texts) gives logits [N, C]. weights: [V, C]. features: the V features by number.
    """
    train, validation = splits["train"], splits["validation"]
    numbers = count_features(train["texts"])
    if not numbers:
        raise UserError("no word stands in two train texts: there is nothing to count")
    table, held_out = to_table(train["texts"], numbers), to_table(validation["texts"], numbers)
    turned = table.t().to_sparse_csr()  # [V, N]
    truth = functional.one_hot(torch.as_tensor(train["labels"]), len(names)).float()  # [N, C]
    ratios = log_ratios(table, truth)
    answers = torch.as_tensor(validation["labels"])
    best, found = None, (torch.zeros_like(ratios), torch.zeros(len(names)))
    for strength in STRENGTHS:  # each starts from what the one before has found
        found = fit(table, turned, truth, ratios, strength, found)
        weights, bias = found[0] * ratios, found[1]
        loss = functional.cross_entropy(held_out @ weights + bias, answers).item()
        if best is None or loss < best[0]:
            best = loss, weights, bias, strength
    _, weights, bias, strength = best

    def classify(texts):
        return to_table(texts, numbers) @ weights + bias

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
    parser.add_argument(
        "--like", metavar="MODEL", help="all of these as that model was trained (a folder)"
    )
    parser.add_argument("--save", metavar="FILE.csv", help="write text, label, predicted, score")
    parser.add_argument("--results", metavar="FILE.json", help="write the figures, for report.py")
    args = parser.parse_args()
    if args.like is not None:
        made = read_run(args.like)["arguments"]
        for name in ("data", "text_column", "label_column", "subset", "seed"):
            setattr(args, name, made[name])
    for target in (args.save, args.results):
        if target is not None:
            check_target(target, args.data)
    where = args.data, args.text_column, args.label_column, args.seed
    splits, names, notes, data_fingerprint = load_splits(*where, args.subset)
    require_all_classes(splits, names, notes)
    if args.subset is not None:  # the train reviews that finetune.py draws; but all of test
        splits["test"] = load_splits(*where)[0]["test"]
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
        record = {
            "arguments": {key: vars(args)[key] for key in ("data", "subset", "seed")},
            "data_fingerprint": data_fingerprint,
            "hardware": hardware_name(torch.device("cpu")),
            "versions": {"torch": torch.__version__},
            "train_reviews": len(splits["train"]["texts"]),
            "seconds": seconds,
            "test": figures,
        }
        write_whole(args.results, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
