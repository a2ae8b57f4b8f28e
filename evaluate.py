"""Chapter 5: count, then divide.

Teaches   how to say how good a classifier is: accuracy with the interval it deserves, what accuracy
          hides (precision, recall, F1, the confusion matrix), and reading the mistakes themselves.
Order     after finetune.py, which calls predict_logits() and score() after every epoch.
Run       python evaluate.py --model model                        the whole test split
          python evaluate.py --model model --subset 2000          2,000 reviews of it
          python evaluate.py --model model --data reviews.csv --save predictions.csv
Expect    a table of figures with n and 95 % intervals, a confusion matrix, and the five mistakes
          that the model was most sure of. The --subset of training is not repeated by itself: give
          it again, and the same reviews are drawn. To read the test split again harms nothing; to
          choose a model or a knob by it would, because then its figure flatters.
Shows     $ python evaluate.py --model demo
          accuracy  97.25%   95 % interval 95.14% to 98.46%
          loss      0.1317   (a guess of 1/2 for each class: 0.6931)
          macro F1  97.25%
          ...
                      negative  positive
          negative         194         6
          positive           5       195
"""

import math
import time
from statistics import NormalDist

# First: once errors.py is in, Ctrl-C ends in one line, also while torch is imported (seconds).
from errors import UserError, make_parser, out_of_memory, plain, run_command

import torch
from torch.nn import functional
from tqdm import tqdm

import parallel
from answers import keep_answers, save_predictions, save_results, surest_mistakes
from attention import choose_attention
from behaviour import ask_skills
from checkpoint import load_model, read_run
from compare import compare
from dataset import encode, make_collate, make_examples
from folder import check_target
from hardware import autocast, choose_hardware, hardware_name, to_device
from hub import connect_to_hub
from splits import load_split
from windows import average, encode_windows


# ------------------------------------------------------------------------------ 1. ask the model
def predict_logits(model, examples, collate, device, precision="fp32", batch_size=None, title=None):
    """The logits, one raw score per class, of every example: [N, C], float32, on the CPU.

    Row i belongs to examples[i]. Inside, the longest come first, in batches of like length: little
    padding, and a batch too large for the memory fails at once. title: show a progress bar with it.
    batch_size: None for usual_batch_size().
    """
    batch_size = batch_size or usual_batch_size(device)
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i]["input_ids"]))
    logits = torch.zeros(len(examples), model.config.num_labels)  # [N, C]
    # Eval mode turns dropout off. Forget it and every call gives another answer; forget to go back
    # and the next epoch trains without dropout. So the mode that was found is restored.
    was_training = model.training
    model.eval()
    try:
        # inference_mode: nothing is kept for a backward pass, which saves memory and time.
        with (
            torch.inference_mode(),
            autocast(device, precision),
            tqdm(
                total=len(examples), desc=title, unit=" reviews", disable=title is None, leave=False
            ) as bar,
        ):
            # With torchrun, each process fills in the rows of its batches and leaves the others 0.
            for start in parallel.share(range(0, len(order), batch_size)):
                rows = order[start : start + batch_size]
                batch = to_device(collate([examples[i] for i in rows]), device)
                output = model(
                    input_ids=batch["input_ids"],  # [B, T]
                    attention_mask=batch["attention_mask"],  # [B, T]
                )
                logits[rows] = output.logits.float().cpu()  # [B, C], back to the order of the data
                bar.update(len(rows))
    finally:
        model.train(was_training)
    return parallel.add_up(logits)


def usual_batch_size(device):
    """Reviews at once, to score them.

    A GPU wants many, to be busy; on a CPU what one layer hands to the next should stay in the
    cache, and 64 reviews at once were slower than 16.
    """
    return 16 if device.type == "cpu" else 128


