"""Appendix N: reviews that are longer than the model can read.

Teaches   to read all of a long text in windows that overlap, and to average what they say. The
          price is a forward pass for each window; what it gains over cutting has to be measured.
Order     after predict.py, whose --windows this is (evaluate.py has it too).
Run       python windows.py --max-length 16 "A long text of your own, ..."
          python predict.py --windows "A long text of your own, ..."
          python evaluate.py --windows
Expect    the windows of a text: which tokens each of them holds.
Shows     $ python windows.py --model demo/untrained --max-length 6 "I regret watching this film"
          7 tokens in 2 windows of at most 6
          tokens 1-4: [CLS] i regret watching this [SEP]
          tokens 2-5: [CLS] regret watching this film [SEP]
"""

import torch

from dataset import encode, special_ids
from errors import UserError, make_parser, run_command
from model import load_tokenizer


def split_windows(length, room):
    """[(start, end), ...]: windows of at most `room` tokens that cover `length` tokens.

    Neighbours share a quarter, so that a sentence which one cuts is whole in the other. The last
    window is moved back until it is full: a short rest of a text would be judged by little.
    """
    if length <= room:
        return [(0, length)]
    step = max(1, room - room // 4)
    starts = list(range(0, length - room, step)) + [length - room]
    return [(start, start + room) for start in starts]


def encode_windows(texts, tokenizer, max_length, progress=False):
    """Token ids of all windows of all texts. Returns (input_ids, owners, spans, lengths).

    input_ids: a list of lists of at most max_length ids, special ones included. owners: of each
    window the number of its text. spans: its (start, end) in the tokens of the text. lengths: of
    the whole texts, special tokens included.
    """
    before, after = special_ids(tokenizer)
    room = max_length - len(before) - len(after)
    whole, lengths = encode(texts, tokenizer, 10**9, "head", progress)  # 10^9: nothing is cut
    input_ids, owners, spans = [], [], []
    for number, ids in enumerate(whole):
        ids = ids[len(before) : len(ids) - len(after)]
        for start, end in split_windows(len(ids), room):
            input_ids.append(before + ids[start:end] + after)
            owners.append(number)
            spans.append((start, end))
    return input_ids, owners, spans, lengths


def average(logits, owners, count):
    """The mean of the logits of each text's windows. logits: [windows, C]. Returns [count, C].

    Of logits and not of probabilities: a window that is sure should count more than one that is
    not, and a probability can hardly say so, because it ends at 1.
    """
    owners = torch.as_tensor(owners)
    sums = torch.zeros(count, logits.shape[1]).index_add_(0, owners, logits)
    return sums / torch.bincount(owners, minlength=count)[:, None]


def main():
    parser = make_parser(__doc__)
    parser.add_argument("text", help="a text of your own")
    parser.add_argument("--model", default="distilbert-base-uncased", help="whose tokenizer to use")
    parser.add_argument("--max-length", type=int, default=256, help="tokens in a window")
    args = parser.parse_args()
    if args.max_length < 3:
        raise UserError(f"--max-length {args.max_length}: has to be 3 or more")
    tokenizer = load_tokenizer(args.model)
    input_ids, _, spans, lengths = encode_windows([args.text], tokenizer, args.max_length)
    print(f"{lengths[0]:,} tokens in {len(spans)} windows of at most {args.max_length}")
    for ids, (start, end) in zip(input_ids, spans):
        tokens = tokenizer.convert_ids_to_tokens(ids)
        print(f"tokens {start + 1}-{end}: {' '.join(tokens)}")


if __name__ == "__main__":
    run_command(main)
