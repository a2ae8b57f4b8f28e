"""What `python finetune.py --demo` has in place of a download: made-up reviews, an untrained model.

The reviews are the files of demo_reviews/, put together by a program from a few hundred words and
some sixty sentence patterns. So well over 90 % right is no feat here: it shows that the code learns
what it is given. Some pages, docstrings and tests hold the demo's figures, and any change to the
vocabulary, the sizes or the seed below changes them.
"""

import string
from collections import Counter
from pathlib import Path

import torch

from support.errors import UserError
from support.tables import load_table

REVIEWS = Path(__file__).resolve().parent / "demo_reviews"
# What --demo changes about finetune.py: these defaults, and nothing in its loop.
DEFAULTS = {
    "data": str(REVIEWS),
    "model": None,  # untrained_folder(), which prepare() fills
    "out": "demo",
    "epochs": 8,  # a pretrained model needs 2 or 3; this one has to learn every word first
    "lr": 1e-3,  # twenty times the usual: there is no earlier knowledge that it could destroy
    "batch_size": 16,
    "max_length": 64,  # longer than 19 reviews in 20; the rest get cut, so that cutting runs too
}
NOTICE = "REHEARSAL with a tiny model: its figures say nothing about real ones."
REAL = "A rehearsal. The real thing: python finetune.py --epochs 3 --subset 2000"


def untrained_folder(out):
    """Where the untrained model of a rehearsal with this --out is put."""
    return f"{out}/untrained"


def prepare(args):
    """Save a tiny DistilBERT and its tokenizer, as a download would be, unless --model is another.

    The training reviews alone decide the vocabulary.
    """
    if args.model != untrained_folder(args.out):
        return
    config = Path(args.model, "config.json")
    if config.exists() and '"dim": 64' not in config.read_text(encoding="utf-8"):
        raise UserError(f"{args.model} holds another model; choose another --out")
    # Here and not above: they take seconds to load, and most commands do without them.
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from transformers import DistilBertConfig, DistilBertForMaskedLM, DistilBertTokenizer
    from transformers.utils import logging

    # The tokenizer's own first steps (lower case; a cut at spaces and punctuation), so what is
    # counted here is what it will look up.
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    counts = Counter(
        word
        for text in load_table(REVIEWS / "train.csv").splits["train"][0]
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    )
    characters = sorted(set("".join(counts)) | set(string.ascii_lowercase + string.digits))
    # A word that is not listed gets spelled: "##" marks a piece that continues a word, so "zebra"
    # can become z ##e ##b ##r ##a. Only a character that no text contains turns into [UNK].
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    pieces += ["##" + character for character in characters]
    # Words met once or twice are left to be spelled, or the spelling itself would get no practice.
    pieces += sorted(word for word, count in counts.items() if count >= 3 and len(word) > 1)
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = DistilBertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=512)

    # The real DistilBERT's sizes are 768, 3072, 6 and 12. Its 512 positions stay, so that no
    # --max-length works there and fails here. Small models can use larger first weights.
    config = DistilBertConfig(
        vocab_size=len(vocabulary),
        dim=64,
        hidden_dim=128,
        n_layers=2,
        n_heads=4,
        initializer_range=0.05,
        attention_dropout=0.0,
        seq_classif_dropout=0.1,
    )
    torch.manual_seed(0)  # the run's own seed is set afterwards
    logging.disable_progress_bar()  # for writing 0.5 MB
    tokenizer.save_pretrained(args.model)
    DistilBertForMaskedLM(config).save_pretrained(args.model)
