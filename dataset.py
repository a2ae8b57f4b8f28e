"""Chapter 1: from a review to a batch.

Teaches   how text becomes the rectangles of integers that a model reads: cleaning, tokens,
          truncation, padding, attention masks, and batches of like length.
Order     first; next is splits.py.
Run       python dataset.py "It isn't good :(" "Loved it"
          python dataset.py --max-length 8 --truncation head "A film that takes its time, and mine"
Expect    every step for your own sentences: text, tokens, ids, what truncation cuts, and the padded
          batch with its mask drawn as a grid.
Shapes    in all chapters: B reviews in a batch, T tokens in its longest review, N reviews in a
          split, C classes; W numbers to a token, in H heads of D each. [B, T] is a table (a
          tensor) of B rows and T columns, [] a single number.
Shows     $ python dataset.py --model demo/untrained "It isn't good :(" "Loved it"
             [CLS]      it     isn       '       t    good       :       (   [SEP]
                 2     214     213       6      45     196      23       7       3
             [CLS]   loved      it   [SEP]   [PAD]   [PAD]   [PAD]   [PAD]   [PAD]
                 2     226     214       3       0       0       0       0       0
          attention_mask  [2, 9]: 1 a token to read, 0 padding
                 1       1       1       1       1       1       1       1       1
                 1       1       1       1       0       0       0       0       0
"""

import random
import re
import unicodedata

# First: once errors.py is in, Ctrl-C ends in one line, also while torch is imported (seconds).
from errors import UserError, make_parser, run_command

import torch
from tqdm import tqdm

from model import load_tokenizer  # the next chapter but one; nothing else of it is needed here

TRUNCATIONS = ("head", "tail", "head+tail")
LINE_BREAK = r"(?i)<br\s*/?>"  # as HTML writes it; checkpoint.py saves it with the tokenizer


# ------------------------------------------------------------------------------ 1. clean
def clean(text):
    """Return `text` with its HTML line breaks and runs of white space turned into single spaces.

    Nothing else. IMDB's texts were cut out of web pages: `<br />` has no opinion, and costs four
    tokens each time. Punctuation, "not" and ":(" have one, and the model met them all when it was
    pretrained: the stop-word lists of older recipes take away what it knows. Case is left to the
    tokenizer: an uncased one lowers it by itself, a cased one needs it.
    """
    # Half an emoji (a lone surrogate, from a cut string) is no character, and stops the tokenizer.
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    text = " ".join(re.sub(LINE_BREAK, " ", text).split())
    # Categories C and Z of Unicode: control characters, zero-width joiners, spaces of all kinds. A
    # text of nothing else is empty, however long it is.
    return "" if all(unicodedata.category(sign)[0] in "CZ" for sign in text) else text


# ------------------------------------------------------------------------------ 2. tokens and ids
def special_ids(tokenizer):
    """The ids a model expects around each text, as two lists: for BERT [101] and [102].

    101 is [CLS], which opens every text (DistilBERT's head reads the vector that comes out at its
    place), and 102 is [SEP], which closes it. Other models have other marks, so ask the tokenizer:
    encode a word with and without them, and look what was added.
    """
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return full[:start], full[start + len(bare) :]


def truncate(ids, room, how):
    """Cut a list of token ids to at most `room`: keep its head, its tail, or some of both.

    A model has a fixed number of positions (DistilBERT 512: one learned vector for "I am the 1st
    token", "the 2nd", ...), and attention, in which every token looks at every other, costs time
    and memory with the square of the length. Reviewers tell the plot first and give their verdict
    last, so the tail says more than the head; a quarter of head and three quarters of tail did best
    in Sun et al. 2019 ("How to Fine-Tune BERT for Text Classification?", 128 + 382 tokens of 510).
    """
    head = {"head": room, "tail": 0, "head+tail": room // 4}[how]
    if len(ids) <= room:
        return ids
    # Counted from the front, because with no tail ids[-0:] would be all of them.
    return ids[:head] + ids[len(ids) - (room - head) :]


def encode(texts, tokenizer, max_length, how, progress=False):
    """Turn texts into token ids, special ids included. Returns (input_ids, lengths).

    input_ids: a list of lists of at most max_length ids, not padded yet.
    lengths: what each list's length was before truncation.
    Done once, before training: the ids of a text are the same in every epoch.
    """
    before, after = special_ids(tokenizer)
    room = max_length - len(before) - len(after)
    input_ids, lengths = [], []
    with tqdm(
        total=len(texts), desc="tokenizing", unit=" reviews", disable=not progress, leave=False
    ) as bar:
        for start in range(0, len(texts), 1000):
            chunk = texts[start : start + 1000]
            # verbose=False: the library would warn of long texts, which are cut two lines below.
            encoded = tokenizer(chunk, add_special_tokens=False, verbose=False)
            for ids in encoded["input_ids"]:
                lengths.append(len(ids) + len(before) + len(after))
                input_ids.append(before + truncate(ids, room, how) + after)
            bar.update(len(chunk))
    return input_ids, lengths


def cut_shares(lengths, max_length):
    """(share of reviews that are cut, share of all tokens that is lost), both from 0 to 1."""
    cut = [length - max_length for length in lengths if length > max_length]
    return len(cut) / len(lengths), sum(cut) / sum(lengths)


# ------------------------------------------------------------------------------ 3. batches
def make_collate(pad_token_id):
    """Return `collate`, which turns a list of examples into one padded batch of tensors.

    A closure: the padding id belongs to the tokenizer, so it is fixed here, once, and the function
    that comes back needs nothing but the examples (DataLoader would take it as its collate_fn).
    """

    def collate(examples):
        """examples: dicts with "input_ids" (a list of ids) and "label" (a class number).

        A batch of two, T = 6 (0 is [PAD], 101 [CLS], 102 [SEP]):
            input_ids       101  3866  2009   102     0     0      "loved it"
                            101  2009  3475  1005  1056   102      "it isn't"
            attention_mask    1     1     1     1     0     0      1 = a real token, look at it
                              1     1     1     1     1     1      0 = padding, look away
        """
        lengths = torch.tensor([len(example["input_ids"]) for example in examples])  # [B]
        longest = int(lengths.max())  # T, of this batch alone: fewer columns to compute
        input_ids = torch.full((len(examples), longest), pad_token_id)  # [B, T]
        for row, example in enumerate(examples):
            input_ids[row, : len(example["input_ids"])] = torch.tensor(example["input_ids"])
        # From lengths, not from `input_ids != pad_token_id`: that would hide any real token that
        # happens to have the padding id. Column numbers [1, T] < lengths [B, 1] gives [B, T].
        attention_mask = (torch.arange(longest)[None, :] < lengths[:, None]).long()  # [B, T]
        labels = torch.tensor([example["label"] for example in examples])  # [B]
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}

    return collate


