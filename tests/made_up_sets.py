"""Made-up labelled short texts that resemble real sets: python tests/made_up_sets.py FOLDER [SEED]

intents.csv  3,080 rows, 77 balanced intents in 11 groups of 7 that differ by a few words
skewed.csv   2,000 support tickets, 5 classes with shares of 70, 15, 8, 5 and 2 %
two.csv      1,000 opinions, 2 classes, with negation and contrast
four.csv     2,000 news-like sentences, 4 topics that borrow each other's words
small.csv    150 messages, 3 classes

The default recipe of finetune.py was tried on them: see docs/ideas.md. made_up_sets.json has their
words. In it [a/b/c] is one of a, b and c; @p stands for the phrase that decides the label, @q for
one of another class that does not, other @ for things.
"""

import csv
import json
import random
import re
import sys
from pathlib import Path

WORDS = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))


def spell(text, generator):
    """Choose at each [a/b/c]."""
    while "[" in text:
        text = re.sub(r"\[([^\[\]]*)\]", lambda m: generator.choice(m[1].split("/")), text)
    return re.sub(" +", " ", text).replace(" ,", ",").strip()


def mistype(text, generator, share):
    """With this probability a word loses a letter, or has two exchanged."""
    words = text.split()
    for i, word in enumerate(words):
        if len(word) > 3 and generator.random() < share:
            at = generator.randrange(1, len(word) - 1)
            swap = word[at + 1] + word[at] if generator.random() < 0.5 else word[at + 1]
            words[i] = word[:at] + swap + word[at + 2 :]
    return " ".join(words)


def opinions(good, bad):
    """Phrases of one class; with the arguments exchanged, of the other."""
    product = WORDS["product"]
    thing = f"[the/this/my new] {product}"
    return [
        f"{thing} is [really/quite/] {good}",
        f"{thing} is not {bad} at all",
        f"i expected {bad} and got {good}",
        f"everyone calls it {bad} , i find it {good}",
        f"{thing} [looks/seems] {bad} , yet it is {good}",
        f"far from {bad} , {thing} is {good}",
        f"i would never call {thing} {bad}",
        f"nothing {bad} about {thing}",
        f"{thing} used to be {bad} , now it is {good}",
        f"{good} , not {bad} , that is {thing}",
        f"hardly a {bad} {product} , rather {good}",
    ]


def headline(topic, generator):
    """A story about a topic; its @v is a word of another one."""
    text, news = generator.choice(WORDS["stories"]), WORDS["news"]
    while found := re.search("@[wv]", text):
        of = topic
        if found[0] == "@v":
            of = generator.choice([name for name in news if name != topic])
        # Each topic has words of its own, the first ones common and the last ones rare.
        word = news[of][int(len(news[of]) * generator.random() ** 1.5)]
        text = text.replace(found[0], word, 1)
    return text


def rows_of(phrases, counts, frames, generator, typos=0.04, rivals=None):
    """[(text, label)], shuffled. rivals: label -> labels that @q may come from."""
    rows = []
    for label, count in counts.items():
        for _ in range(count):
            other = generator.choice(rivals[label]) if rivals else label
            own, foreign = generator.choice(phrases[label]), generator.choice(phrases[other])
            text = generator.choice(frames).replace("@p", own).replace("@q", foreign)
            rows.append((mistype(spell(text, generator), generator, typos), label))
    generator.shuffle(rows)
    return rows


def others(table):
    """For each label all others."""
    return {label: [name for name in table if name != label] for label in table}


def make_sets(seed=0):
    """{file name: [(text, label)]}."""
    generator, intents, rivals = random.Random(seed), {}, {}
    for group, lines in WORDS["intents"].items():
        thing, lines = lines["@"], {k: v for k, v in lines.items() if k != "@"}
        names = [f"{group}_{name}" for name in lines]
        for name, phrases in zip(names, lines.values()):
            intents[name] = [phrase.replace("@", thing) for phrase in phrases]
            rivals[name] = [other for other in names if other != name]
    frames, plain, mixed = WORDS["frames"], WORDS["plain"], WORDS["mixed"]
    each = dict.fromkeys(intents, 40)
    sets = {"intents.csv": rows_of(intents, each, frames, generator, 0.06, rivals)}
    tickets = WORDS["tickets"]
    shares = dict(zip(tickets, (1400, 300, 160, 100, 40)))
    sets["skewed.csv"] = rows_of(tickets, shares, mixed, generator, 0.15, others(tickets))
    good, bad = WORDS["good"], WORDS["bad"]
    two = {"positive": opinions(good, bad), "negative": opinions(bad, good)}
    sets["two.csv"] = rows_of(two, dict.fromkeys(two, 500), plain, generator)
    news = {topic: [headline(topic, generator) for _ in range(500)] for topic in WORDS["news"]}
    sets["four.csv"] = rows_of(news, dict.fromkeys(news, 500), WORDS["leads"], generator, 0.08)
    small = {
        label: [phrase.replace("@t", WORDS["thing"]) for phrase in phrases]
        for label, phrases in WORDS["small"].items()
    }
    each = dict.fromkeys(small, 50)
    sets["small.csv"] = rows_of(small, each, mixed, generator, 0.04, others(small))
    return sets


if __name__ == "__main__":
    for file, rows in make_sets(*map(int, sys.argv[2:])).items():
        with open(Path(sys.argv[1], file), "w", newline="", encoding="utf-8") as target:
            csv.writer(target).writerows([("text", "label"), *rows])
