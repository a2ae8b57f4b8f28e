"""Chapter 6: sentences of one's own.

Teaches   inference: texts are cleaned, cut and padded as they were in training, which is written in
          the model's folder.
Order     after evaluate.py; next is benchmark.py. make_classifier() is the chapter, and the rest is
          what a command line needs: files, pipes, a prompt, windows, explanations.
Run       python predict.py "I regret watching this film" "Loved it"
          python predict.py --file reviews.csv --out predictions.csv
          python predict.py < lines.txt              one text a line
          python predict.py                          a prompt
Expect    label, probability and text; with --json one object a line, for programs.
Shows     $ python predict.py --model demo "I regret watching this film"
          negative   0.999  I regret watching this film
"""

import json
import os
import sys
from pathlib import Path

# First: once errors.py is in, Ctrl-C ends in one line, also while torch is imported (seconds).
from errors import UserError, make_parser, out_of_memory, plain, run_command

import parallel
from attention import choose_attention
from checkpoint import load_model
from dataset import clean, encode, make_collate, make_examples
from evaluate import predict_logits, usual_batch_size
from explain import explain, print_explanation, write_page
from folder import check_target, write_whole
from hardware import choose_hardware
from rows import count_rows, file_digest, has_answers_to, predict_chunks, write_predictions
from windows import average, encode_windows

# What decides an answer: predict.py --resume must not mix two of them.
WEIGHTS_AND_WORDS = ("model.safetensors", "config.json", "tokenizer.json")


def make_classifier(folder, device, precision="fp32", batch_size=None, windows=False):
    """Load a saved model. Returns (classify, run, parts), run being the folder's run.json.

    classify(texts) gives one (label name, probability) per text, in their order. Every text needs a
    word at least: a model asked about nothing answers all the same, and the answer means nothing.
    windows: read long texts in windows (windows.py) and do not cut them. parts: (model, tokenizer,
    collate, classify_windows), for those who want to ask more. classify_windows(texts) gives, too,
    what each window says: a list of (number of its text, (start, end) of its tokens, its ids,
    (label name, probability)).
    """
    model, tokenizer, run = load_model(folder, device)
    choose_attention(model, device, precision)
    collate = make_collate(tokenizer.pad_token_id)
    arguments, names = run["arguments"], run["labels"]
    batch_size = batch_size or usual_batch_size(device)

    def ask(input_ids):
        examples = make_examples(input_ids, [0] * len(input_ids))  # labels that nobody will look at
        with out_of_memory(f"use --batch-size {max(1, batch_size // 2)}"):
            return predict_logits(model, examples, collate, device, precision, batch_size)  # [N, C]

    def name_answers(logits):
        # The largest is the answer; its size tells how sure the model is, which is not yet how
        # often it is right.
        sure, predicted = logits.softmax(dim=-1).max(dim=-1)  # probabilities [N], classes [N]
        return [(names[c], p) for c, p in zip(predicted.tolist(), sure.tolist())]

    def classify_windows(texts):
        texts = [clean(text) for text in texts]
        input_ids, owners, spans, _ = encode_windows(texts, tokenizer, arguments["max_length"])
        logits = ask(input_ids)  # [windows, C]; averaged over a text's windows below: [N, C]
        found = zip(owners, spans, input_ids, name_answers(logits))
        return name_answers(average(logits, owners, len(texts))), list(found)

    def classify(texts):
        if windows:
            return classify_windows(texts)[0]
        texts = [clean(text) for text in texts]
        input_ids, _ = encode(texts, tokenizer, arguments["max_length"], arguments["truncation"])
        return name_answers(ask(input_ids))

    return classify, run, (model, tokenizer, collate, classify_windows)


def show(text, label, score, as_json, error="", more=None):
    """Print one answer; flushed, so that a program that reads along does not wait for the next.

    more: further entries of the JSON object.
    """
    if as_json:
        answer = {"label": None, "score": None, "error": error}
        answer = answer if error else {"label": label, "score": score}
        print(json.dumps({"text": text} | answer | (more or {})), flush=True)
    else:
        answer = f"({error})" if error else f"{label:10} {score:.3f}"
        print(f"{answer}  {plain(clean(text))}", flush=True)


def show_windows(text, parts, as_json):
    """One text's answer, and under it what each of its windows says for itself."""
    _, tokenizer, _, classify_windows = parts
    answers, found = classify_windows([text])
    more = [
        {"start": start, "end": end, "label": label, "score": score}
        for _, (start, end), _, (label, score) in found
    ]
    show(text, *answers[0], as_json, more={"windows": more})
    for one, (_, _, input_ids, _) in zip(more, found) if not as_json else ():
        piece = plain(tokenizer.decode(input_ids, skip_special_tokens=True))
        shown = piece if len(piece) < 60 else f"{piece[:30]} ... {piece[-25:]}"
        span = f"{one['start'] + 1}-{one['end']}"
        print(f"    tokens {span:12} {one['label']:10} {one['score']:.3f}  {shown}")


