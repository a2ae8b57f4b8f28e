"""Chapter 1: from a review to a batch.

Teaches   how text becomes the rectangles of integers that a model reads: cleaning, tokens,
          truncation, padding, attention masks, batches; and how to split the data so that a good
          score is earned.
Order     first; next is model.py. (sources.py, which reads files and asks the hub, can wait.)
Run       python dataset.py "It isn't good :(" "Loved it"
          python dataset.py --max-length 8 --truncation head "A film that takes its time, and mine"
Expect    every step for your own sentences: text, tokens, ids, what truncation cuts, and the padded
          batch with its mask drawn as a grid.
"""

import random
import re
from collections import Counter

import torch
from tqdm import tqdm

from errors import UserError, make_parser, run_command
from sources import find_label_names, label_index, load_source

TRUNCATIONS = ("head", "tail", "head+tail")
LINE_BREAK = r"<br ?/?>"  # as HTML writes it; checkpoint.py puts the same into the saved tokenizer


# ------------------------------------------------------------------------------ 1. clean
def clean(text):
    """Return `text` with its HTML line breaks and runs of white space turned into single spaces.

    Nothing else. The 8,000 `<br />` of IMDB's scraped pages carry no opinion and cost four tokens
    each. But case, punctuation, "not" and ":(" do carry opinion, and the model has seen all of them
    in pretraining: the lower-casing and stop-word lists of older recipes take away what it knows.
    """
    return " ".join(re.sub(LINE_BREAK, " ", text).split())


# ------------------------------------------------------------------------------ 2. three splits
def load_splits(data, text_column="text", label_column="label", seed=42, subset=None, names=None):
    """Load a data set and divide it by role. Returns (splits, names, notes).

    splits: {"train": ..., "validation": ..., "test": ...}, each a dict of two equally long lists,
        "texts" (cleaned strings) and "labels" (class numbers).
        train       the model learns from it;
        validation  held out from train; alone decides which epoch's model is kept;
        test        read once, at the very end. It chooses nothing, so it cannot flatter.
    names: the class names, found in the labels unless they are given (by a model trained before).
    notes: what was dropped, held out or drawn, one printable line each.
    Raises UserError when a split ends up without one of the classes.
    """
    if subset is not None and subset < 1:
        raise UserError(f"--subset {subset}: the number of reviews has to be 1 or more")
    notes, splits = [], {}
    found = load_source(data, text_column, label_column)
    names = names or find_label_names(found["train"][1])
    for role, (texts, labels) in found.items():
        splits[role] = usable_rows(texts, labels, names, role, notes)

    for role in ("test", "validation"):
        if role not in splits:
            hold_out(splits, role, seed, notes)
    drop_copies(splits, notes)

    for role in ("train", "validation", "test"):
        labels = splits[role]["labels"]
        if subset is not None and subset > len(labels) and role == "train":
            notes.append(
                f"--subset {subset:,} is more than the {len(labels):,} there are: using all"
            )
        if subset is not None:
            splits[role] = take(splits[role], draw(labels, subset, seed, equal=role == "train"))
        absent = [names[c] for c in range(len(names)) if c not in splits[role]["labels"]]
        if absent:
            raise UserError(
                f"the {role} split ({len(splits[role]['labels'])} reviews) has no "
                f"{' and no '.join(absent)} review: it takes more data, or a larger --subset"
            )
    return splits, names, notes


def usable_rows(texts, labels, names, role, notes):
    """Clean the texts, number the labels, and leave out the rows that lack one or the other."""
    kept = {"texts": [], "labels": []}
    for text, label in zip(texts, labels):
        text, label = clean(str(text or "")), label_index(label, names)
        if text and label is not None:
            kept["texts"].append(text)
            kept["labels"].append(label)
    if len(kept["texts"]) < len(texts):
        dropped = len(texts) - len(kept["texts"])
        notes.append(f"{role}: dropped {dropped:,} rows with an empty or missing text or label")
    return kept


