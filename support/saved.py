"""What stands beside the weights in a model's folder: run.json, the model card, kept answers.

run.json tells how the model was made and how to prepare texts for it. answers-validation.json and
answers-test.json hold each answer and not only the share that was right: whoever asks the next
question (is it worse on long reviews? how sure is it when it is wrong?) need not wait again.
"""

import contextlib
import csv
import io
import json
import math
import os
import sys
from pathlib import Path

import torch

from support.errors import TRUNCATIONS, WIDTH, UserError, plain, show
from support.files import digest, model_digest, read_json, seen_from_here, write_whole
from support.pretrained import as_typed, class_names, describe_other, max_positions
from support.tables import HOW

# A folder that lacks one of these is no saved model; run.json is written last.
FILES = ("run.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
MISTAKES = 20  # so many of the surest are kept with their texts
CARD = "How it was made, to the last argument, is in run.json"
MANY = 20  # classes: of more, not every one is shown


# ------------------------------------------------------------------------------ 1. run.json
def example(arguments):
    """What a user may ask a model first: about a film, where films are what it knows."""
    films = arguments["demo"] or arguments["data"] == "stanfordnlp/imdb"
    return "I regret watching this film" if films else "a text of your own"


def write_run(folder, run):
    """Write the model card and run.json."""
    write_whole(Path(folder, "README.md"), model_card(run))
    write_whole(Path(folder, "run.json"), json.dumps(run, indent=2) + "\n")


def model_card(run):
    """The README.md of a saved model, made from its run.json: what it is, how good, how to use.

    It opens with what the hub reads: its figures ("model-index"), what it was made of, for what.
    """
    from huggingface_hub import EvalResult, ModelCardData

    arguments, results, measured = run["arguments"], run["results"], []
    rehearsal = "**A rehearsal: a tiny model, which nobody has pretrained.**\n\n"
    figures, read_once = "", ", the test split was read once" * ("test" in results)
    for role in ("validation", "test"):
        if found := results.get(role):
            interval = "{:.2%} to {:.2%}".format(*found["accuracy_interval"])
            figures += f"{role}: accuracy {found['accuracy']:.2%} (95 % interval {interval}, "
            figures += f"n = {found['n']:,}), macro F1 {found['macro_f1']:.2%}\n\n"
            for key, kind in (("accuracy", "accuracy"), ("macro_f1", "f1"), ("loss", "loss")):
                name = f"{key.replace('_f1', ' F1')}, n = {found['n']:,}"
                name += f", 95 % interval {interval}" * (key == "accuracy")
                measured.append((role, kind, name, round(found[key], 4)))
    # A folder of this machine tells nobody anything, and perhaps too much.
    local = os.path.isabs(arguments["model"]) or arguments["demo"]
    model = Path(arguments["model"]).name if local else arguments["model"]
    data = Path(arguments["data"]).name if os.path.isabs(arguments["data"]) else arguments["data"]
    title, task = f"{model}, fine-tuned on {Path(data).name}", "text-classification"
    # A rehearsal's figures say nothing: the hub is not told of them.
    for_the_hub = [
        EvalResult(task, data, Path(data).stem, kind, value, dataset_split=role, metric_name=name)
        for role, kind, name, value in ([] if arguments["demo"] else measured)
    ]
    head = ModelCardData(
        model_name=title,
        eval_results=for_the_hub or None,
        base_model=None if local else arguments["model"],
        datasets=None if data != arguments["data"] or arguments["demo"] else [data],
        library_name="transformers",
        pipeline_tag=task,
    )
    classes = " / ".join(f"`{name}`" for name in run["labels"])  # as they are, with any sign
    return f"""---
{head.to_yaml()}
---

# {title}

Tells {classes}. Trained on {run["splits"]["train"]["reviews"]:,} texts.

{rehearsal * arguments["demo"]}{figures}Texts are cut to {arguments["max_length"]} tokens \
({arguments["truncation"]}); the validation split chose the epoch{read_once}. \
{CARD}.

```python
from transformers import pipeline

classify = pipeline('text-classification', model='this folder', truncation=True)
print(classify({example(arguments)!r}))
```

Longer texts are cut by `truncation=True` at the model's limit and from the end only; \
`predict.py` cuts them as in training.
"""


def read_run(folder, max_length=None):
    """run.json of a saved folder, as a dict; of another classifier what stands for it.

    folder: of find_model(). max_length: in place of the one that it was trained with, or None.
    Raises UserError where the folder holds no model.
    """
    folder = Path(folder)
    if max_length is not None and max_length < 3:
        raise UserError(f"--max-length {max_length}: has to be 3 or more, [CLS] token [SEP]")
    if not folder.is_dir():
        make = "python finetune.py --demo makes one"
        raise UserError(f"--model {folder}: there is no such folder; {make}")
    # What finetune.py has written without a run.json is not whole.
    ours = any((folder / name).exists() for name in ("run.json", "history.jsonl", "checkpoints"))
    card = folder / "README.md"
    ours |= card.is_file() and CARD in card.read_text(encoding="utf-8", errors="replace")
    if not ours and (folder / "config.json").is_file():
        return describe_other(folder, max_length)
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"--model {folder}: no {name} in it, so no model finetune.py saved")
    try:
        run = read_json(folder / "run.json")
        arguments = run["arguments"]
        whole = {"data", "text_column", "label_column", "seed", "demo"} <= set(arguments)
        whole &= {"versions", "splits", "results"} <= set(run) and len(run["labels"]) >= 2
        whole &= isinstance(arguments["max_length"], int) and arguments["max_length"] >= 3
        whole &= isinstance(arguments["data"], str)
        whole &= all(isinstance(arguments[k], (str, type(None))) for k in HOW[:2])
        # A name with a line break or a color in it could pretend to be another answer.
        whole &= all(isinstance(name, str) and name.isprintable() for name in run["labels"])
        whole &= arguments["truncation"] in TRUNCATIONS
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise UserError(f"{folder / 'run.json'} is damaged: train again, or use another folder")
    arguments["max_length"] = max_length or arguments["max_length"]
    return run