# ------------------------------------------------------------------------------ 2. count
def wilson_interval(correct, n, confidence=0.95):
    """The interval for a true accuracy after `correct` of `n` were right (Wilson 1927).

    The textbook's p +- 1.96 sqrt(p(1-p)/n) says "100 % +- 0" after three right answers of three;
    Wilson's says 44 % to 100 %. Returns (low, high), both from 0 to 1.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)  # 1.96 for 95 %
    p = correct / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, center - half), min(1.0, center + half)


def score(logits, labels, names):
    """Every figure of a split, from all of it at once. logits: [N, C]; labels: N class numbers.

    Nothing here is a mean of batch means: with 25 reviews in batches of 10, 10 and 5 that would
    count each of the last five twice. Returns a dict of plain numbers, ready for run.json.
    Precision, recall and F1 are 0 where they would be 0 / 0, and macro F1 is the plain mean over
    all classes, as in scikit-learn with labels=all classes and zero_division=0.
    """
    labels = torch.as_tensor(labels)  # [N]
    n, classes = logits.shape
    confusion = torch.zeros(classes, classes, dtype=torch.long)  # [truth, prediction]
    # confusion[label, prediction] += 1 for each review; accumulate, or a pair counts only once.
    confusion.index_put_((labels, logits.argmax(dim=-1)), torch.tensor(1), accumulate=True)
    correct = confusion.diagonal().sum().item()
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
        "macro_f1": sum(figures["f1"] for figures in per_class.values()) / classes,
        # In float64: a float32 sum over 25,000 losses would round digits away.
        "loss": functional.cross_entropy(logits.double(), labels).item(),
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }


def warnings_for(figures):
    """What looks wrong in the figures themselves: a list of sentences, usually empty."""
    found = []
    present = [name for name, one in figures["per_class"].items() if one["n"]]
    if len(present) == 1:
        found.append(
            f"every review is {present[0]!r}: an accuracy on one class says nothing about the other"
        )
    a = figures["accuracy"]
    for name, one in figures["per_class"].items():
        # Of two classes one may have all a * n right answers, because no review of the other was
        # ever recognised. All (1 - a) * n mistakes then touch it as well, so that its F1 is
        # 2 * a * n / (2 * a * n + (1 - a) * n) = 2a / (1 + a).
        same = math.isclose(one["f1"], 2 * a / (1 + a))
        if len(figures["per_class"]) == 2 and 0 < a < 1 and same:
            found.append(
                f"not one review of the other class was recognised: every right answer is "
                f"{name!r} (its F1 is 2a/(1+a) for accuracy a)"
            )
    return found


# ------------------------------------------------------------------------------ 3. show
def print_scores(figures, title):
    """Print a split's figures for people."""
    low, high = figures["accuracy_interval"]
    classes = len(figures["per_class"])
    print(f"\n{title}: {figures['n']:,} reviews")
    print(f"accuracy  {figures['accuracy']:.2%}   95 % interval {low:.2%} to {high:.2%}")
    print(
        f"loss      {figures['loss']:.4f}   (a guess of 1/{classes} for each class: "
        f"{math.log(classes):.4f})"
    )
    print(f"macro F1  {figures['macro_f1']:.2%}\n")
    wide = max(len(name) for name in figures["per_class"]) + 2
    print(f"{'class':{wide}} {'precision':>9} {'recall':>9} {'F1':>9} {'reviews':>9}")
    for name, one in figures["per_class"].items():
        print(
            f"{name:{wide}} {one['precision']:>9.2%} {one['recall']:>9.2%} {one['f1']:>9.2%} "
            f"{one['n']:>9,}"
        )
    print("\nconfusion matrix, a row for what they are, a column for what they were called")
    print(f"{'':{wide}} " + " ".join(f"{name:>9}" for name in figures["per_class"]))
    for name, row in zip(figures["per_class"], figures["confusion"]):
        cells = (
            f"{count:>{max(9, len(other))},}" for count, other in zip(row, figures["per_class"])
        )
        print(f"{name:{wide}} " + " ".join(cells))
    for warning in warnings_for(figures):
        print(f"\nwarning: {warning}")


def print_by_length(logits, labels, lengths, max_length):
    """Accuracy where the model can read the whole review at once, and where truncation cuts it.

    Returns {"whole": {"correct": ..., "n": ...}, "longer": ...}.
    """
    right = logits.argmax(dim=-1) == torch.as_tensor(labels)  # [N]
    longer = torch.tensor(lengths) > max_length  # [N]
    found = {}
    print()
    for name, title, rows in (
        ("whole", f"up to {max_length} tokens", ~longer),
        ("longer", f"longer than {max_length} tokens", longer),
    ):
        n, correct = int(rows.sum()), int((right & rows).sum())
        found[name] = {"correct": correct, "n": n}
        if n:
            low, high = wilson_interval(correct, n)
            print(f"{title:30} accuracy {correct / n:.2%}   {low:.2%} to {high:.2%}, {n:,} reviews")
    return found


def print_mistakes(logits, labels, texts, names, count=5):
    """The wrong answers the model was most sure of. Often the label is what is odd: read them."""
    sure, predicted = logits.softmax(dim=-1).max(dim=-1)  # probabilities [N], classes [N]
    wrong = surest_mistakes(logits, labels)
    print(
        f"\n{len(wrong):,} mistakes; the surest of them, with the probability given to the answer"
    )
    for i in wrong[:count]:
        text = texts[i] if len(texts[i]) <= 240 else texts[i][:100] + " ... " + texts[i][-130:]
        print(f"  {sure[i]:.3f} {names[predicted[i]]}, but is {names[labels[i]]}: {plain(text)}")