def hold_out(splits, role, seed, notes, share=0.1):
    """Move `share` of the train rows to a new split: one contiguous run of rows from each label.

    Why a run, and not the usual random rows? IMDB's rows stand in runs: up to 30 reviews of one
    film, then the next film. Draw at random, and 97 % of the held-out reviews are about a film that
    is also in train. A rule that never reads a word and only recognises the film then scores 85 %,
    and the validation split praises the model for knowing films. A contiguous run holds whole
    films. Those at its two ends could still be shared, so up to 30 rows on either side are left out
    altogether.

        rows of one label   f1 f1 f1 f2 f2 f3 f3 f3 f4 f4 f4 f5 f5      (f = film)
        role                train ----- gap validation gap train --

    (A held-out film can still be in train under the other label, so this validation score errs a
    little on the low side.) Where the rows of a file are in no order, a run is as good as a draw.
    """
    train = splits["train"]
    generator = random.Random(f"{seed} {role}")
    kept, held = [], []
    for label in sorted(set(train["labels"])):
        rows = [i for i, other in enumerate(train["labels"]) if other == label]
        size = max(1, round(share * len(rows)))
        gap = min(30, size // 10)
        start = generator.randint(0, len(rows) - size)
        held += rows[start : start + size]
        kept += rows[: max(0, start - gap)] + rows[start + size + gap :]
    skipped = len(train["labels"]) - len(kept) - len(held)
    notes.append(
        f"{role}: held out {len(held):,} train rows as runs, {skipped:,} beside them unused"
    )
    splits[role], splits["train"] = take(train, sorted(held)), take(train, sorted(kept))


def drop_copies(splits, notes):
    """No text may stand on two sides: a copy in test is a leaked answer. The copy leaves train."""
    for role, others in (("validation", ["test"]), ("train", ["test", "validation"])):
        elsewhere = {text for other in others for text in splits[other]["texts"]}
        kept = [i for i, text in enumerate(splits[role]["texts"]) if text not in elsewhere]
        copies = len(splits[role]["texts"]) - len(kept)
        if copies:
            notes.append(
                f"{role}: dropped {copies:,} exact copies of {' or '.join(others)} reviews"
            )
        splits[role] = take(splits[role], kept)


def draw(labels, count, seed, equal):
    """Choose at most `count` row numbers at random, never just the first: those are all negative.

    equal=True takes as many of each class (for training: the rarer class is not drowned out);
    equal=False keeps the classes' own shares (for a split whose score must speak for all the rows).
    """
    order = list(range(len(labels)))
    random.Random(seed).shuffle(order)
    size, rank, keys = Counter(labels), Counter(), {}
    for i in order:
        # Equal: every class deals its 1st row, then its 2nd, ... In shares: each class spreads its
        # rows evenly over the interval 0 to 1, and the front of that interval is taken.
        keys[i] = rank[labels[i]] if equal else (rank[labels[i]] + 0.5) / size[labels[i]]
        rank[labels[i]] += 1
    return sorted(sorted(order, key=keys.get)[:count])


def take(split, rows):
    """The given rows of a split, as a split."""
    return {column: [values[i] for i in rows] for column, values in split.items()}


# ------------------------------------------------------------------------------ 3. tokens and ids
def special_ids(tokenizer):
    """The ids a model expects around each text: ([CLS] id], [[SEP] id]) for BERT and its kin.

    [CLS] opens every text (DistilBERT's head reads its vector), [SEP] closes it. Other models use
    other marks, so ask the tokenizer: encode a word with and without them, and look what was added.
    """
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return full[:start], full[start + len(bare) :]


def truncate(ids, room, how):
    """Cut a list of token ids to at most `room`: keep the head, the tail, or some of both.

    Models have a fixed number of positions (DistilBERT 512), and attention costs time and memory
    with the square of the length. Reviewers tell the plot first and give their verdict last, so the
    tail says more than the head; a quarter of head and three quarters of tail did best in Sun et
    al. 2019 ("How to Fine-Tune BERT for Text Classification?", 128 + 382 tokens of 510).
    """
    head = {"head": room, "tail": 0, "head+tail": room // 4}[how]
    if len(ids) <= room:
        return ids
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


# ------------------------------------------------------------------------------ 4. batches
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
        longest = int(
            lengths.max()
        )  # T: of this batch, not of the data set: fewer columns to compute
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


def make_batches(lengths, batch_size, seed, epoch):
    """Deal all reviews into batches of like length. Returns lists of row numbers, each row once.

    Padding is computed like text and then thrown away. Random batches of 32 at 512 tokens are 46 %
    padding, because nearly every one holds a long review. So: shuffle, sort large pools of the
    shuffled rows by length, cut the pools into batches, and shuffle the batches. Who meets whom
    still changes every epoch, and so does the order of the lengths.

    The order is a function of (seed, epoch) and nothing else: no hidden generator whose state
    depends on what ran before, so any epoch can be run again, or resumed in its middle.
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


# Batches to a pool: large pools pad less, small ones mix more.
POOL_OF_BATCHES = 64


def padding_share(lengths, batches):
    """The share of padding among all the positions that the model has to compute, 0 to 1."""
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
    from model import load_tokenizer

    tokenizer = load_tokenizer(args.model)
    show_steps(args.texts, tokenizer, args.max_length, args.truncation)


def show_steps(texts, tokenizer, max_length, how):
    """Print each step of this chapter for a few texts."""
    texts = [clean(text) for text in texts]
    if not all(texts):
        raise UserError("a text is empty: give it some words")
    before, after = special_ids(tokenizer)
    room = max_length - len(before) - len(after)
    if room < 1:
        raise UserError(f"--max-length {max_length}: has to be 3 or more ([CLS], a token, [SEP])")
    for text in texts:
        tokens = tokenizer.tokenize(text)
        ids = tokenizer.convert_tokens_to_ids(tokens)
        kept = truncate(ids, room, how)
        print(f"\ntext       {text}")
        print(f"words      {len(text.split())}: {' | '.join(text.split())}")
        print(f"tokens     {len(tokens)}: {' | '.join(tokens)}    (## continues a word)")
        print(f"ids        {' '.join(map(str, ids))}")
        words = " ".join(tokenizer.convert_ids_to_tokens(kept))
        print(f"truncated  {how} to {max_length}: {len(ids) - len(kept)} tokens cut, kept: {words}")

    input_ids, _ = encode(texts, tokenizer, max_length, how)
    batch = make_collate(tokenizer.pad_token_id)(make_examples(input_ids, [0] * len(texts)))
    print(
        f"\nbatch      input_ids {list(batch['input_ids'].shape)}: "
        "reviews x tokens, padded at the end"
    )
    for row in batch["input_ids"].tolist():
        print(
            "           "
            + "".join(f"{token:>12}" for token in tokenizer.convert_ids_to_tokens(row))
        )
        print("           " + "".join(f"{i:>12}" for i in row))
    print(f"\nmask       attention_mask {list(batch['attention_mask'].shape)}: 1 read, 0 padding")
    for row in batch["attention_mask"].tolist():
        print("           " + "".join(f"{bit:>2}" for bit in row))


if __name__ == "__main__":
    run_command(main)
