"""Chapter 6: sentences of one's own.

Teaches   inference: the same steps as in training, read from the saved model, and nothing else.
Order     last of the six; after it, change something and see what happens.
Run       python predict.py "I regret watching this film" "Loved it"
          python predict.py --file reviews.csv --out predictions.csv
          python predict.py < lines.txt              one text a line
          python predict.py                          a prompt
Expect    label, probability and text; with --json one object a line, for programs.
"""

import json
import sys
from itertools import islice
from pathlib import Path

from tqdm import tqdm

import parallel
from attention import choose_attention
from checkpoint import load_model
from dataset import clean, encode, make_collate, make_examples
from errors import UserError, make_parser, out_of_memory, run_command
from evaluate import check_target, predict_logits, save_predictions
from model import choose_hardware
from sources import check_columns, label_index, read_rows


def make_classifier(folder, device, precision="fp32", batch_size=None):
    """Load a saved model. Returns (classify, run), run being the folder's run.json.

    classify(texts) gives one (label name, probability) per text, in their order. Every text needs a
    word at least: a model asked about nothing answers all the same, and the answer means nothing.
    """
    model, tokenizer, run = load_model(folder, device)
    choose_attention(model, device, precision)
    collate = make_collate(tokenizer.pad_token_id)
    arguments, names = run["arguments"], run["labels"]

    def classify(texts):
        texts = [clean(text) for text in texts]
        input_ids, _ = encode(texts, tokenizer, arguments["max_length"], arguments["truncation"])
        examples = make_examples(input_ids, [0] * len(texts))  # labels that nobody will look at
        with out_of_memory(f"use --batch-size {max(1, (batch_size or 16) // 2)}"):
            # [N, C]
            logits = predict_logits(model, examples, collate, device, precision, batch_size)
        # Softmax makes logits positive, and their sum 1. The largest is the answer; its size tells
        # how sure the model is, which is not yet how often it is right.
        scores, predicted = logits.softmax(dim=-1).max(dim=-1)  # [N], [N]
        return [(names[c], score) for c, score in zip(predicted.tolist(), scores.tolist())]

    return classify, run


def show(text, label, score, as_json):
    """Print one answer; flushed, so that a program that reads along does not wait for the next."""
    if as_json:
        print(json.dumps({"text": text, "label": label, "score": score}), flush=True)
    else:
        print(f"{label or '(no text)':10} {score or 0:.3f}  {clean(text)}", flush=True)


def check_texts(texts):
    """Raise UserError if a text of the command line is empty."""
    for number, text in enumerate(texts, start=1):
        if not clean(text):
            raise UserError(f"text {number} of {len(texts)} is empty: give it some words")


def predict_file(path, wanted, label_column, names, classify, chunk_size=1024):
    """Yield (text, label, predicted, score) for every row of a file, in order, a chunk at a time.

    wanted: {column: the option that names it}, the columns that have to be there, texts first.
    A chunk is long enough to be sorted by length inside, and short enough for any memory. A row
    without text keeps its place, with predicted and score left empty.
    """
    # The first pass only reads: it finds a broken line before an hour of work, not after.
    count = 0
    for count, row in enumerate(read_rows(path), start=1):
        if count == 1:
            check_columns(row, wanted, path)
    if count == 0:
        raise UserError(f"{path} has column names but no rows")

    text_column, rows, empty = next(iter(wanted)), read_rows(path), 0
    with tqdm(total=count, desc=Path(path).name, unit=" rows") as bar:
        while chunk := list(islice(rows, chunk_size)):
            texts = [row.get(text_column) for row in chunk]
            texts = [text if isinstance(text, str) else "" for text in texts]
            usable = [i for i, text in enumerate(texts) if clean(text)]
            answers = dict(zip(usable, classify([texts[i] for i in usable]) if usable else []))
            for i, row in enumerate(chunk):
                label, score = answers.get(i, ("", None))
                yield texts[i], known_label(row.get(label_column), names), label, score
            empty += len(chunk) - len(usable)
            bar.update(len(chunk))
    if empty:
        print(
            f"{empty:,} of {count:,} rows have no text (empty, or no string), so no prediction",
            file=sys.stderr,
        )


