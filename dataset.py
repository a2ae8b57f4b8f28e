"""Chapter 1 of 5: from a file of reviews to a batch of numbers.

Teaches   how texts are divided so that a good result is earned, and how they become the tables of
          numbers that a model reads: cleaning, tokens, truncation, padding, the attention mask.
Order     first; next is model.py.
Run       python dataset.py "It isn't good :(" "Loved it"
          python dataset.py --max-length 8 --truncation head "A film that takes its time, and mine"
          python dataset.py --data support/demo_reviews
Expect    every step for your own sentences: text, tokens, ids, what truncation cuts, the padded
          batch and its mask. With --data: which reviews play which role, and what was left out.
Words     A token is a word or a piece of one. A batch is what the model reads at once, because many
          reviews at once are faster than one after the other. An epoch is one pass over all train
          reviews. IMDB is a set of 50,000 film reviews (Maas et al. 2011). DistilBERT is a model
          that has read much text already, a smaller form of BERT (Google, 2018). Both lie on the
          hub, huggingface.co. (All words of the five chapters: docs/words.md.)
Shapes    in all chapters: B reviews in a batch, T tokens in its longest review, N reviews in all,
          C classes. [B, T] is a tensor (a table of numbers) of B rows and T columns; [] is a single
          number.
Shows     $ python dataset.py --model demo/untrained "It isn't good :(" "Loved it"
          ...
             [CLS]      it     isn       '       t    good       :       (   [SEP]
                 2     214     213       6      45     196      23       7       3
             [CLS]   loved      it   [SEP]   [PAD]   [PAD]   [PAD]   [PAD]   [PAD]
                 2     226     214       3       0       0       0       0       0
          attention_mask  [2, 9]: 1 a token to read, 0 padding
                 1       1       1       1       1       1       1       1       1
                 1       1       1       1       0       0       0       0       0
"""

import heapq
import random
import re
from array import array
from collections import Counter
from pathlib import Path

import torch
from tqdm import tqdm

from support.banner import describe_draw, show_data
from support.errors import READING, UserError, make_parser, run_command
from support.large import Examples, TokenIds, fingerprint, keep, take
from support.pretrained import load_tokenizer
from support.saved import warn_of_change
from support.tables import find_label_names, how_to_read, load_source, load_table, usable_rows
from support.textfiles import is_blank

LINE_BREAK = r"<[bB][rR]\s*/?>"  # as HTML writes it; model.py saves it with the tokenizer
TEST_SEED = 42  # of the reviews that test a model, whatever the seed of its run


# ------------------------------------------------------------------------------ 1. clean
def clean(text):
    """Return `text` with HTML line breaks and runs of white space turned into single spaces.

    Nothing else. IMDB's texts were cut out of web pages. `<br />` holds no opinion, and costs four
    tokens each time. Punctuation, "not" and ":(" do hold one, and the model met all of them when it
    was pretrained. Older recipes take "not" away, with all words that are frequent. Upper case is
    left to the tokenizer: some models need it, others lower it themselves.
    """
    text = text.encode("utf-8", errors="replace").decode("utf-8")  # half an emoji becomes "?"
    if "<" in text:
        text = re.sub(LINE_BREAK, " ", text)
    if "  " in text or not text.isprintable():  # else all spaces are single, and plain
        text = " ".join(text.split())
    return "" if is_blank(text) else text.strip()  # invisible characters alone are no text


# ------------------------------------------------------------------------------ 2. three splits
def load_splits(
    data, seed=42, subset=None, names=None, numbers=None, keep_shares=False, fold=None, **how
):
    """Load a data set and divide it by role. Returns (splits, names, notes, source).

    splits: {"train": ..., "validation": ..., "test": ...}, each a dict of two equally long lists,
        "texts" (cleaned strings, in a file until they are read) and "labels" (class numbers).
        train       the model learns from it;
        validation  held out from train, unless the data brings its own. It alone decides which
                    epoch's model is kept;
        test        read once, at the very end. It chooses nothing, so it cannot flatter.
    names: of the classes, found in the labels unless you give those of a trained model. numbers:
        which of them the numbers in its data stood for, 0 first; None: the data says it.
    notes: what was guessed, dropped, held out or drawn, one printable line each.
    source: where the columns were found; .fingerprint, 16 letters that change when the data or its
        division does.
    data: a file, a folder with train.* and test.*, or the name of a data set on the hub. seed:
        another one holds out and draws other reviews (test ones excepted). subset: how many train
        reviews to draw, equally from each class (keep_shares: in the data's own shares), and at
        most how many of validation and of test; None for all. fold: see hold_out(). how: to read
        it, see support.tables.
    Raises UserError where the data cannot be read or its labels cannot be used.
    """
    if subset is not None and subset < 1:
        raise UserError(f"--subset {subset}: the number of reviews has to be 1 or more")
    source = load_source(data, clean=clean, **how)  # its splits are {role: (texts, labels)}
    notes, renames = source.notes, how.get("labels")
    # The classes are what stands in train's labels; a trained model brings its own names.
    names = names or find_label_names(source.splits["train"][1], renames, source.classes)
    splits = {
        role: usable_rows(*columns, names, role, notes, renames, numbers or source.classes)
        for role, columns in source.splits.items()
    }
    if fold and "validation" in splits:
        raise UserError(f"--fold {fold}: these data bring a validation split; leave --fold out")
    for role in ("test", "validation"):
        if role not in splits:
            hold_out(splits, role, draw_rules(role, seed)[0], notes, fold)
    drop_copies(splits, notes)
    source.fingerprint = fingerprint(splits)  # before the draw: the same whatever the subset
    for role in splits if subset is not None else ():
        labels, (role_seed, equal) = splits[role]["labels"], draw_rules(role, seed, keep_shares)
        drawn = take(splits[role], draw(labels, subset, role_seed, equal))
        if role == "train":
            notes += describe_draw(subset, labels, drawn["labels"], names, equal)
        splits[role] = drawn
    return splits, names, notes, source


