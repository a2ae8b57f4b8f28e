"""The honest floor: what counting words gets right.

Teaches   to ask what the large model adds. Count words and pairs of neighbouring words, weigh each
          by how much more often it stands in reviews of one class than in the others (Naive
          Bayes), and let a logistic regression correct the weights: no layers, no pretraining.
After     evaluate.py, whose figures it prints for the same test split.
Run       pip install -r requirements-extra.txt
          python -m extras.baseline                       all of IMDB
          python -m extras.baseline --subset 2000         the reviews that --subset 2000 draws
          python -m extras.baseline --like model          what that model was trained on
Expect    in seconds the figures, those of always saying the commonest class, and the words that
          weigh most. Wang and Manning 2012 ("Baselines and Bigrams") found this hard to beat. A
          model that costs a thousand times as much should beat it clearly.
"""

import json
import time
import warnings

import numpy
import torch
from torch.nn import functional

from dataset import draw, draw_rules, load_splits
from evaluate import score
from support.devices import hardware_name
from support.files import check_target, write_whole
from support.large import take
from support.saved import data_of_training, print_scores, read_run, save_predictions
from support.tables import HOW, how_to_read, require_all_classes
from support.errors import READING, UserError, check_counts, extra_packages, make_parser
from support.errors import run_command

WORD = r"[^\W_]+(?:'[^\W_]+)*|[!?]"  # "isn't" is one word, and "!" has an opinion
STRENGTHS = (3, 10, 30, 100, 300)  # at 3 the weights stay near 0, at 300 they are nearly free


# ------------------------------------------------------------------------------ 1. learn
def log_ratios(counts, smoothing=1.0):
    """Naive Bayes: how much likelier a word is in a class than outside of it, as a logarithm.

    counts: in how many texts of each class a word stands, [V, C]. Returns as many numbers: 0 says
    nothing, above 0 speaks for the class. smoothing: or a word met once would be proof.
    """
    inside = counts + smoothing
    outside = counts.sum(axis=1, keepdims=True) - counts + smoothing
    return numpy.log(inside / inside.sum(axis=0)) - numpy.log(outside / outside.sum(axis=0))


def how_telling(there, labels, classes):
    """The scale of each word's column, [V]. there: [N, V], 1 where a text has a word.

    Naive Bayes takes each word for a witness of its own, though "waste" and "waste of" say the
    same. So it only sets a scale. The regression pulls all weights toward 0, and a telling word,
    whose column is larger, gets by with a smaller weight (Wang and Manning 2012).
    """
    counts = there.T @ numpy.eye(classes)[labels]  # [V, C]
    return abs(log_ratios(counts)).max(axis=1).astype(numpy.float32)


def count_words(texts):
    """Returns (vectors, there): scikit-learn's counter of words; [N, V], 1 where a text has a word.

    Raises UserError where no word stands in two texts.
    """
    with extra_packages():
        from sklearn.feature_extraction.text import CountVectorizer
    # Pairs of neighbours too: "not good" is more than "good". binary: how often a word stands in
    # one review says little; that it stands there at all says most.
    vectors = CountVectorizer(
        binary=True, ngram_range=(1, 2), min_df=2, token_pattern=WORD, dtype=numpy.float32
    )
    try:
        return vectors, vectors.fit_transform(texts)  # only the 1s are kept
    except ValueError as error:
        raise UserError("no word stands in two train texts: there is nothing to count") from error


