"""Chapter 5 of 5: sentences of your own.

Teaches   inference: how a saved model answers a text that it has never seen. The text has to be
          cleaned, cut and padded as in training, so the model's folder says how.
Order     after finetune.py, which makes the folder.
Run       python predict.py "I regret watching this film" "Loved it"
          python predict.py --file reviews.csv --out predictions.csv
          python predict.py < lines.txt              one text a line
          python predict.py                          a prompt
Expect    for each text a label, its probability, and the text; with --json one object a line, for
          programs. Which words decided: python -m extras.explain "I regret watching this film"
Shows     $ python predict.py --model demo "I regret watching this film"
          negative   0.999  I regret watching this film
"""

import json
import sys

from dataset import clean, encode, make_collate, make_examples, special_ids
from evaluate import predict_logits, usual_batch_size
from model import PRECISIONS, choose_hardware, load_model
from support.devices import join
from support.errors import UserError, check_counts, make_parser, out_of_memory, plain, run_command
from support.files import check_target
from support.pretrained import choose_attention
from support.rows import answer_file
from support.windows import average, encode_windows


# ------------------------------------------------------------------------------ 1. ask the model
class Classifier:
    """A saved model, its tokenizer, and the way it was trained to read texts: all in one place.

    folder: what finetune.py saved. batch_size: texts at once; None for usual_batch_size().
    Raises UserError where the folder holds no model.
    """

    def __init__(self, folder, device, precision="fp32", batch_size=None):
        self.model, self.tokenizer, self.run = load_model(folder, device)
        choose_attention(self.model, device, precision)
        self.collate = make_collate(self.tokenizer.pad_token_id)
        self.names = self.run["labels"]  # C of them
        self.device, self.precision = device, precision
        self.batch_size = batch_size or usual_batch_size(device)

    def classify(self, texts, windows=False):
        """One (label, probability) for each text, in their order.

        Every text needs at least one word. A model that is asked about nothing answers all the
        same, and the answer means nothing. windows: read long texts whole, in windows that overlap.
        """
        texts, arguments = [clean(text) for text in texts], self.run["arguments"]
        if windows:
            input_ids, owners, _ = self.encode_windows(texts)
            return self.name(average(self.logits(input_ids), owners, len(texts)))
        # Cut as in training: a model that learned from the end of long reviews should get the end.
        how = arguments["max_length"], arguments["truncation"]
        input_ids, _ = encode(texts, self.tokenizer, *how)
        return self.name(self.logits(input_ids))

    def read_windows(self, text):
        """(answer, what each window says): the answer and its windows' answers as in classify().

        A window is a dict: "start" and "end" (its tokens), "input_ids", "label", "score".
        """
        input_ids, owners, spans = self.encode_windows([clean(text)])
        logits = self.logits(input_ids)  # [windows, C]
        windows = [
            {"start": start, "end": end, "input_ids": ids, "label": label, "score": score}
            for (start, end), ids, (label, score) in zip(spans, input_ids, self.name(logits))
        ]
        return self.name(average(logits, owners, 1))[0], windows

    def encode_windows(self, texts):
        """See support/windows.py."""
        whole, _ = encode(texts, self.tokenizer, 10**9, "head")  # 10^9: nothing is cut
        ends = special_ids(self.tokenizer)
        return encode_windows(whole, *ends, self.run["arguments"]["max_length"])

    def logits(self, input_ids):
        """The raw scores [N, C] of N lists of token ids."""
        examples = make_examples(input_ids, [0] * len(input_ids))  # labels that nobody will look at
        with out_of_memory(f"use --batch-size {max(1, self.batch_size // 2)}"):
            return predict_logits(
                self.model, examples, self.collate, self.device, self.precision, self.batch_size
            )

    def name(self, logits):
        """[(label, probability), ...] of logits [N, C]."""
        # Softmax makes the logits of a text positive, with the sum 1. The largest is the answer.
        # Its size says how sure the model is, which is not yet how often it is right.
        sure, predicted = logits.softmax(dim=-1).max(dim=-1)  # probabilities [N], classes [N]
        return [(self.names[c], p) for c, p in zip(predicted.tolist(), sure.tolist())]


