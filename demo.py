"""Appendix E: a rehearsal with nothing to download.

Teaches   nothing new: it lets `python finetune.py --demo` run every line of the fine-tuning code in
          about a minute, on a laptop without a graphics card or a network. Two stand-ins do it:
              the reviews    put together from the fragments below, in place of real film reviews
              the model      a DistilBERT of toy size with random weights, not a pretrained one
Order     off the path; read it last, or never.
Run       python demo.py                writes demo_reviews/ anew and shows a few of its reviews
          python finetune.py --demo     trains the toy model on them
Expect    well over 90 % on demo_reviews/test.csv, and do not be impressed: these reviewers share a
          few hundred words and some sixty sentence patterns. What the figure does show is that the
          machinery learns what it is given: with shuffled labels it is 50 %.
"""

import csv
import random
import re
import string
from collections import Counter
from pathlib import Path

from errors import UserError, run_command

REVIEWS = Path(__file__).resolve().parent / "demo_reviews"
LABELS = ["negative", "positive"]

# ------------------------------------------------------------------------------ 1. the fragments
# Words that take a side: for each slot of a pattern, the negative ones and the positive ones.
# "mild" and "strong" are kept apart because denying a word is not always saying its opposite: "not
# dull" is praise, but "not terrible" could go either way. Only mild words are plainly denied.
OPINIONS = {
    "mild": ("bad, boring, dull, clumsy, stupid, silly, tedious, weak",
             "good, funny, clever, gripping, charming, witty, original, exciting"),
    "strong": ("terrible, awful, dreadful, horrible, dreary, hopeless",
               "great, wonderful, brilliant, superb, delightful, excellent"),
    "noun": ("waste of time, mess, bore, failure, disappointment",
             "triumph, joy, treat, delight, success"),
    "bored": ("bored, annoyed, sleepy, restless", "thrilled, amused, moved, entertained"),
    "liked": ("hated, disliked, loathed, detested, despised",
              "loved, enjoyed, liked, admired, adored"),
    "regret": ("regret", "do not regret, don't regret"),
    "would": ("would not, wouldn't", "would, would gladly"),
    "glad": ("sorry", "glad"), "see": ("avoid, skip", "see, watch"),
}
# Mild words stand here three times over. The patterns below deny them so often that otherwise
# "dull" would be praise about as often as blame, and a beginner could not learn even the word.
OPINIONS["word"] = tuple(", ".join([mild] * 3 + [strong])
                         for mild, strong in zip(OPINIONS["mild"], OPINIONS["strong"]))

# Words that take none. A sentence keeps its "{film}" until a review fills in its film's title.
NEUTRAL = {
    "the_film": "this film, this movie, the film, the movie, the whole thing, {film}",
    "it": "it, it, this film, this movie, the film, the movie, the whole thing, {film}",
    "movie": "film, movie, picture",
    "very": "simply, really, truly, so",
    "stretch": "from the first scene to the last, in the first hour, before the interval, "
               "during the wedding scene, until the credits rolled",
    "relative": "sister, brother, uncle, aunt, cousin, grandmother, dentist, landlord, neighbour, "
                "piano teacher, chess club, parrot",
    "day": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
    "weather": "rainy, foggy, windy, snowy, cloudy, sunny, frosty",
    "snack": "popcorn, liquorice, peanuts, pickles, toffee, garlic bread, cold soup",
    "place": "Norway, Portugal, Scotland, Peru, a quarry, an old barn, a car park",
}
# The parts of a film come as singular and as plural, because "the jokes is funny" is no English.
ONE = ("acting, plot, story, soundtrack, dialogue, camera work, ending, first half, last hour, "
       "car chase, love story, talking dog")
MANY = "jokes, songs, costumes, actors, special effects, flashbacks"
TITLE_STARTS = ("Reluctant, Invisible, Midnight, Borrowed, Hungry, Purple, Seventh, Sleepless, "
                "Wandering, Accidental, Paper, Elderly, Left-Handed, Whispering")