def train_baseline(splits, names):
    """Learn from train. Returns (classify, weights, words, the strength that validation chose).

    classify(texts) gives logits [N, C]. weights: [V, C]. words: the V words and pairs of words.
    """
    with extra_packages():
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import normalize
    train, validation = splits["train"], splits["validation"]
    vectors, there = count_words(train["texts"])  # there: [N, V]

    def read(texts):
        # Each row is divided by the root of its number of words. Otherwise a long text, whose sums
        # are larger by chance alone, would seem more sure.
        return normalize(vectors.transform(texts))  # [N, V]

    scale = how_telling(there, train["labels"], len(names))  # [V]
    table = normalize(there).multiply(scale).tocsr()  # [N, V]
    held_out, answers = read(validation["texts"]), torch.as_tensor(validation["labels"])
    # 30 steps are not all the way, and keep it to seconds.
    warnings.filterwarnings("ignore", "lbfgs failed to converge")
    tried, model = [], LogisticRegression(max_iter=30, tol=1e-7, warm_start=True)
    for strength in STRENGTHS:  # warm_start: each goes on from what the one before has found
        model.set_params(C=strength).fit(table, train["labels"])
        rows, bias = model.coef_, model.intercept_  # [C, V], [C]; of two classes only the second's
        if len(names) == 2:
            rows, bias = (numpy.concatenate([-part, part]) / 2 for part in (rows, bias))
        weights = (rows * scale).T  # [V, C]
        loss = functional.cross_entropy(torch.tensor(held_out @ weights + bias), answers).item()
        tried.append((loss, strength, weights, bias))
    _, strength, weights, bias = min(tried)

    def classify(texts):
        return torch.tensor(read(texts) @ weights + bias).float()

    return classify, torch.tensor(weights), vectors.get_feature_names_out().tolist(), strength


# ------------------------------------------------------------------------------ 2. beside it
def load(data, seed, subset, keep_shares=False, **how):
    """As load_splits(), with the train rows that finetune.py --subset draws; all of test."""
    splits, names, notes, source = load_splits(data, seed, **how)
    for role in ("train", "validation") if subset is not None else ():
        rows = draw(splits[role]["labels"], subset, *draw_rules(role, seed, keep_shares))
        splits[role] = take(splits[role], rows)
    require_all_classes(splits, names, notes)
    return splits, names, source.fingerprint


def main():
    parser = make_parser(__doc__, f"{READING} subset seed save results", keep_shares=False)
    parser.add_argument("--data", default="stanfordnlp/imdb", help="as for finetune.py")
    parser.add_argument("--like", metavar="MODEL", help="all of these as in that model's training")
    args = parser.parse_args()
    where = ("data", "seed", "subset", "keep_shares", *HOW)
    how = {name: getattr(args, name) for name in where}
    if args.like is not None:
        made = read_run(args.like)["arguments"] | {"data": data_of_training(args.like)}
        vars(args).update({name: made.get(name) for name in where})
        how = {name: made.get(name) for name in where[:4]} | how_to_read(made, {}, same=True)
    check_counts(args, "subset")
    check_target(args.save, args.data, args.like)
    check_target(args.results, args.data, args.like, args.save)
    splits, names, data_fingerprint = load(**how)
    train, test = splits["train"], splits["test"]
    started = time.perf_counter()
    classify, weights, words, strength = train_baseline(splits, names)
    logits = classify(test["texts"])  # [N, C]
    seconds = time.perf_counter() - started
    figures = score(logits, test["labels"], names)
    counted = f"{len(train['texts']):,} train reviews, {len(words):,} words and pairs"
    print(f"{counted}, strength {strength}, {seconds:.0f} s")
    print_scores(figures, "test")
    print()
    for c, name in enumerate(names):
        most = weights[:, c].topk(min(12, len(words))).indices.tolist()
        print(f"speaks for {name}: {', '.join(words[i] for i in most)}")
    if args.save:
        save_predictions(args.save, logits, test, names)
    if args.results:
        record = {
            "arguments": {key: vars(args)[key] for key in ("data", "subset", "seed")},
            "data_fingerprint": data_fingerprint,
            "hardware": hardware_name(torch.device("cpu")),
            "versions": {"torch": torch.__version__},
            "train_reviews": len(train["texts"]),
            "seconds": seconds,
            "test": figures,
        }
        write_whole(args.results, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
