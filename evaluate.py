"""Chapter 3 of 5: how good is it? Count, then divide.

Teaches   how to ask a model about many reviews, and how to say how good its answers are: accuracy
          with the interval it deserves, and what accuracy hides (precision, recall, F1, the
          confusion matrix, the mistakes themselves).
Order     after model.py; next is finetune.py, which calls predict_logits() and score() after every
          epoch.
Run       python evaluate.py --model model                        the whole test split
          python evaluate.py --model model --subset 2000          2,000 reviews of it
          python evaluate.py --model model --data reviews.csv --save predictions.csv
Expect    a table of figures with n and 95 % intervals, a confusion matrix, and the five mistakes
          that the model was most sure of. Read those: often the label is what is odd. To read the
          test split again harms nothing. To choose a model or an option by it would: then its
          figure flatters.
Words     A logit is the raw score of a class, any number. The class with the largest is the answer.
          Accuracy is the share of answers that are right. Of the reviews that the model calls
          positive, precision is the share that are positive; of those that are positive, recall is
          the share that it calls so. F1 is high only if both are; macro F1 is the plain mean over
          the classes. So a class of few reviews counts as much as one of many.
Shows     $ python evaluate.py --model demo
          accuracy   97.25%   95 % interval 95.14% to 98.46%; always 'negative': 50.00%
          loss       0.1317   a guess of 1/2 for each class: 0.6931
          ...
                     precision    recall        F1   reviews  called negative  positive
          negative      97.49%    97.00%    97.24%       200              194         6
          positive      97.01%    97.50%    97.26%       200                5       195
"""

import time
from statistics import NormalDist, fmean

import torch
from torch.nn import functional
from tqdm import tqdm

from dataset import encode, load_split, make_collate, make_examples, special_ids
from model import autocast, choose_hardware, load_model, to_device
from support.devices import add_up, hardware_name, join, rank, share
from support.errors import READING, UserError, check_counts, make_parser, out_of_memory
from support.errors import run_command, show
from support.faster import longest_first
from support.files import check_target, model_digest
from support.hub import connect_to_hub
from support.pretrained import find_model
from support.saved import data_of_training, keep_evaluation, print_mistakes, print_scores
from support.windows import average, encode_windows


# ------------------------------------------------------------------------------ 1. ask the model
def predict_logits(model, examples, collate, device, precision="fp32", batch_size=None, title=None):
    """The logits, one raw score per class, of every example: [N, C], float32, on the CPU.

    Row i belongs to examples[i]. examples and collate: see dataset.py. batch_size: None for
    usual_batch_size(). title: show a progress bar with it. The model is not told the labels.
    """
    # Here the order may be any, because nothing is learned. Sorted by length, batches need hardly
    # any padding. The longest come first: if one batch is too large for the memory, it fails now
    # and not after an hour.
    lengths = [len(example["input_ids"]) for example in examples]
    batches = longest_first(lengths, lambda t: batch_size or usual_batch_size(device, t))
    logits = torch.zeros(len(examples), model.config.num_labels)  # [N, C]
    # Eval mode turns dropout off. Forget it and every call gives another answer; forget to go back
    # and the next epoch trains without dropout. So the mode that was found is restored.
    was_training = model.training
    model.eval()
    try:
        # inference_mode: nothing is kept for a backward pass, which saves memory and time. It does
        # not turn dropout off, and eval mode does not do this: it takes both.
        with (
            torch.inference_mode(),
            autocast(device, precision),
            tqdm(
                total=len(examples), desc=title, unit=" reviews", disable=title is None, leave=False
            ) as bar,
        ):
            # share() gives all batches, and add_up() below changes nothing. (With torchrun, which
            # starts several processes, each fills in the rows of its share, and leaves the others
            # 0; add_up() gives the sum of all tables to all of them.)
            for rows in share(batches):
                batch = to_device(collate([examples[i] for i in rows]), device)
                output = model(
                    input_ids=batch["input_ids"],  # [B, T]
                    attention_mask=batch["attention_mask"],  # [B, T]
                )
                logits[rows] = output.logits.float().cpu()  # [B, C], back to the order of the data
                bar.update(len(rows))
    finally:
        model.train(was_training)
    return add_up(logits)