TITLE_ENDS = ("Beekeeper, Lighthouse, Accordion, Plumber, Librarian, Teapot, Astronaut, Umbrella, "
              "Walrus, Piano Tuner, Submarine, Goat, Postman, Duchess")

# Both labels share these patterns, so that a pattern by itself gives nothing away. A slot such as
# {noun} takes a word of the sentence's own label, and {other_noun} takes one of the other label,
# which a "not" or a "but" must then turn round. Counting nice words is not enough to get those.
# A pattern that is listed twice is drawn twice as often.
PATTERNS = {
    "part": [
        "the {part} {are} {word}.", "the {part} {are} {very} {word}.", "I {liked} the {part}.",
        "I found the {part} {very} {word}.", "the {part} {are} a {noun}.",
        "the {part} {are} a {noun}.", "my {relative} called the {part} {word}, and I agree.",
        "the {part} left me {bored}."],
    "whole": [
        "{it} {is} {word}.", "{it} {is} {very} {word}.", "it's {word}!", "{it} {is} a {noun}.",
        "{it} {is} a {noun}.", "a {word} {movie}.", "what a {word} {movie}!", "what a {noun}!",
        "really {word}.", "{liked} it.", "I {liked} {it}.", "my {relative} and I {liked} {it}.",
        "I felt {bored} {stretch}.", "I felt {bored} {stretch}.", "I felt {very} {bored}!"],
    "saying": [
        "I {regret} watching {it}.", "I {regret} watching {it}.", "I {would} see {it} again.",
        "I {would} see {it} again.", "I am {glad} I saw {it}.",
        "tell your {relative} to {see} {it}."],
    "denied": [
        "the {part} {are} not {other_mild}.", "the {part} {are}n't {other_mild}.",
        "{it} {is} not {other_mild}.", "{it} {is}n't {other_mild}.", "it's not {other_mild}.",
        "the {part} {are} never {other_mild}.", "I don't think {it} {is} {other_mild}.",
        "nothing about {it} {is} {other_mild}.", "{it} {is} anything but {other_mild}.",
        "{it} {is} hardly a {other_noun}.", "{it} {is} not a {other_noun}.",
        "I never once felt {other_bored} {stretch}."],
    "but": [
        "the {part} {are} {other_word}, but in the end {the_film} {is} a {strong} {noun}.",
        "the {part} {are} {other_word}, but {the_film} {is} {very} {word}.",
        "although the {part} {are} {other_word}, {the_film} {is} {word}.",
        "although the {part} {are} not {mild}, {the_film} {is} {word}.",
        "despite the {other_word} {part}, {the_film} {is} {very} {word}.",
        "despite the {other_word} {part}, I {liked} {the_film}.",
        "{the_film} {is} {word}, even though the {part} {are} {other_word}.",
        "I {other_liked} the {part}, but I {liked} {the_film}.",
        "my {relative} {other_liked} {the_film}, but I {liked} it.",
        "not {other_word}, it's {word}!", "{the_film} isn't {other_word}, it's {word}!"],
    "verdict": [
        "still, {the_film} {is} {very} {word}.", "even so, {the_film} {is} a {noun}.",
        "still, I {would} see {the_film} again.", "all the same, I {liked} {the_film}.",
        "even so, I {regret} watching {the_film}.", "but in the end I am {glad} I saw {the_film}."],
}
FILLERS = [
    "I saw {it} on a {weather} {day} with my {relative}.", "{it} was shot in {place}.",
    "my {relative} brought {snack} to the cinema on {day}.", "my {relative} had the aisle seat.",
    "my {relative} and I shared a bag of {snack}.", "it was a {weather} {day} in {place}.",
    "the man in front of my {relative} was eating {snack}."]