def hold_out(splits, role, seed, notes, fold=None):
    """Move a tenth of the train rows to a new split: from each label one block of rows.

    Why a block, and not random rows? IMDB's rows are ordered by film: up to 30 reviews of one film,
    then the next. Draw at random, and nearly every held-out review is about a film that is also in
    train. Most reviews of a film have the same label, so a model can guess the label from the film
    and need not read the review. Such a validation split praises a model for knowing films. A block
    holds whole films. The films at its two ends could still be shared, so the rows beside the block
    are left out. One letter a row, the letter being the film:

        rows of one label   A A A B B B B C C C D D D D E E E
        role                t t t t t g g v v v v v g g t t t     t train, v validation, g gap

    Films B and D reach into the gaps, so neither is in both t and v. (Reviews of a held-out film
    can still be in train under the other label. A model that has learned "this film: negative" from
    them is wrong here, so this validation may err a little on the low side.)

    fold: "2/5" cuts each label's rows into five blocks and takes the second for validation. Train
    once for each: then every row was judged, by a model that has not seen it (cross-validation).
    """
    # A tenth is a compromise: fewer rows would choose the epoch by luck, more would be missed in
    # train. Where the rows of a file are in no order, a block is as good as a draw.
    train = splits["train"]
    number, folds = map(int, fold.split("/")) if fold and role == "validation" else (0, 10)
    generator = random.Random(f"{seed} {role}")  # random numbers of its own for each role
    parts = bytearray(len(train["labels"]))  # of each row: 0 stays, 1 held out, 2 in a gap
    for label in sorted(set(train["labels"])):
        rows = [i for i, other in enumerate(train["labels"]) if other == label]
        size = min(len(rows) - 1, max(1, round(len(rows) / folds)))  # one stays, to learn from
        start = generator.randint(0, len(rows) - size)
        if number:  # whole numbers that meet: where one fold ends, the next one starts
            start = len(rows) * (number - 1) // folds
            size = len(rows) * number // folds - start
        # 30: IMDB's longest run of one film. A small file cannot spare so many rows. There the gap
        # is a tenth of what is held out, and a film at the border may be shared.
        gap = min(30, size // 10)
        for place in range(max(0, start - gap), min(len(rows), start + size + gap)):
            parts[rows[place]] = 1 if start <= place < start + size else 2
    held = f"held out {parts.count(1):,} train rows in blocks, {parts.count(2):,} beside unused"
    notes.append(f"{role}: {held}")
    splits[role], splits["train"] = (keep(train, [p == n for p in parts]) for n in (1, 0))


def drop_copies(splits, notes):
    """No text may stand on two sides: a copy in test is a leaked answer. Test keeps its own."""
    for role, others in (("validation", ["test"]), ("train", ["test", "validation"])):
        # These texts have keys: a number for each text, the same for equal ones.
        elsewhere = {key for other in others for key in splits[other]["texts"].keys}
        kept = [key not in elsewhere for key in splits[role]["texts"].keys]
        if copies := kept.count(False):
            others = " or ".join(others)
            notes.append(f"{role}: dropped {copies:,} exact copies of {others} reviews")
            splits[role] = keep(splits[role], kept)


def draw_rules(role, seed, keep_shares=False):
    """(seed, equal) for draw(), by role. Every model is tested on the same reviews, whatever its
    seed: otherwise two results would differ by the luck of the draw as well.
    """
    return TEST_SEED if role == "test" else seed, role == "train" and not keep_shares


def draw(labels, count, seed, equal):
    """Choose at most `count` row numbers at random. (IMDB's first 12,500 rows are all negative.)

    equal=True takes as many of each class: for training, so that a rare class is not drowned out.
    equal=False keeps the classes' own shares: for a split whose result must speak for all rows.
    Every row gets a key, and the rows with the smallest keys are taken. With 6 negative rows (n)
    and 3 positive ones (p), to draw 6:
        equal       n 0 1 2 3 4 5            p 0 1 2           n p n p n p, one to one
        in shares   n .08 .25 .42 .58 ...    p .17 .50 .83     n p n n p n, two to one, as in all
    """
    order = list(range(len(labels)))
    random.Random(seed).shuffle(order)
    size, rank, keys = Counter(labels), Counter(), array("d", order)
    for i in order:
        keys[i] = rank[labels[i]] if equal else (rank[labels[i]] + 0.5) / size[labels[i]]
        rank[labels[i]] += 1
    return sorted(heapq.nsmallest(count, order, key=keys.__getitem__))  # of equals the first


def load_split(run, role, data=None, subset=None, draw_seed=None, typed=None):
    """The reviews to evaluate on. Returns ({"texts": ..., "labels": ...}, notes).

    run: a model's run.json, which knows the data, how they were read and the seed of its training.
    data: others, or None; typed: options that say how to read them. A file that the model was not
    trained on is taken whole. Everything else is divided again, with the same seed, so "validation"
    means the rows that were held out then and no others. subset: draw so many reviews, from test
    the same ones for all models; draw_seed: draw others. Raises UserError if no review is left.
    """
    trained, data = run["arguments"], data or run["arguments"]["data"]
    same = data == trained["data"] or Path(data).resolve() == Path(trained["data"] or "").resolve()
    names, numbers = run["labels"], run.get("numbers")
    how = how_to_read(trained, typed or {}, same)
    if Path(data).is_file() and not same:
        source = load_table(data, clean=clean, **how)
        notes = [f"{data}: all of its rows; if training has read some, the result is too good"]
        notes += source.notes
        chosen = usable_rows(*source.splits["train"], names, data, notes, how["labels"], numbers)
    else:
        splits, _, notes, source = load_splits(data, trained["seed"], None, names, numbers, **how)
        others = tuple(f"{other}:" for other in splits if other != role)
        chosen, notes = splits[role], [note for note in notes if not note.startswith(others)]
        if same:
            warn_of_change(run, source, role, notes)
    if not chosen["texts"]:
        raise UserError(f"{data} has no row with a text and a label for {role}: {'; '.join(notes)}")
    if subset is not None:
        seed, equal = draw_rules(role, trained["seed"], trained.get("keep_shares"))
        seed = seed if draw_seed is None else draw_seed
        chosen = take(chosen, draw(chosen["labels"], subset, seed, equal))
    return chosen, notes


# ------------------------------------------------------------------------------ 3. tokens and ids
# Tokens come from a fixed list of some 30,000; a token's number in the list is its id. A rare word
# becomes several pieces: "regrettable" is regret ##table. So the list is enough for every text.
def special_ids(tokenizer):
    """The ids that the model expects before and after each text: for BERT [101] and [102].

    101 is [CLS], which opens every text; the model's verdict will be read off at its place. 102 is
    [SEP], which closes it. Other models have other marks, so ask the tokenizer: encode a letter
    with and without them, and look what was added.
    """
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return full[:start], full[start + len(bare) :]


def truncate(ids, room, how):
    """Cut a list of ids to at most `room`: keep its head, its tail, or some of both.

    A model can read only so many tokens (DistilBERT 512), and its time grows faster than their
    number. Reviewers tell the plot first and give their verdict last, so the tail says more than
    the head. A quarter of head and three quarters of tail did best in Sun et al. 2019 ("How to
    Fine-Tune BERT for Text Classification?").
    """
    if len(ids) <= room:
        return ids
    head = {"head": room, "tail": 0, "head+tail": room // 4}[how]  # so many from the front
    # The tail is counted from the front: with no tail, ids[-0:] would be all of them.
    return ids[:head] + ids[len(ids) - (room - head) :]


def encode(texts, tokenizer, max_length, how, progress=False):
    """Turn cleaned texts into token ids, special ids included. Returns (input_ids, lengths).

    input_ids: lists of at most max_length ids, not padded yet, in a form that takes little memory.
    lengths: how many ids each text had before truncation.
    This is done once, before training: the ids of a text are the same in every epoch.
    """
    before, after = special_ids(tokenizer)
    room = max_length - len(before) - len(after)
    input_ids, lengths = TokenIds(), []
    # verbose=False: the library would warn of long texts, which truncate() cuts below.
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    with tqdm(texts, "tokenizing", leave=False, unit=" reviews", disable=not progress) as bar:
        for start in range(0, len(texts), 1000):  # the tokenizer shares them out to all cores
            encoded = tokenizer(texts[start : start + 1000], **options)["input_ids"]
            lengths += [len(ids) + len(before) + len(after) for ids in encoded]
            for ids in encoded:
                input_ids.append(before + truncate(ids, room, how) + after)
            bar.update(len(encoded))
    return input_ids, lengths


# ------------------------------------------------------------------------------ 4. batches
def make_examples(input_ids, labels):
    """A list of {"input_ids": a list of ids, "label": a class number}, as collate takes them."""
    return Examples(input_ids, labels)  # made when they are asked for: a million take no memory


def make_collate(pad_token_id):
    """Return `collate`, which turns a list of examples into one padded batch of tensors.

    The padding id belongs to the tokenizer. It is fixed here, once, so that collate needs nothing
    but the examples. (Torch's DataLoader, the usual way to deal out batches, would take it as it
    is. Here make_batches() deals them out, so that you see the order.)
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
        # T is the longest of this batch alone: the fewer columns, the less there is to compute.
        longest = int(lengths.max())  # T
        input_ids = torch.full((len(examples), longest), pad_token_id)  # [B, T]
        for row, example in enumerate(examples):
            input_ids[row, : lengths[row]] = torch.tensor(example["input_ids"])  # [its length]
        # In the model's attention every token looks at the others; the mask says at whom it may. It
        # is made of the lengths: `input_ids != pad_token_id` would also hide a real token of that
        # id, for some models pad with a token that ends texts as well. None adds a dimension of
        # size 1, which PyTorch repeats as often as needed: the number of each column, [1, T], is
        # compared with the length of each row, [B, 1]. That gives [B, T].
        attention_mask = (torch.arange(longest)[None, :] < lengths[:, None]).long()  # [B, T]
        labels = torch.tensor([example["label"] for example in examples])  # [B]
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}

    return collate


POOL_OF_BATCHES = 64  # batches to a pool: large pools pad less, small ones mix more


def make_batches(lengths, batch_size, seed, epoch):
    """Deal all reviews into batches of like length. Returns lists of row numbers, each row once.

    A step learns from few reviews, so they should be a mixture. In the order of the file IMDB's
    first ones are all negative, and teach to say "negative". But padding costs as much time as
    text, and random batches of 32 at 512 tokens are half padding: nearly all hold a long review.
    So: shuffle, cut the shuffled rows into large pools, sort each pool by length, cut it into
    batches, and shuffle those. In every epoch other reviews share a batch.

    The order follows from the arguments alone, so a stopped run can deal its epoch again.
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


# ------------------------------------------------------------------------------ by itself
def main():
    """Show each step for the sentences that are given, or the splits of --data."""
    options = f"model max-length truncation {READING} subset seed"
    parser = make_parser(__doc__, options, model="distilbert-base-uncased")
    parser.add_argument("--data", help="look at this file, folder or hub data set")
    parser.add_argument("texts", nargs="*", help="sentences of your own")
    args = parser.parse_args()
    if bool(args.texts) == bool(args.data):
        parser.error("give sentences, each in quotes, or --data: one or the other")
    if args.data:
        return show_data(args, load_splits)
    texts = [clean(text) for text in args.texts]
    if not all(texts):
        raise UserError("a text is empty: give it some words")
    if args.max_length < 3:
        raise UserError(f"--max-length {args.max_length}: has to be 3 or more, [CLS] token [SEP]")
    tokenizer = load_tokenizer(args.model)
    input_ids, lengths = encode(texts, tokenizer, args.max_length, args.truncation)
    for text, ids, length in zip(texts, input_ids, lengths):
        print(f"\ntext       {text}")
        print(f"tokens     {' | '.join(tokenizer.tokenize(text))}    (## continues a word)")
        if length > len(ids):  # the ids of [CLS] and [SEP] are never cut
            kept = " ".join(tokenizer.convert_ids_to_tokens(ids))
            print(f"truncated  from {length} to {len(ids)} ({args.truncation}): {kept}")
    batch = make_collate(tokenizer.pad_token_id)(make_examples(input_ids, [0] * len(texts)))
    print(f"\ninput_ids       {list(batch['input_ids'].shape)}: B reviews x T tokens")
    for row in batch["input_ids"].tolist():
        words = tokenizer.convert_ids_to_tokens(row)
        print("".join(f"{word:>{max(8, len(word) + 2)}}" for word in words))
        print("".join(f"{i:>{max(8, len(word) + 2)}}" for i, word in zip(row, words)))
    print(f"attention_mask  {list(batch['attention_mask'].shape)}: 1 a token to read, 0 padding")
    for row in batch["attention_mask"].tolist():
        print("".join(f"{bit:>8}" for bit in row))


if __name__ == "__main__":
    run_command(main)