def usual_batch_size(device, tokens=256):
    """Reviews at once, to score them. tokens: of the longest of them.

    Many keep a GPU busy. On a CPU what one layer hands to the next should fit into the cache: 16
    reviews of 256 tokens took 15 % longer than four times 4. (More than one at a time, because the
    weights are read from memory for each batch.) The answers are the same, up to rounding.
    """
    return max(1, 1024 // tokens) if device.type == "cpu" else 128


# ------------------------------------------------------------------------------ 2. count
def wilson_interval(correct, n, confidence=0.95):
    """The interval for a true accuracy after `correct` of `n` were right (Wilson 1927).

    Ask another n reviews and you get another accuracy; the interval says how far off it may be.
    Its width shrinks with the root of n: four times the reviews, half the width. The textbook's
    p +- 1.96 sqrt(p(1-p)/n) says "100 % +- 0" after three right answers of three; Wilson's says
    44 % to 100 %. Returns (low, high), both from 0 to 1.
    """
    # Take each accuracy that could be the true one, and ask: would this many right answers be a
    # surprise? Not if it is one of the 95 % of results nearest to it. Then the interval holds it.
    z = NormalDist().inv_cdf((1 + confidence) / 2)  # 1.96 for 95 %
    p = correct / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, center - half), min(1.0, center + half)


def score(logits, labels, names):
    """Every figure of a split, from all of it at once. logits: [N, C]; labels: N class numbers.

    Nothing here is a mean of batch means: with 25 reviews in batches of 10, 10 and 5 that would
    count each of the last five twice. Count over all reviews, then divide once.
    Returns a dict that JSON can hold, ready for run.json. A figure of your own goes in here; then
    run.json, history.jsonl and --results have it, too. Precision, recall and F1 are 0 where they
    would be 0 / 0. (As scikit-learn's, with zero_division=0 and labels=the classes that occur.)
    The confusion matrix has a row for what the reviews are, a column for what they were called:
                     called negative   called positive
        is negative              194                 6      row sum: all negative reviews
        is positive                5               195      the diagonal: the right answers
    """
    labels = torch.as_tensor(labels)  # [N]
    n, classes = logits.shape
    confusion = torch.zeros(classes, classes, dtype=torch.long)  # [truth, prediction]
    # confusion[label, prediction] += 1 for each review. (Without accumulate=True: at most 1.)
    confusion.index_put_((labels, logits.argmax(dim=-1)), torch.tensor(1), accumulate=True)
    correct = confusion.diagonal().sum().item()
    # One figure for all classes hides which of them the model is bad at. A model that says
    # "positive" to everything has a recall of 100 % for positive reviews, and of 0 for the others.
    per_class = {}
    for c, name in enumerate(names):
        right = confusion[c, c].item()
        said, true = confusion[:, c].sum().item(), confusion[c].sum().item()
        per_class[name] = {
            "precision": right / said if said else 0.0,  # of those called c: how many are
            "recall": right / true if true else 0.0,  # of those that are c: how many were found
            "f1": 2 * right / (said + true) if said + true else 0.0,  # their harmonic mean
            "n": true,
        }
    return {
        "n": n,
        "correct": correct,
        "accuracy": correct / n,
        "accuracy_interval": list(wilson_interval(correct, n)),
        # A class that no review here is of cannot be found: it does not count.
        "macro_f1": fmean(one["f1"] for one in per_class.values() if one["n"]),
        # The loss is minus the log of the probability given to the right class, a mean over all
        # reviews. It counts how sure the model was. So it can get worse while accuracy gets better,
        # when the model is surer of its mistakes. In float64, because a float32 sum over 25,000
        # losses would round digits away.
        "loss": functional.cross_entropy(logits.double(), labels).item(),
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }


