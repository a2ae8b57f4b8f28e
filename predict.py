"""Chapter 5 of 5: sentences of your own.

Teaches   inference: how a saved model answers a text that it has never seen. The text has to be
          cleaned, cut and padded as in training; else the model is asked in another language than
          it was taught. So the folder of a model holds its tokenizer and, in run.json, how its
          texts were prepared. Two things are forgotten most often. Without eval mode dropout gives
          another answer each time (predict_logits() sees to it). And without the names of the
          classes an answer is "LABEL_1".
Order     after finetune.py, which makes the folder. It is the last chapter.
Run       python predict.py "I regret watching this film" "Loved it"
          python predict.py --file reviews.csv --out predictions.csv
          python predict.py < lines.txt              one text a line
          python predict.py                          a prompt
Expect    for each text a label, its probability, and the text; with --json one object a line, for
          programs. A file of any length is answered row by row; a row that cannot be used gets an
          error in its place, and a stopped run goes on with --resume. Which words decided:
          python -m extras.explain "I regret watching this film"
Shows     $ python predict.py --model demo "I regret watching this film"
          negative   0.999  I regret watching this film
"""

import json
import sys

from dataset import clean, encode, make_collate, make_examples, special_ids
from evaluate import predict_logits, usual_batch_size
from model import choose_hardware, load_model
from support.devices import join
from support.errors import READING, UserError, make_parser, out_of_memory, plain, run_command
from support.rows import answer_file, check_asked, typed_lines
from support.pretrained import find_model
from support.windows import average, encode_windows