# ------------------------------------------------------------------------------ 2. show
def show(text, label, score, as_json=False, error="", windows=()):
    """Print one answer. It is flushed, so that a program that reads along need not wait."""
    if as_json:
        answer = {"text": text, "label": label or None, "score": score or None}
        answer |= {"error": error} if error else {}
        if windows:
            keys = ("start", "end", "label", "score")
            answer["windows"] = [{key: one[key] for key in keys} for one in windows]
        print(json.dumps(answer), flush=True)
        return
    answer = f"({error})" if error else f"{label:10} {score:.3f}"
    print(f"{answer}  {plain(clean(text))}", flush=True)
    for one in windows:
        span = f"{one['start'] + 1}-{one['end']}"
        print(f"    tokens {span:12} {one['label']:10} {one['score']:.3f}  {one['text']}")


def typed_lines():
    """Yield texts from standard input: from a prompt where somebody sits, else line by line."""
    prompt = sys.stdin is not None and sys.stdin.isatty()
    if prompt:
        print("A review, then Enter; Ctrl-D ends.", file=sys.stderr)
    while sys.stdin is not None:  # None: closed by whoever started us
        try:
            line = input("> ") if prompt else next(sys.stdin)
        except (EOFError, StopIteration):
            return
        except UnicodeDecodeError as error:
            raise UserError("standard input is not UTF-8: save or convert it as UTF-8") from error
        if clean(line):
            yield line.rstrip("\n")


# ------------------------------------------------------------------------------ 3. a command
OPTIONS = (
    ("--model", str, "model", "a folder that finetune.py saved (default: model)"),
    ("--file", str, None, "a .csv, .tsv, .jsonl or .parquet file of texts"),
    ("--out", str, None, "with --file: a .csv file for text, label, predicted, score, error"),
    ("--resume", bool, False, "with --out: go on where a stopped run has come to"),
    ("--text-column", str, None, "column of the texts (default: as in training)"),
    ("--label-column", str, None, "column of the labels, if any (default: as in training)"),
    ("--json", bool, False, "one object a line: text, label, score"),
    ("--windows", bool, False, "read long texts whole, in windows that overlap"),
    ("--batch-size", int, None, "texts at once (default: 16 on a CPU, 128 on a GPU)"),
    ("--device", str, None, "cpu, cuda, mps, xpu (default: the best there is)"),
    ("--precision", PRECISIONS, None, "number format (default: fp32 for texts, so that other tools "
     "give the same probabilities; auto for --file, 16 bits where they are fast)"),
)


def main():
    parser = make_parser(__doc__, OPTIONS)
    parser.add_argument("texts", nargs="*", help="reviews of your own, each in quotes")
    args = parser.parse_args()
    check_arguments(args)
    wanted = args.precision or ("auto" if args.file else "fp32")
    device, precision, _ = choose_hardware(args.device, wanted)
    join(device)
    classifier = Classifier(args.model, device, precision, args.batch_size)
    if classifier.run["arguments"]["demo"]:
        print("(a rehearsal model: it has read made-up reviews only)", file=sys.stderr)
    if args.file:
        return answer_file(args, classifier, clean, show)
    if args.texts and not args.windows:  # they share batches
        for text, answer in zip(args.texts, classifier.classify(args.texts)):
            show(text, *answer, args.json)
        return None
    text = None
    for text in args.texts or typed_lines():  # each line is answered before the next is read
        if not args.windows:
            show(text, *classifier.classify([text])[0], args.json)
            continue
        answer, windows = classifier.read_windows(text)
        for one in windows:
            piece = plain(classifier.tokenizer.decode(one["input_ids"], skip_special_tokens=True))
            one["text"] = piece if len(piece) < 60 else f"{piece[:30]} ... {piece[-25:]}"
        show(text, *answer, args.json, windows=windows)
    if text is None and not (sys.stdin and sys.stdin.isatty()):
        raise UserError('nothing to read: python predict.py "a review", or --file reviews.csv')
    return None


def check_arguments(args):
    """Raise UserError for options that do not go together."""
    check_counts(args, "batch_size")
    if args.file and args.texts:
        raise UserError("texts on the command line or --file, not both")
    if args.out is not None and not args.file:
        raise UserError("--out goes with --file; other answers are printed (redirect them with >)")
    if args.resume and args.out is None:
        raise UserError("--resume goes with --file and --out")
    if args.out is not None:
        check_target(args.out, args.file, args.model)
    for number, text in enumerate(args.texts, start=1):
        if not clean(text):
            raise UserError(f"text {number} of {len(args.texts)} is empty: give it some words")


if __name__ == "__main__":
    run_command(main)