def print_by_length(logits, labels, lengths, max_length):
    """Accuracy where the model can read the whole review at once, and where truncation cuts it.

    lengths: tokens of each whole review. If only the long ones are judged badly, try a larger
    --max-length or another --truncation.
    Returns {"whole": {"correct": ..., "n": ...}, "longer": ...}.
    """
    right = logits.argmax(dim=-1) == torch.as_tensor(labels)  # [N]
    longer, found = torch.tensor(lengths) > max_length, {}  # [N]
    for name, words, rows in (("whole", "up to", ~longer), ("longer", "longer than", longer)):
        n, correct = int(rows.sum()), int((right & rows).sum())
        found[name] = {"correct": correct, "n": n}
        if n:
            interval = "{:.2%} to {:.2%}".format(*wilson_interval(correct, n))
            print(f"{words} {max_length} tokens: {correct / n:.2%} right ({interval}, n = {n:,})")
    return found


# ------------------------------------------------------------------------------ 3. a saved model
def main():
    """Load a saved model, ask it about a split, and report."""
    options = f"model max-length split data {READING} subset draw-seed windows save results "
    options += "batch-size device precision"
    args = make_parser(__doc__, options, max_length=None).parse_args()
    # Everything that can be wrong with the options is found before the model is loaded.
    check_counts(args, "batch_size", "subset", "max_length")
    if args.draw_seed is not None and args.subset is None:
        raise UserError("--draw-seed goes with --subset: a whole split is not drawn")
    # Or any classifier that transformers can load. It does not say on what it was trained.
    args.model = find_model(args.model)
    data = args.data or data_of_training(args.model)
    check_target(args.save, data, args.model)
    check_target(args.results, data, args.model, args.save)
    connect_to_hub(data)
    # 16 bits are enough here. They round the logits a little, so only a review on the edge between
    # two classes can get another answer; the line "computed on" says what was used.
    device, precision, _ = choose_hardware(args.device, args.precision)
    join(device)
    asked = model_digest(args.model)  # a run that goes on may put a better model there meanwhile
    model, tokenizer, run = load_model(args.model, device, precision, args.max_length)
    names = run["labels"]
    split, notes = load_split(run, args.split, args.data, args.subset, args.draw_seed, vars(args))
    for note in notes:
        show("", note)

    # From texts to logits, prepared as in training: a model that has learned from the ends of long
    # reviews should be asked about their ends. With --windows nothing is cut. A long review then
    # has several lists of ids, `owners` says whose, and its answer is the mean of their logits.
    max_length, truncation = run["arguments"]["max_length"], run["arguments"]["truncation"]
    most = 10**9 if args.windows else max_length  # 10^9: nothing is cut
    input_ids, split["lengths"] = encode(split["texts"], tokenizer, most, truncation, progress=True)
    if args.windows:
        input_ids, owners, _ = encode_windows(input_ids, *special_ids(tokenizer), max_length)
    examples = make_examples(input_ids, [0] * len(input_ids))  # the model is not told the labels
    collate = make_collate(tokenizer.pad_token_id)
    started = time.perf_counter()
    # Only the asking is timed: no loading, no tokenizing.
    half = max(1, (args.batch_size or usual_batch_size(device, max_length)) // 2)
    with out_of_memory(f"try --batch-size {half}"):
        how = collate, device, precision, args.batch_size
        logits = predict_logits(model, examples, *how, title="evaluating")
    if args.windows:
        logits = average(logits, owners, len(split["texts"]))  # [windows, C] becomes [N, C]
    seconds = time.perf_counter() - started

    # Show the figures, and the mistakes that a figure cannot show. The answers are kept in the
    # model's folder, so that extras.report need not ask the model again; --save writes them for
    # people, --results for programs.
    figures = score(logits, split["labels"], names)
    print_scores(figures, args.split, f" of {args.data}" if args.data else "")
    print(f"\ncomputed on {device} in {precision}")
    by_length = print_by_length(logits, split["labels"], split["lengths"], max_length)
    print_mistakes(logits, split, names)
    # (torchrun: one process writes for all.)
    if rank() == 0:
        found = {"seconds": seconds, "figures": figures, "by_length": by_length}
        keep_evaluation(args, run, split, logits, precision, hardware_name(device), found, asked)
    if run["arguments"]["demo"]:
        print("\nA rehearsal: a tiny model. Its figures say nothing about real ones.")


if __name__ == "__main__":
    run_command(main)