def data_of_training(folder):
    """What a model was trained on. Raises UserError where it does not say."""
    data = read_run(folder)["arguments"]["data"]
    if not data:
        raise UserError(f"{folder} does not say on what it was trained: to evaluate.py add --data")
    return data


def warn_of_change(run, source, role, notes):
    """Add a warning to `notes` if the data is divided otherwise than in training.

    source: of load_splits(). Other columns divide a file otherwise, unless it brings its splits.
    """
    usual, now = run["arguments"], source.fingerprint
    same_columns = (source.text_column, source.label_column) == (
        usual["text_column"], usual["label_column"]
    )
    divided = same_columns or any("held out" in note for note in notes)
    if divided and now != run.get("data_fingerprint", now):
        notes.append(
            f"warning: the {'data has' if same_columns else 'columns have'} changed since "
            "training, and with it the division: reviews that were trained on may stand in "
            f"{role} now"
        )


def check_loaded(folder, model, tokenizer, run, info):
    """Raise UserError unless weights, tokenizer and run.json belong together.

    info: what transformers says about the weights it has found.
    """
    if "assumed" in run:
        if info["missing_keys"] or info["mismatched_keys"]:
            name = as_typed(folder)
            how = f"fine-tune it first: python finetune.py --model {name}"
            raise UserError(f"--model {name}: has weights of an encoder and no head; {how}")
        show("assumed", run["assumed"], file=sys.stderr)
    elif info["missing_keys"] or info["mismatched_keys"] or info["unexpected_keys"]:
        raise UserError(f"--model {folder}: its weights are not the whole model of config.json")
    if class_names(model.config) != run["labels"]:
        raise UserError(f"--model {folder}: config.json and run.json name different classes")
    if run["arguments"]["max_length"] > max_positions(model):
        most = max_positions(model)
        raise UserError(f"--model {folder}: max_length has to be at most {most}, its positions")
    most = max(tokenizer.get_vocab().values())
    if tokenizer.pad_token_id is None or most >= model.config.vocab_size:
        raise UserError(f"--model {folder}: the tokenizer does not belong to the model")


# ------------------------------------------------------------------------------ 2. answers
def surest_mistakes(logits, labels):
    """Row numbers of the wrong answers, the surest first. logits: [N, C]; labels: N numbers."""
    scores, predicted = logits.softmax(dim=-1).max(dim=-1)  # [N], [N]
    wrong = (predicted != torch.as_tensor(labels)).nonzero()[:, 0]
    return wrong[scores[wrong].argsort(descending=True, stable=True)].tolist()