def known_label(value, names):
    """A row's own label under the model's name for it; as it stands where the model has none."""
    try:
        index = label_index(value, names)
    except UserError:
        return value
    return "" if index is None else names[index]


def typed_lines():
    """Yield texts from standard input: from a prompt where somebody sits, else line by line."""
    if sys.stdin is None:  # closed by whoever started us
        return
    if sys.stdin.isatty():
        print("A review, then Enter; Ctrl-D ends.", file=sys.stderr)
    while True:
        try:
            line = input("> ") if sys.stdin.isatty() else next(sys.stdin)
        except (EOFError, StopIteration):
            return
        except UnicodeDecodeError as error:
            raise UserError("standard input is not UTF-8: save or convert it as UTF-8") from error
        if clean(line):
            yield line.rstrip("\n")


def main():
    parser = make_parser(__doc__)
    parser.add_argument("texts", nargs="*", help="reviews of your own, each in quotes")
    parser.add_argument(
        "--model", default="model", help="a folder that finetune.py saved (default: model)"
    )
    parser.add_argument(
        "--file", help="a .csv, .tsv, .jsonl or .parquet file with a column of texts"
    )
    parser.add_argument(
        "--out", help="with --file: where to write text,label,predicted,score as CSV"
    )
    parser.add_argument("--text-column", help="column of the texts (default: as in training)")
    parser.add_argument(
        "--label-column", help="column of the labels, if any (default: as in training)"
    )
    parser.add_argument("--json", action="store_true", help="one object a line: text, label, score")
    parser.add_argument(
        "--batch-size", type=int, help="texts at once (default: 16 on a CPU, 128 on a GPU)"
    )
    parser.add_argument("--device", help="cpu, cuda, mps, xpu (default: the best there is)")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16", "auto"),
        help="number format (default: fp32 for texts, whose probabilities other tools repeat; auto "
        "for --file, 16 bits where the hardware has them)",
    )
    args = parser.parse_args()
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: has to be 1 or more")
    if args.file and args.texts:
        raise UserError("texts on the command line or --file, not both")
    if args.out is not None and not args.file:
        raise UserError("--out goes with --file; other answers are printed (redirect them with >)")
    if args.out is not None:
        check_target(args.out, args.file, args.model)
    check_texts(args.texts)

    precision = args.precision or ("auto" if args.file else "fp32")
    device, precision, _ = choose_hardware(args.device, precision)
    parallel.join(device)
    classify, run = make_classifier(args.model, device, precision, args.batch_size)
    arguments = run["arguments"]
    if arguments["demo"]:
        print("(a rehearsal model: it has read made-up reviews only)", file=sys.stderr)

    if args.file:
        wanted = {args.text_column or arguments["text_column"]: "--text-column"}
        if args.label_column:  # typed, so it has to be there
            wanted[args.label_column] = "--label-column"
        label_column = args.label_column or arguments["label_column"]
        answers = predict_file(args.file, wanted, label_column, run["labels"], classify)
        # With torchrun, one process writes. The others walk through the rows all the same, because
        # their share of each chunk is needed, and what they print goes nowhere.
        if args.out and parallel.rank() == 0:
            save_predictions(args.out, answers)
            print(f"predictions are in {args.out}")
        else:
            for text, _, label, score in answers:
                show(text, label, score, args.json)
        return
    if args.texts:
        for text, (label, score) in zip(args.texts, classify(args.texts)):
            show(text, label, score, args.json)
        return
    text = None
    for text in typed_lines():
        show(text, *classify([text])[0], args.json)
    if text is None and not (sys.stdin and sys.stdin.isatty()):
        raise UserError('nothing to read: python predict.py "a review", or --file reviews.csv')


if __name__ == "__main__":
    run_command(main)