# ------------------------------------------------------------------------------ 1. ask the model
class Classifier:
    """A saved model, its tokenizer, and the way it was trained to read texts: all in one place.

    This is what to copy into a program of your own: make one, keep it, and call classify().
    folder: what finetune.py saved, or any classifier that transformers can load; or its name on the
    hub. precision: with fp32 other programs, such as transformers' pipeline(), get the same
    probabilities; 16 bits round them, and save time on many texts where the hardware has them.
    batch_size: texts at once; None for usual_batch_size(). max_length: tokens to read of a text;
    None for as many as in training. Raises UserError where the folder holds no model.
    """

    def __init__(self, folder, device, precision="fp32", batch_size=None, max_length=None):
        self.folder = find_model(folder)
        how = device, precision, max_length
        self.model, self.tokenizer, self.run = load_model(self.folder, *how)
        self.collate = make_collate(self.tokenizer.pad_token_id)
        self.names = self.run["labels"]  # C of them
        self.device, self.precision = device, precision
        self.batch_size = batch_size

    def classify(self, texts, windows=False):
        """One (label, probability) for each text, in their order.

        The steps are those of training, with the same functions: clean, encode, pad, ask. Every
        text needs at least one word. A model that is asked about nothing answers all the same, and
        the answer means nothing. windows: read long texts whole, in windows that overlap.
        """
        texts, arguments = [clean(text) for text in texts], self.run["arguments"]
        if windows:
            input_ids, owners, _ = self.encode_windows(texts)
            return self.name(average(self.logits(input_ids), owners, len(texts)))
        # Cut as in training: a model that learned from the end of long reviews should get the end.
        # run.json says how many tokens it read, and which.
        how = arguments["max_length"], arguments["truncation"]
        input_ids, _ = encode(texts, self.tokenizer, *how)
        return self.name(self.logits(input_ids))

    def read_windows(self, text):
        """(answer, what each window says): the answer and its windows' answers as in classify().

        A window is a dict: "start" and "end" (its tokens), "input_ids", "label", "score".
        """
        # A window is what the model can read at once. It gets the special ids at its ends, as every
        # text does, and shares a quarter of its tokens with the next window.
        input_ids, owners, spans = self.encode_windows([clean(text)])
        logits = self.logits(input_ids)  # [windows, C]
        windows = [
            {"start": start, "end": end, "input_ids": ids, "label": label, "score": score}
            for (start, end), ids, (label, score) in zip(spans, input_ids, self.name(logits))
        ]
        return self.name(average(logits, owners, 1))[0], windows

    def encode_windows(self, texts):
        """Overlapping windows of texts: lists of ids, numbers of their texts, (start, end)."""
        whole, _ = encode(texts, self.tokenizer, 10**9, "head")  # 10^9: nothing is cut
        ends = special_ids(self.tokenizer)
        return encode_windows(whole, *ends, self.run["arguments"]["max_length"])

    def logits(self, input_ids):
        """The raw scores [N, C] of N lists of token ids."""
        # collate wants labels, and nobody will look at them: any will do.
        examples = make_examples(input_ids, [0] * len(input_ids))
        half = max(1, (self.batch_size or usual_batch_size(self.device)) // 2)
        with out_of_memory(f"use --batch-size {half}"):
            return predict_logits(
                self.model, examples, self.collate, self.device, self.precision, self.batch_size
            )

    # The model answers with numbers; the names of the classes stand in run.json, in the order of
    # the logits. They were found in the labels of its training data.
    def name(self, logits):
        """[(label, probability), ...] of logits [N, C]."""
        # Softmax makes the logits of a text positive, with the sum 1. (dim=-1: along the last
        # dimension, the classes.) The largest is the answer. Its size says how sure the model is,
        # and not how often it is right: models are often surer than they should be (python -m
        # extras.calibration measures it). And a recipe gets an answer, too, perhaps a sure one.
        sure, predicted = logits.softmax(dim=-1).max(dim=-1)  # probabilities [N], classes [N]
        return [(self.names[c], p) for c, p in zip(predicted.tolist(), sure.tolist())]


# ------------------------------------------------------------------------------ 2. show
def show(text, label, score, as_json=False, error="", windows=()):
    """Print one answer: for people a line, with --json an object for programs.

    A text can hold anything, also signs that would clear a terminal or pretend to be another answer
    in the next line: plain() makes them spaces. error: why there is no answer. windows: what each
    window of a long text says. It is flushed, so that a program that reads along need not wait.
    """
    if as_json:
        answer = {"text": text, "label": label or None, "score": score or None}
        answer |= {"error": error} if error else {}
        if windows:
            keys = ("start", "end", "label", "score")
            answer["windows"] = [{key: one[key] for key in keys} for one in windows]
        print(json.dumps(answer), flush=True)
        return
    # Three digits: more of them would look like knowledge that the model does not have.
    answer = f"({error})" if error else f"{label:10} {score:.3f}"
    print(f"{answer}  {plain(clean(text))}", flush=True)
    for one in windows:
        span = f"{one['start'] + 1}-{one['end']}"
        print(f"    tokens {span:12} {one['label']:10} {one['score']:.3f}  {one['text']}")


# ------------------------------------------------------------------------------ 3. a command
def main():
    """Answer the texts of the command line, of a file, or of standard input."""
    options = f"model max-length file out resume {READING} json windows batch-size device precision"
    parser = make_parser(__doc__, options, precision=None, max_length=None)
    parser.add_argument("texts", nargs="*", help="reviews of your own, each in quotes")
    args = parser.parse_args()
    check_asked(args, clean)
    # A few texts in 32 bits, so that other programs agree; a file in 16, where those are faster.
    wanted = args.precision or ("auto" if args.file else "fp32")
    device, precision, _ = choose_hardware(args.device, wanted)
    join(device)  # torchrun: several processes share the rows of a file
    classifier = Classifier(args.model, device, precision, args.batch_size, args.max_length)
    # For a few texts starting takes nearly all of the time: importing torch and transformers, and
    # reading the weights. Whoever asks often should keep the Classifier, as extras.app does.
    if classifier.run["arguments"]["demo"]:
        print("(a rehearsal model: tiny, and not pretrained)", file=sys.stderr)
    if args.file:
        return answer_file(args, classifier, clean, show)
    # Texts of the command line are all there: they share batches. A typed line is answered before
    # the next one is read, or a conversation would be impossible.
    if args.texts and not args.windows:
        for text, answer in zip(args.texts, classifier.classify(args.texts)):
            show(text, *answer, args.json)
        return
    text, windows = None, ()
    for text in args.texts or typed_lines(clean, args.encoding):
        if args.windows:
            answer, windows = classifier.read_windows(text)
        else:
            (answer,) = classifier.classify([text])
        for one in windows:
            piece = plain(classifier.tokenizer.decode(one["input_ids"], skip_special_tokens=True))
            one["text"] = piece if len(piece) < 60 else f"{piece[:30]} ... {piece[-25:]}"
        show(text, *answer, args.json, windows=windows)
    # Not one text, and nobody at a prompt who wanted it so: say how to ask.
    if text is None and not (sys.stdin and sys.stdin.isatty()):
        raise UserError('nothing to read: python predict.py "a review", or --file reviews.csv')


if __name__ == "__main__":
    run_command(main)