def show_explanation(text, run, parts, device, as_json):
    """One text's answer and why. Returns (label, score, what explain() found)."""
    model, tokenizer, collate, _ = parts
    found = explain(model, tokenizer, collate, text, run["arguments"], device)
    label, score = run["labels"][found["target"]], found["score"]
    words = [
        {"word": word, "share": found["shares"].get(number, 0.0)}
        for number, word in enumerate(found["words"])
    ]
    show(text, label, score, as_json, more={"words": words, "gap": found["gap"]})
    if not as_json:
        print_explanation(found, label, sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    return label, score, found


def check_texts(texts):
    """Raise UserError if a text of the command line is empty."""
    for number, text in enumerate(texts, start=1):
        if not clean(text):
            raise UserError(f"text {number} of {len(texts)} is empty: give it some words")


def is_newer(out, *sources):
    """Whether `out` is there, not unfinished, and younger than all that it was made from."""
    if not Path(out).exists() or Path(f"{out}.unfinished").exists():
        return False
    times = [path.stat().st_mtime for path in map(Path, sources) if path.exists()]
    if len(times) < len(sources) or max(times) > Path(out).stat().st_mtime:
        raise UserError(
            f"{out} is there, but older than the file or the model, and nothing unfinished is "
            "beside it: delete it, or leave --resume out to write it again"
        )
    return True


def answer_file(args, run, classify, precision):
    """predict.py --file: to a CSV file, or to the terminal. Returns an exit code or None."""
    arguments, names = run["arguments"], run["labels"]
    text_column = args.text_column or arguments["text_column"]
    label_column = args.label_column or arguments["label_column"]
    wanted = {text_column: "--text-column"}
    if args.label_column:  # typed, so it has to be there
        wanted[label_column] = "--label-column"
    count = count_rows(args.file, wanted)
    weights = Path(args.model, WEIGHTS_AND_WORDS[0])
    if args.resume and is_newer(args.out, args.file, weights):
        if not has_answers_to(args.out, args.file, text_column):
            raise UserError(f"{args.out} holds answers to other texts than {args.file}: delete it")
        print(f"{args.out} is done. To answer anew, with other options: leave out --resume")
        return None

    def chunks(skip):
        return predict_chunks(args.file, text_column, label_column, names, classify, skip)

    if args.out is None:
        for chunk in chunks(0):
            for text, _, label, score, error in chunk:
                show(text, label, score, args.json, error)
        return None
    identity = {
        "the file": file_digest(args.file),
        "the model": [file_digest(Path(args.model, name)) for name in WEIGHTS_AND_WORDS],
        "the options": [text_column, label_column, precision, args.batch_size, names]
        + [arguments["max_length"], arguments["truncation"], args.windows],
    }
    try:
        rows, errors = write_predictions(args.out, count, chunks, identity, args.resume)
    except KeyboardInterrupt:
        print("\nstopped. To go on: the same command, with --resume", file=sys.stderr)
        return 130
    except OSError as error:  # a full disk
        raise UserError(
            f"{args.out} cannot be written ({error.strerror}). To go on: the same command, with "
            "--resume"
        ) from error
    print(f"{rows - errors.total():,} of {rows:,} rows predicted, in {args.out}")
    for error, number in errors.items():
        print(f"{number:,} rows have an error instead: {error}", file=sys.stderr)
    return None


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
        "--out", help="with --file: where to write text,label,predicted,score,error as CSV"
    )
    parser.add_argument(
        "--resume", action="store_true", help="with --out: go on where a stopped run has come to"
    )
    parser.add_argument("--text-column", help="column of the texts (default: as in training)")
    parser.add_argument(
        "--label-column", help="column of the labels, if any (default: as in training)"
    )
    parser.add_argument("--json", action="store_true", help="one object a line: text, label, score")
    parser.add_argument(
        "--windows", action="store_true", help="read long texts whole, in windows that overlap"
    )
    parser.add_argument(
        "--explain", action="store_true", help="show each word's share in the decision"
    )
    parser.add_argument("--html", metavar="FILE", help="with --explain: write a page, too")
    parser.add_argument(
        "--batch-size", type=int, help="texts at once (default: 16 on a CPU, 128 on a GPU)"
    )
    parser.add_argument("--device", help="cpu, cuda, mps, xpu (default: the best there is)")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16", "auto"),
        help="number format (default: fp32 for texts, so that other tools give the same "
        "probabilities; auto for --file, 16 bits where the hardware has them)",
    )
    args = parser.parse_args()
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: has to be 1 or more")
    if args.file and args.texts:
        raise UserError("texts on the command line or --file, not both")
    if args.out is not None and not args.file:
        raise UserError("--out goes with --file; other answers are printed (redirect them with >)")
    if args.resume and args.out is None:
        raise UserError("--resume goes with --file and --out")
    if args.out is not None:
        check_target(args.out, args.file, args.model)
    if args.explain and (args.file or args.windows):
        raise UserError("--explain is for texts as they are cut, not for --file or --windows")
    if args.html is not None:
        if not args.explain:
            raise UserError("--html goes with --explain")
        check_target(args.html, args.model)
    check_texts(args.texts)

    precision = args.precision or ("auto" if args.file else "fp32")
    device, precision, _ = choose_hardware(args.device, precision)
    parallel.join(device)
    classify, run, parts = make_classifier(
        args.model, device, precision, args.batch_size, args.windows
    )
    arguments = run["arguments"]
    if arguments["demo"]:
        print("(a rehearsal model: it has read made-up reviews only)", file=sys.stderr)

    if args.file:
        return answer_file(args, run, classify, precision)
    text, explained = None, []
    # Texts of the command line share batches; of typed lines each is answered before the next.
    answers = iter([] if args.explain or args.windows or not args.texts else classify(args.texts))
    for text in args.texts or typed_lines():
        if args.explain:
            explained.append(show_explanation(text, run, parts, device, args.json))
        elif args.windows:
            show_windows(text, parts, args.json)
        else:
            show(text, *(next(answers) if args.texts else classify([text])[0]), args.json)
    if args.html is not None:
        write_whole(args.html, write_page(explained))
        print(f"a page with the words in color is in {args.html}", file=sys.stderr)
    if text is None and not (sys.stdin and sys.stdin.isatty()):
        raise UserError('nothing to read: python predict.py "a review", or --file reviews.csv')
    return None


if __name__ == "__main__":
    run_command(main)