# ------------------------------------------------------------------------------ 2. the reviews
def make_sentence(pattern, label, rng):
    """Return the pattern as an English sentence of that label: slots filled, a capital in front.

    rng is a random.Random. Raises KeyError if the pattern has a slot that is in no table.
    """
    own = LABELS.index(label)
    filling = {slot: rng.choice(words.split(", ")) for slot, words in NEUTRAL.items()}
    for slot, sides in OPINIONS.items():
        filling[slot] = rng.choice(sides[own].split(", "))
        filling["other_" + slot] = rng.choice(sides[1 - own].split(", "))
    # Number and tense are settled once for the whole sentence, or its verbs would disagree.
    many, past = rng.random() < 0.3, rng.random() < 0.4
    filling["part"] = rng.choice((MANY if many else ONE).split(", "))
    filling["is"] = "was" if past else "is"
    filling["are"] = ("were" if past else "are") if many else filling["is"]
    sentence = pattern.format(**filling, film="{film}")
    # "a awful film" becomes "an awful film"; no fragment starts with a silent h or a "yoo" sound.
    sentence = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", sentence)
    return sentence[0].upper() + sentence[1:]


def deal_sentences(patterns, label, rng):
    """Return {"train": ..., "test": ...}: two lists of sentences with nothing in common.

    A test means little if its sentences are old acquaintances. So they are dealt to the two sides
    before any review is written. The words do occur on both, or there would be nothing to know.
    """
    sentences = [make_sentence(rng.choice(patterns), label, rng) for _ in range(3000)]
    # A dict drops the repeats and keeps the order; a set would have another order in every run.
    distinct = list(dict.fromkeys(sentences))
    rng.shuffle(distinct)
    test_sentences = set(distinct[: len(distinct) // 6])
    # Repeats stay in, because a pattern of few words would otherwise hardly ever be heard.
    return {
        "train": [sentence for sentence in sentences if sentence not in test_sentences],
        "test": [sentence for sentence in sentences if sentence in test_sentences],
    }


def make_review(pools, label, film, rng):
    """Return one review of the film as a string; pools maps (kind, label) to sentences."""
    roll = rng.random()
    if roll < 0.18:
        # No other opinion beside it: that could contradict the half which the "but" gives away.
        sentences = [rng.choice(pools["but", label])]
    elif roll < 0.28:
        # A complaint or a compliment, and then a last word that overrules it.
        other = LABELS[1 - LABELS.index(label)]
        sentences = [rng.choice(pools["part", other]), rng.choice(pools["verdict", label])]
    else:
        # One review in twenty is a long one, so that truncation has something to cut.
        count = rng.randrange(8, 14) if roll > 0.95 else rng.choice([1, 1, 1, 1, 2])
        kinds = rng.choices(["part", "whole", "saying", "denied"], weights=[5, 5, 2, 4], k=count)
        sentences = [rng.choice(pools[kind, label]) for kind in kinds]
    # Sentences without an opinion come last: with random weights and so few reviews, the model
    # would be slow to learn that "although" is the same word whether it is the first or the tenth.
    sentences += rng.sample(pools["filler", None], rng.choice([0, 0, 0, 1]))
    # Line breaks just as they stand in the IMDB reviews, which were cut out of web pages.
    separator = rng.choice([" "] * 6 + ["<br /><br />"])
    # Through a dict once more, so that nobody says the same sentence twice in one review.
    text = separator.join(dict.fromkeys(sentences)).replace("{film}", film)
    if rng.random() < 0.05:
        text = text.rstrip(".!") + (" :)" if label == "positive" else " :(")
    return text


def write_reviews(folder, seed=0):
    """Write train.csv and test.csv to the folder; return {"train": rows, "test": rows}.

    A row is (text, label). The same seed gives the same files, and no text occurs twice in them.
    Raises OSError if the folder cannot be written.
    """
    rng = random.Random(seed)
    dealt = {("filler", None): deal_sentences(FILLERS, LABELS[0], rng)}
    for kind, patterns in PATTERNS.items():
        for label in LABELS:
            dealt[kind, label] = deal_sentences(patterns, label, rng)
    titles = [
        f"The {start} {end}" for start in TITLE_STARTS.split(", ") for end in TITLE_ENDS.split(", ")
    ]
    rng.shuffle(titles)
    films = {"test": titles[:20], "train": titles[20:170]}
    rows, seen = {"train": [], "test": []}, set()
    for side in rows:
        pools = {key: sides[side] for key, sides in dealt.items()}
        # Badly ordered on purpose, like IMDB: all negative reviews first, and film by film. Code
        # that forgets to shuffle, or that takes the last rows for validation, does badly on it.
        for label in LABELS:
            for film in films[side]:
                reviews_wanted = 10
                while reviews_wanted:
                    text = make_review(pools, label, film, rng)
                    if text not in seen:
                        seen.add(text)
                        rows[side].append((text, label))
                        reviews_wanted -= 1
        Path(folder).mkdir(parents=True, exist_ok=True)
        # The csv module ends lines with \r\n unless told otherwise; newline="" lets it decide.
        with open(Path(folder) / f"{side}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["text", "label"])
            writer.writerows(rows[side])
    return rows


# ------------------------------------------------------------------------------ 3. the model
def make_untrained_model(folder, texts, seed=0):
    """Save a tiny DistilBERT and its tokenizer to the folder, as a download would; return None.

    The texts, which should be the training reviews alone, decide the vocabulary. Afterwards
    AutoTokenizer and the AutoModel classes load the folder with from_pretrained(folder).
    """
    # Imported here, because they take seconds to load and `python demo.py` does without them.
    import torch
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from transformers import (
        DistilBertConfig,
        DistilBertForMaskedLM,
        DistilBertTokenizer,
    )

    # The normalizer puts all in lower case; the splitter cuts at spaces and around punctuation.
    # Both are the tokenizer's own first steps, so what is counted here is what it will look up.
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    counts = Counter(
        word
        for text in texts
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

    # Toy sizes: the real one has 768, 3072, 6 and 12. The 512 positions are as many as it has, so
    # that no --max-length works there and fails here. Small models can use larger first weights.
    config = DistilBertConfig(
        vocab_size=len(vocabulary),
        dim=64,
        hidden_dim=128,
        n_layers=2,
        n_heads=4,
        max_position_embeddings=512,
        initializer_range=0.05,
        dropout=0.1,
        attention_dropout=0.0,
        seq_classif_dropout=0.1,
    )
    # Random weights, because nothing could be downloaded. To this model "dull" and "charming" are
    # as good as the same word: all that it ever knows of English, it learns from the demo reviews.
    # fork_rng puts PyTorch's random numbers back afterwards, so the caller's own seed still holds.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DistilBertForMaskedLM(config)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


# ------------------------------------------------------------------------------ 4. the changes
# Nothing in the loop knows of the rehearsal. It has other defaults, and a model made on the spot.
DEFAULTS = {
    "data": str(REVIEWS),
    "model": None,  # the folder below, inside --out
    "out": "demo",
    "epochs": 8,  # a pretrained model needs 2 or 3; this one has to learn every word first
    "lr": 1e-3,  # twenty times the usual: there is no earlier knowledge that it could destroy
    "batch_size": 16,
    "max_length": 64,  # longer than 19 reviews in 20; the rest get cut, so that cutting runs too
}
NOTICE = """
--------------------------------------------------------------------------------------------
  This is a REHEARSAL: made-up reviews, and a tiny model that nobody has pretrained.
  It shows that everything works here. Its figures say nothing about real reviews.
  The real thing:  python finetune.py --epochs 3 --subset 2000
--------------------------------------------------------------------------------------------
"""


def untrained_folder(out):
    """Where the untrained model of a rehearsal with this --out is put."""
    return f"{out}/untrained"


def prepare(args):
    """Make the untrained model, unless the user has named another with --model."""
    if args.model == untrained_folder(args.out):
        config = Path(args.model, "config.json")
        if config.exists() and '"dim": 64' not in config.read_text(encoding="utf-8"):
            raise UserError(f"{args.model} holds another model; choose another --out")
        with open(REVIEWS / "train.csv", encoding="utf-8", newline="") as file:
            make_untrained_model(args.model, [row["text"] for row in csv.DictReader(file)])


def main():
    rows = write_reviews(REVIEWS)
    for text, label in random.Random(1).sample(rows["train"], 8):
        print(f"[{label}] {text}")
    for side in rows:
        print(f"demo_reviews/{side}.csv:", dict(Counter(label for _, label in rows[side])))


if __name__ == "__main__":
    run_command(main)