def keep_answers(folder, role, logits, split, how, asked=None):
    """Write answers-<role>.json into a model's folder, if it does not know of more reviews.

    logits: [N, C]. split: a dict of lists: "texts", "labels", and "lengths", the tokens of each
    whole review. how: what else a reader has to know: subset, windows, precision. asked:
    model_digest() before the model was loaded. Returns whether they were kept, or has said why not.
    """
    labels, texts = split["labels"], split["texts"]
    # A folder may get another model. Answers that are not its own must not speak for it.
    path, weights = Path(folder, f"answers-{role}.json"), model_digest(folder)
    if asked not in (None, weights):
        print("answers not kept for extras.report: meanwhile the folder got another model")
        return False
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # damaged: write it anew
        before = read_json(path)
        if before["weights"] == weights and len(before["labels"]) > len(labels):
            print("answers not kept for extras.report: it has those of more reviews")
            return False
    record = how | {
        "weights": weights,
        "reviews": digest(json.dumps([list(texts), labels]).encode()),  # do two answer the same?
        "labels": labels,
        "lengths": split["lengths"],
        # Nine digits say exactly which 32-bit number it was; with fewer, two logits could tie.
        "logits": [[float(f"{value:.9g}") for value in row] for row in logits.tolist()],
        "mistakes": {row: texts[row] for row in surest_mistakes(logits, labels)[:MISTAKES]},
    }
    try:
        write_whole(path, json.dumps(record) + "\n")
    except UserError as error:  # somebody else's folder: no reason to lose the evaluation
        print(f"answers not kept for extras.report: {error}", file=sys.stderr)
        return False
    return True


def keep_evaluation(args, run, split, logits, precision, hardware, found, asked):
    """What evaluate.py writes: its --save, its --results, and the answers for extras.report.

    args: its options. logits: [N, C]. found: its figures, a dict for --results. asked: see above.
    """
    how = {name: getattr(args, name) for name in ("data", "subset", "draw_seed", "windows")}
    how |= {"precision": precision, "max_length": run["arguments"]["max_length"]}
    usual = args.max_length is None and all(getattr(args, name) is None for name in HOW)
    if "assumed" in run or args.data is None and usual:
        print()
        if keep_answers(args.model, args.split, logits, split, how, asked):
            print("answers kept for extras.report")
    if args.save:
        save_predictions(args.save, logits, split, run["labels"])
        print(f"\n{len(split['texts']):,} predictions in {args.save}")
    if args.results:
        # Whoever reads it elsewhere has other folders: paths are written as seen from here.
        typed = run["arguments"]
        paths = {k: seen_from_here(v) for k, v in typed.items() if os.path.isabs(str(v))}
        how |= {"split": args.split, "hardware": hardware} | found
        record = {"run": run | {"arguments": typed | paths}, "evaluated": how}
        write_whole(args.results, json.dumps(record, indent=1) + "\n")


def save_predictions(path, logits, split, names):
    """Write text, label, predicted and score of each review as CSV. logits: [N, C]."""
    scores, predicted = logits.softmax(dim=-1).max(dim=-1)  # [N], [N]
    columns = split["texts"], split["labels"], predicted.tolist(), scores.tolist()
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["text", "label", "predicted", "score"])
    writer.writerows((text, names[c], names[p], score) for text, c, p, score in zip(*columns))
    write_whole(path, buffer.getvalue())


# ------------------------------------------------------------------------------ 3. figures, shown
def commonest(figures):
    """(name, share) of the commonest class: the accuracy of a model that always says this one."""
    sizes = {name: one["n"] for name, one in figures["per_class"].items()}
    name = max(sizes, key=sizes.get)
    return name, sizes[name] / figures["n"]


def warnings_for(figures, train_loss=None):
    """What looks wrong in the figures themselves: a list of sentences, usually empty.

    train_loss: of the last epoch, if they are those of a run that has just ended.
    """
    classes, confusion, found = list(figures["per_class"]), figures["confusion"], []
    present = [c for c, row in enumerate(confusion) if sum(row)]
    if len(present) == 1:
        why = "an accuracy on one class says nothing about the others"
        found.append(f"every review is {classes[present[0]]!r}: {why}")
    name, share = commonest(figures)
    if figures["accuracy_interval"][0] <= share < 1:
        what = f"no better than always {name!r}, as far as {figures['n']:,} reviews can tell"
        found.append(f"{what}: more epochs, more reviews, or another --lr?")
    guess = math.log(len(classes))
    if train_loss is not None and train_loss > guess / 2:
        what = f"the train loss ends at {train_loss:.2f}, where a guess has {guess:.2f}"
        lack = "hardly anything" if train_loss > 0.9 * guess else "not all"
        found.append(f"{what}: {lack} was learned. More --epochs, or twice the --lr")
    if len(present) < len(classes):
        absent = [name for c, name in enumerate(classes) if c not in present]
        found.append(f"no review here is {listed(absent)}: how well that is told, nobody sees")
    # An accuracy of 80 % where four in five reviews are positive may be a model that says
    # "positive" to everything. Then no negative review stands on the diagonal.
    lost = [c for c in present if confusion[c][c] == 0]
    if lost:
        n = sum(sum(confusion[c]) for c in lost)
        what = listed([classes[c] for c in lost])
        found.append(f"not one of the {n:,} reviews of {what} was recognised")
    return found