def make_examples(input_ids, labels):
    """Pair token ids with labels, as collate takes them."""
    return [{"input_ids": ids, "label": label} for ids, label in zip(input_ids, labels)]


POOL_OF_BATCHES = 64  # batches to a pool: large pools pad less, small ones mix more


def make_batches(lengths, batch_size, seed, epoch):
    """Deal all reviews into batches of like length. Returns lists of row numbers, each row once.

    Padding is computed like text and then thrown away. Random batches of 32 at 512 tokens are 48 %
    padding, because nearly every one holds a long review. So: shuffle, sort large pools of the
    shuffled rows by length, cut the pools into batches, and shuffle the batches. Which reviews
    share a batch still changes every epoch, and so does the order of the lengths.

    The order is a function of (seed, epoch) and nothing else: no hidden generator whose state
    depends on what ran before, so the order of any epoch can be dealt again.
    """
    generator = random.Random(f"{seed} {epoch}")
    rows = list(range(len(lengths)))
    generator.shuffle(rows)
    pool_size = POOL_OF_BATCHES * batch_size
    batches = []
    for start in range(0, len(rows), pool_size):
        pool = sorted(rows[start : start + pool_size], key=lambda i: lengths[i])
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    generator.shuffle(batches)
    return batches


def padding_share(lengths, batches):
    """The share of padding among all the cells [B, T] that the model has to compute, 0 to 1."""
    computed = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths[i] for batch in batches for i in batch) / computed


# ------------------------------------------------------------------------------ a sentence's way
def main():
    parser = make_parser(__doc__)
    parser.add_argument("texts", nargs="+", help="sentences of your own")
    parser.add_argument("--model", default="distilbert-base-uncased", help="whose tokenizer to use")
    parser.add_argument("--max-length", type=int, default=256, help="tokens kept of a text")
    parser.add_argument("--truncation", choices=TRUNCATIONS, default="head+tail")
    args = parser.parse_args()
    texts = [clean(text) for text in args.texts]
    if not all(texts):
        raise UserError("a text is empty: give it some words")
    if args.max_length < 3:
        raise UserError(f"--max-length {args.max_length}: has to be 3 or more, [CLS] token [SEP]")
    tokenizer = load_tokenizer(args.model)
    for text in texts:
        show_tokens(text, tokenizer, args.max_length, args.truncation)
    input_ids, _ = encode(texts, tokenizer, args.max_length, args.truncation)
    show_batch(
        make_collate(tokenizer.pad_token_id)(make_examples(input_ids, [0] * len(texts))), tokenizer
    )


def show_tokens(text, tokenizer, max_length, how):
    """Print one text's way to token ids, and what truncation leaves of it."""
    before, after = special_ids(tokenizer)
    tokens = tokenizer.tokenize(text)
    room = max_length - len(before) - len(after)
    kept = truncate(list(range(len(tokens))), room, how)  # which tokens, by their place
    shown = [
        ("" if i == 0 or kept[i - 1] == n - 1 else "[...] ") + tokens[n] for i, n in enumerate(kept)
    ]
    print(f"\ntext       {text}")
    print(f"words      {len(text.split())}: {' | '.join(text.split())}")
    print(f"tokens     {len(tokens)}: {' | '.join(tokens)}    (## continues a word)")
    print(f"ids        {' '.join(map(str, tokenizer.convert_tokens_to_ids(tokens)))}")
    if len(kept) == len(tokens):
        print(
            f"truncated  no: {len(tokens)} tokens fit into the {room} that are left of {max_length}"
        )
    else:
        print(
            f"truncated  {how} to {room} tokens, which with {len(before + after)} special ones are "
            f"{max_length}: {len(tokens) - len(kept)} cut, kept: {' '.join(shown)}"
        )


def show_batch(batch, tokenizer):
    """Print a padded batch, ids under their tokens, and its mask."""
    print(
        f"\ninput_ids       {list(batch['input_ids'].shape)}: B reviews x T tokens, padded at the "
        "end"
    )
    for row in batch["input_ids"].tolist():
        words = tokenizer.convert_ids_to_tokens(row)
        print("".join(f"{word:>{max(8, len(word) + 2)}}" for word in words))
        print("".join(f"{i:>{max(8, len(word) + 2)}}" for i, word in zip(row, words)))
    print(f"attention_mask  {list(batch['attention_mask'].shape)}: 1 a token to read, 0 padding")
    for row in batch["attention_mask"].tolist():
        print("".join(f"{bit:>8}" for bit in row))


if __name__ == "__main__":
    run_command(main)