# ------------------------------------------------------------------------------ 4. a saved model
def main():
    parser = make_parser(__doc__)
    parser.add_argument(
        "--model", default="model", help="a folder that finetune.py saved (default: model)"
    )
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--subset", type=int, help="reviews to draw (default: the whole split)")
    parser.add_argument(
        "--draw-seed", type=int, help="draw others (default: from test the same for all models)"
    )
    parser.add_argument(
        "--data", help="another file, folder or hub data set (default: the model's own)"
    )
    parser.add_argument("--text-column", help="column of the texts (default: as in training)")
    parser.add_argument("--label-column", help="column of the labels (default: as in training)")
    parser.add_argument(
        "--save", metavar="FILE.csv", help="write text, label, predicted, score per review"
    )
    parser.add_argument("--results", metavar="FILE.json", help="write the figures, for programs")
    parser.add_argument(
        "--batch-size", type=int, help="reviews at once (default: 16 on a CPU, 128 on a GPU)"
    )
    parser.add_argument("--device", help="cpu, cuda, mps, xpu (default: the best there is)")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16", "auto"),
        help="number format (default: auto, 16 bits where the hardware has them; fp32 for "
        "--behaviour and --pairs)",
    )
    parser.add_argument(
        "--windows", action="store_true", help="read long reviews whole, in windows that overlap"
    )
    parser.add_argument(
        "--behaviour", action="store_true", help="no split: sixty sentences, a row for each skill"
    )
    parser.add_argument(
        "--pairs",
        metavar="FILE.tsv",
        help="no split: pairs of a review and a minimally changed one, with the columns original, "
        "original_label, changed, changed_label",
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar="FILE.csv",
        help="no model: which of two files of predictions for the same reviews is better",
    )
    args = parser.parse_args()
    if args.compare:
        if args.results is not None:
            check_target(args.results, *args.compare)
        return compare(*args.compare, args.results)
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: has to be 1 or more")
    if args.behaviour or args.pairs:
        return ask_skills(args)
    if args.draw_seed is not None and args.subset is None:
        raise UserError("--draw-seed goes with --subset: a whole split is not drawn")
    data = args.data or read_run(args.model)["arguments"]["data"]
    for target in (args.save, args.results):
        if target is not None:
            check_target(target, data, args.model)
    connect_to_hub(data)
    device, precision, _ = choose_hardware(args.device, args.precision or "auto")
    parallel.join(device)
    model, tokenizer, run = load_model(args.model, device)
    choose_attention(model, device, precision)
    chosen, notes = load_split(
        run,
        args.split,
        args.data,
        args.text_column,
        args.label_column,
        args.subset,
        args.draw_seed,
    )
    for note in notes:
        print(note)

    texts, labels = chosen["texts"], chosen["labels"]
    max_length = run["arguments"]["max_length"]
    if args.windows:
        input_ids, owners, _, lengths = encode_windows(texts, tokenizer, max_length, progress=True)
        labels_of = [labels[owner] for owner in owners]
    else:
        input_ids, lengths = encode(
            texts, tokenizer, max_length, run["arguments"]["truncation"], progress=True
        )
        labels_of = labels
    examples, collate = make_examples(input_ids, labels_of), make_collate(tokenizer.pad_token_id)
    started = time.perf_counter()
    batch_size = args.batch_size or usual_batch_size(device)
    with out_of_memory(f"try --batch-size {max(1, batch_size // 2)}"):
        logits = predict_logits(
            model, examples, collate, device, precision, batch_size, "evaluating"
        )
    if args.windows:
        logits = average(logits, owners, len(texts))
    seconds = time.perf_counter() - started
    figures = score(logits, labels, run["labels"])
    print_scores(figures, args.data or args.split)
    print(f"\ncomputed on {device} in {precision}")
    by_length = print_by_length(logits, labels, lengths, max_length)
    print_mistakes(logits, labels, texts, run["labels"])
    if parallel.rank() == 0:
        how = {"subset": args.subset, "draw_seed": args.draw_seed, "windows": args.windows}
        how["precision"] = precision
        if args.data is args.text_column is args.label_column is None:
            columns = logits, labels, lengths, texts
            problem = keep_answers(args.model, args.split, *columns, how)
            print(f"\n{problem or 'answers kept for report.py'}")
        if args.save:
            scores, predicted = logits.softmax(dim=-1).max(dim=-1)
            names = run["labels"]
            columns = texts, labels, predicted.tolist(), scores.tolist()
            rows = [(text, names[c], names[p], score) for text, c, p, score in zip(*columns)]
            save_predictions(args.save, rows)
            print(f"\n{len(texts):,} predictions in {args.save}")
        if args.results:
            how |= {"data": args.data, "split": args.split, "hardware": hardware_name(device)}
            save_results(
                args.results,
                run,
                how | {"seconds": seconds, "figures": figures, "by_length": by_length},
            )
    if run["arguments"]["demo"]:
        print("\nA rehearsal: made-up reviews. Its figures say nothing about real ones.")


if __name__ == "__main__":
    run_command(main)
