"""Lists of a million texts, or of their token ids, that take little memory.

To the code that uses them they are lists. A Python string of a review takes half a kilobyte and a
list of its token ids 36 bytes a token; here a text takes 24 bytes, because it lies in a file, and a
token 4.
"""

import hashlib
import tempfile
from array import array
from collections.abc import Sequence
from itertools import accumulate, compress, islice

from support.textfiles import usable_text


class Items(Sequence):
    """What both have in common with lists: slices are lists, and they equal lists of the same."""

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self.item(k) for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        return self.item(i % len(self))

    def __iter__(self):
        return map(self.item, range(len(self)))

    def __eq__(self, other):
        return len(self) == len(other) and all(a == b for a, b in zip(self, other))


class Texts(Items):
    """Texts in a temporary file, which goes when nobody needs it any more."""

    def __init__(self, texts=()):
        self.file = tempfile.TemporaryFile(buffering=1 << 16)
        self.starts, self.ends, self.size = array("q"), array("q"), 0
        # A number of 64 bits for each text. Of a million texts, two different ones share theirs
        # with a chance of 1 in 40 million.
        self.keys = array("q")
        self.error = ""  # what is wrong with the first that is no text
        self.extend(texts)

    def extend(self, texts):
        # surrogatepass: half an emoji comes back as it was.
        data = [text.encode("utf-8", "surrogatepass") for text in texts]
        self.file.write(b"".join(data))
        places = list(accumulate(map(len, data), initial=self.size))
        self.size = places[-1]
        self.starts.extend(places[:-1])
        self.ends.extend(places[1:])
        self.keys.extend(map(hash, data))

    def __len__(self):
        return len(self.starts)

    def item(self, i):
        self.file.seek(self.starts[i])
        return self.file.read(self.ends[i] - self.starts[i]).decode("utf-8", "surrogatepass")

    def sizes(self):
        """How many bytes each has: 0 for an empty one."""
        return map(int.__sub__, self.ends, self.starts)

    def bytes(self):
        """Each text as UTF-8."""
        place = -1
        for start, size in zip(self.starts, self.sizes()):
            if start != place:  # to seek takes longer than to read
                self.file.seek(start)
            place = start + size
            yield self.file.read(size)

    def keep(self, mask):
        """The texts where the mask is true: in the same file, so nothing is copied."""
        kept = object.__new__(Texts)
        kept.file, kept.size, kept.error = self.file, self.size, self.error
        for name in ("starts", "ends", "keys"):
            setattr(kept, name, array("q", compress(getattr(self, name), mask)))
        return kept


def read_whole(pairs, clean):
    """All texts and labels: (Texts, list). pairs: yields (cell, label). clean: dataset.clean().

    What is wrong with the first cell that is no text is in Texts.error.
    """
    texts, labels, known = Texts(), [], {}
    while some := list(islice(pairs, 1000)):
        cells = [usable_text(cell) for cell, _ in some]
        for row, (text, error) in enumerate(cells, start=len(texts) + 1):
            if error and not texts.error:
                texts.error = f"row {row}: {text[:40]!r} is {error}"
        texts.extend([clean(text) for text, _ in cells])
        # A million labels are a million objects, unless those that are equal become one.
        for _, label in some:
            kind = type(label)
            plain = kind is str or kind is int or kind is float
            labels.append(known.setdefault((kind, label), label) if plain else label)
    return texts, labels


def fingerprint(splits):
    """16 letters that change when a text, a label, or the division of the data changes."""
    digest = hashlib.sha256()
    for role in sorted(splits):
        labels = splits[role]["labels"]
        before = {label: f"{role}\0{label}\0".encode() for label in set(labels)}
        for text, label in zip(splits[role]["texts"].bytes(), labels):
            digest.update(before[label] + text + b"\0")
    return digest.hexdigest()[:16]


class TokenIds(Items):
    """Lists of token ids, one behind the other in a flat array."""

    def __init__(self, lists=()):
        self.flat, self.ends = array("i"), array("q", [0])
        for ids in lists:
            self.append(ids)

    def append(self, ids):
        self.flat.extend(ids)
        self.ends.append(len(self.flat))

    def __len__(self):
        return len(self.ends) - 1

    def item(self, i):
        return self.flat[self.ends[i] : self.ends[i + 1]].tolist()


class Examples(Items):
    """Token ids and class numbers in pairs: each is made when it is asked for."""

    def __init__(self, input_ids, labels):
        self.input_ids, self.labels = input_ids, labels

    def __len__(self):
        return min(len(self.input_ids), len(self.labels))

    def item(self, i):
        return {"input_ids": self.input_ids[i], "label": self.labels[i]}


def keep(split, mask):
    """The rows of a split, {column: list or Texts}, where the mask is true."""
    return {
        column: values.keep(mask) if isinstance(values, Texts) else list(compress(values, mask))
        for column, values in split.items()
    }


def take(split, rows):
    """The given rows of a split, as lists."""
    return {column: [values[i] for i in rows] for column, values in split.items()}
