"""Which labels may be wrong, and which words tell the classes apart?

Teaches   how to find wrong labels without reading all rows (confident learning, Northcutt et al.
          2021). A plain model that counts words learns from four fifths of the rows and judges the
          last fifth, five times. Where it finds the label of a row unlikely, the row is hard or its
          label is wrong.
After     extras.baseline. extras.explore shows what comes out.

The fifths are runs of neighbouring rows of each label, as in dataset.hold_out(): with random ones
the model would know the film.
"""

import csv
import io

import numpy
from tqdm import tqdm

from extras.baseline import count_words, how_telling
from support.errors import UserError, extra_packages
from support.files import write_whole

FOLDS = 5


def doubt(texts, labels, count):
    """The rows whose label a model that has not seen them finds least likely.

    Returns ([(row, probability of its label, the class it would say), ...], the most doubted first;
    telling, the words with the largest weights of each class). A row is doubted where another class
    is likelier. Both are empty where fewer than two classes have as many rows as there are folds.
    """
    with extra_packages():
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold
        from sklearn.preprocessing import normalize
    labels, classes = numpy.asarray(labels), max(labels) + 1  # [N]
    try:
        vectors, there = count_words(texts)  # there: [N, V]
    except UserError:
        return [], {}
    rows, model = normalize(there), LogisticRegression(C=10, max_iter=300)

    def learn(some):
        scale = how_telling(there[some], labels[some], classes)  # [V]
        model.fit(rows[some].multiply(scale).tocsr(), labels[some])
        return scale

    counts, everything = numpy.bincount(labels), numpy.arange(len(labels))
    common = numpy.flatnonzero(counts[labels] >= FOLDS)
    likely = numpy.zeros((len(labels), classes))  # [N, C]
    if len(set(labels[common].tolist())) < 2:
        return [], {}
    parts = list(StratifiedKFold(FOLDS).split(common, labels[common]))  # not shuffled: in runs
    parts = [(common[train], common[held_out]) for train, held_out in parts]
    # A class of a few rows may be a label with a slip in it. Such rows are judged by all others.
    parts += [(common, rare)] if len(rare := numpy.flatnonzero(counts[labels] < FOLDS)) else []
    for train, held_out in tqdm(parts, "judging labels", leave=False, unit=" fold"):
        scale = learn(train)
        found = model.predict_proba(rows[held_out].multiply(scale).tocsr())
        likely[held_out[:, None], model.classes_] = found
    own, says = likely[everything, labels], likely.argmax(axis=1)  # [N], [N]
    order = [i for i in own.argsort(kind="stable") if says[i] != labels[i]]
    doubted = [(i, own[i], says[i]) for i in order[:count]]
    scale = learn(everything)
    weights = model.coef_ * scale  # [C, V]
    # Of two classes it has one row: what speaks for the second speaks against the first.
    weights = numpy.concatenate([-weights, weights]) if len(weights) == 1 else weights
    words = vectors.get_feature_names_out()  # [V]
    top = [words[row.argsort()[::-1][:20]].tolist() for row in weights]
    return doubted, dict(zip(model.classes_.tolist(), top))  # a class without a text has no row


def save_doubted(path, doubted, split, names):
    """Write the doubted rows as CSV: row (from 1, in the file), label, probability, says, text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["row", "label", "probability", "says", "text"])
    for i, own, other in doubted:
        label = names[split["labels"][i]]
        writer.writerow([split["rows"][i], label, f"{own:.4f}", names[other], split["texts"][i]])
    write_whole(path, buffer.getvalue())