def listed(names, most=4):
    """Some names in words."""
    more = [f"{len(names) - most:,} others"] if len(names) > most + 1 else []
    names = names[:most] + more if more else names
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def shown_classes(figures):
    """[(name, its figures), ...]; of many classes those with the lowest F1 (run.json has all)."""
    rows = list(figures["per_class"].items())
    if len(rows) <= MANY:
        return rows
    return sorted((row for row in rows if row[1]["n"]), key=lambda row: row[1]["f1"])[:10]


def confused(figures, count=10):
    """The pairs of classes that are most often confused: [(is, called, reviews), ...]."""
    names, confusion = list(figures["per_class"]), figures["confusion"]
    pairs = [
        (confusion[a][b], a, b) for a in range(len(names)) for b in range(len(names)) if a != b
    ]
    pairs = sorted((-n, a, b) for n, a, b in pairs if n)[:count]
    return [(names[a], names[b], -n) for n, a, b in pairs]


def print_scores(figures, title, note="", train_loss=None):
    """Print a split's figures, each beside what to compare it with, and warnings.

    figures: of score(). train_loss: see warnings_for().
    """
    low, high = figures["accuracy_interval"]
    names, (always, common) = list(figures["per_class"]), commonest(figures)
    print()
    show(title, f"{figures['n']:,} reviews{note}")
    interval = f"95 % interval {low:.2%} to {high:.2%}"
    show("accuracy", f"{figures['accuracy']:.2%}   {interval}; always {always!r}: {common:.2%}")
    guess = f"a guess of 1/{len(names)} for each class: {math.log(len(names)):.4f}"
    show("loss", f"{figures['loss']:.4f}   {guess}")
    # Of that class precision is its share and recall 1; others that occur have an F1 of 0.
    one = 2 * common / (1 + common) / sum(f["n"] > 0 for f in figures["per_class"].values())
    show("macro F1", f"{figures['macro_f1']:.2%}   mean F1 of the classes; always one: {one:.2%}")
    wide = max(10, *map(len, names))
    rows = shown_classes(figures)
    if len(rows) < len(names):
        print(f"\nthe {len(rows)} classes of {len(names)} with the lowest F1")
    table = [f"{'':{wide}} precision    recall        F1   reviews"]
    for name, found in rows:
        keys = ("precision", "recall", "f1") if found["n"] else ()  # nothing is known of it
        shares = "  ".join(f"{found[key]:>8.2%}" for key in keys) or " " * 28
        table.append(f"{name:{wide}}  {shares}  {found['n']:>8,}")
    # The confusion matrix: beside the classes, where it fits.
    columns = [max(8, len(name)) for name in names]
    matrix = ["called " + "  ".join(f"{name:>{w}}" for name, w in zip(names, columns))]
    for row in figures["confusion"]:
        matrix.append(" " * 7 + "  ".join(f"{n:>{w},}" for n, w in zip(row, columns)))
    if len(table[0]) + 2 + len(matrix[0]) <= WIDTH and len(names) <= MANY:
        print("\n".join(f"{left}  {right}" for left, right in zip(table, matrix)))
    elif wide + 1 + len(matrix[0]) <= WIDTH and len(names) <= MANY:
        print("\n".join(table) + "\n")
        print("\n".join(f"{left:{wide}} {right}" for left, right in zip(["", *names], matrix)))
    else:
        print("\n".join(table) + "\n\nmost often confused")
        for name, other, n in confused(figures):
            print(f"{n:>8,}  is {name}, called {other}")
    for warning in warnings_for(figures, train_loss):
        print()
        show("warning:", warning)


def print_mistakes(logits, split, names, count=5):
    """The wrong answers the model was most sure of. Often the label is what is odd: read them."""
    sure, predicted = logits.softmax(dim=-1).max(dim=-1)  # probabilities [N], classes [N]
    wrong = surest_mistakes(logits, split["labels"])
    print(f"\n{len(wrong):,} mistakes; the surest, with the probability given to the answer")
    for i in wrong[:count]:
        text, truth = split["texts"][i], names[split["labels"][i]]
        text = text if len(text) <= 240 else text[:100] + " ... " + text[-130:]
        print(f"  {sure[i]:.3f} {names[predicted[i]]}, but is {truth}: {plain(text)}")
