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
          that the model was most sure of. To read the test split again harms nothing. To choose a
          model or an option by it would: then its figure flatters.
Shows     $ python evaluate.py --model demo
          accuracy  97.25%   95 % interval 95.14% to 98.46%
          loss      0.1317   (a guess of 1/2 for each class: 0.6931)
          macro F1  97.25%
          ...
                      negative  positive
          negative         194         6
          positive           5       195
"""

import time
from pathlib import Path
from statistics import NormalDist

import torch
from torch.nn import functional
from tqdm import tqdm

from dataset import clean, draw, draw_rules, encode, load_splits, make_collate, make_examples
from dataset import special_ids, take
from model import PRECISIONS, autocast, choose_hardware, load_model, to_device
from support.errors import UserError, check_counts, make_parser, out_of_memory, run_command
from support.files import check_target
from support.devices import hardware_name
from support.hub import connect_to_hub
from support.devices import add_up, join, rank, share
from support.pretrained import choose_attention
from support.saved import keep_evaluation, print_mistakes, print_scores, read_run
from support.tables import load_table, usable_rows
from support.windows import average, encode_windows


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
            for start in share(range(0, len(order), batch_size)):
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
    return add_up(logits)


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


def print_by_length(logits, labels, lengths, max_length):
    """Accuracy where the model can read the whole review at once, and where truncation cuts it.

    Returns {"whole": {"correct": ..., "n": ...}, "longer": ...}.
    """
    right = logits.argmax(dim=-1) == torch.as_tensor(labels)  # [N]
    longer, found = torch.tensor(lengths) > max_length, {}  # [N]
    print()
    for name, words, rows in (("whole", "up to", ~longer), ("longer", "longer than", longer)):
        n, correct = int(rows.sum()), int((right & rows).sum())
        found[name] = {"correct": correct, "n": n}
        if n:
            low, high = wilson_interval(correct, n)
            title, interval = f"{words} {max_length} tokens", f"{low:.2%} to {high:.2%}"
            print(f"{title:30} accuracy {correct / n:.2%}   {interval}, {n:,} reviews")
    return found


# ------------------------------------------------------------------------------ 3. a saved model
def load_split(run, role, data=None, columns=(None, None), subset=None, draw_seed=None):
    """The reviews to evaluate on. Returns ({"texts": ..., "labels": ...}, notes).

    run: a model's run.json. role: "train", "validation" or "test". data, columns: None for what the
    model was trained on. A file that it was not trained on is taken whole. Everything else is
    divided as in training, so that "validation" means the rows that were held out then. subset: so
    many reviews; draw_seed: others than usual.
    """
    trained, names = run["arguments"], run["labels"]
    usual = trained["text_column"], trained["label_column"]
    columns = tuple(new or old for new, old in zip(columns, usual))
    data = data or trained["data"]
    same = data == trained["data"] or Path(data).resolve() == Path(trained["data"]).resolve()
    if Path(data).is_file() and not same:
        notes = [f"{data}: all of its rows; those that training has read flatter the result"]
        chosen = usable_rows(*load_table(data, *columns), names, data, notes, clean)
    else:
        splits, _, notes, now = load_splits(data, *columns, seed=trained["seed"], names=names)
        chosen, notes = splits[role], [note for note in notes if note.startswith(role)]
        # Other columns divide a file otherwise, unless it brings its own splits.
        divided = columns == usual or any("held out" in note for note in notes)
        if same and divided and now != run.get("data_fingerprint", now):
            notes.append(
                f"warning: the {'data has' if columns == usual else 'columns have'} changed since "
                "training, and with it the division: reviews that were trained on may stand in "
                f"{role} now"
            )
    if not chosen["texts"]:
        raise UserError(f"{data} has no row with a text and a label for {role}: {'; '.join(notes)}")
    if subset is not None:
        seed, equal = draw_rules(role, trained["seed"])
        seed = seed if draw_seed is None else draw_seed
        chosen = take(chosen, draw(chosen["labels"], subset, seed, equal))
    return chosen, notes


OPTIONS = (
    ("--model", str, "model", "a folder that finetune.py saved (default: model)"),
    ("--split", ("train", "validation", "test"), "test", "of the model's data (default: test)"),
    ("--subset", int, None, "reviews to draw (default: the whole split)"),
    ("--draw-seed", int, None, "draw others (default: from test the same for all models)"),
    ("--data", str, None, "another file, folder or hub data set (default: the model's own)"),
    ("--text-column", str, None, "column of the texts (default: as in training)"),
    ("--label-column", str, None, "column of the labels (default: as in training)"),
    ("--save", str, None, "a .csv file for text, label, predicted, score of each review"),
    ("--results", str, None, "a .json file for the figures, for programs"),
    ("--batch-size", int, None, "reviews at once (default: 16 on a CPU, 128 on a GPU)"),
    ("--device", str, None, "cpu, cuda, mps, xpu (default: the best there is)"),
    ("--precision", PRECISIONS, "auto", "number format (default: auto, 16 bits where fast)"),
    ("--windows", bool, False, "read long reviews whole, in windows that overlap"),
)


def main():
    args = make_parser(__doc__, OPTIONS).parse_args()
    check_counts(args, "batch_size", "subset")
    if args.draw_seed is not None and args.subset is None:
        raise UserError("--draw-seed goes with --subset: a whole split is not drawn")
    data = args.data or read_run(args.model)["arguments"]["data"]
    for target in (args.save, args.results):
        if target is not None:
            check_target(target, data, args.model)
    connect_to_hub(data)
    device, precision, _ = choose_hardware(args.device, args.precision)
    join(device)
    model, tokenizer, run = load_model(args.model, device)
    choose_attention(model, device, precision)
    columns, names = (args.text_column, args.label_column), run["labels"]
    split, notes = load_split(run, args.split, args.data, columns, args.subset, args.draw_seed)
    print("\n".join(notes))

    # From texts to logits, as in training. With --windows a review has several lists of ids.
    max_length, how = run["arguments"]["max_length"], run["arguments"]["truncation"]
    most, how = (10**9, "head") if args.windows else (max_length, how)  # 10^9: nothing is cut
    input_ids, split["lengths"] = encode(split["texts"], tokenizer, most, how, progress=True)
    labels = split["labels"]
    if args.windows:
        input_ids, owners, _ = encode_windows(input_ids, *special_ids(tokenizer), max_length)
        labels = [labels[owner] for owner in owners]
    examples, collate = make_examples(input_ids, labels), make_collate(tokenizer.pad_token_id)
    batch_size = args.batch_size or usual_batch_size(device)
    started = time.perf_counter()
    with out_of_memory(f"try --batch-size {max(1, batch_size // 2)}"):
        logits = predict_logits(
            model, examples, collate, device, precision, batch_size, "evaluating"
        )
    if args.windows:
        logits = average(logits, owners, len(split["texts"]))
    seconds = time.perf_counter() - started

    figures = score(logits, split["labels"], names)
    print_scores(figures, args.data or args.split)
    print(f"\ncomputed on {device} in {precision}")
    by_length = print_by_length(logits, split["labels"], split["lengths"], max_length)
    print_mistakes(logits, split, names)
    if rank() == 0:
        how = {"seconds": seconds, "figures": figures, "by_length": by_length}
        keep_evaluation(args, run, split, logits, precision, hardware_name(device), how)
    if run["arguments"]["demo"]:
        print("\nA rehearsal: made-up reviews. Its figures say nothing about real ones.")


if __name__ == "__main__":
    run_command(main)
