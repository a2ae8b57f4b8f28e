"""Where the texts come from: a file, a folder or a data set of the hub, as texts and labels.

Whatever is wrong with one of them ends in a UserError that says where it is wrong and what to do:
a file of your own is read here for the first time, and seldom right at the first try.
"""

import csv
import hashlib
import json
import re
import unicodedata
from collections import Counter
from decimal import Decimal
from itertools import chain, dropwhile
from pathlib import Path

from support.errors import UserError
from support.hub import connect_to_hub, fetch_data, hide_bars, hub_error, patiently, without

csv.field_size_limit(1 << 30)  # a long review has more than the usual limit, 131,072 characters

# Labels that data sets abbreviate are written out, because every output shows them.
FULL_NAMES = {"neg": "negative", "pos": "positive"}


# ------------------------------------------------------------------------------ rows of a file
def read_csv(path):
    """Rows of a text table; comma, semicolon or tab, whichever its first line uses most."""
    # utf-8-sig: spreadsheets start a file with an invisible mark, which would become part of the
    # first name. newline="": only the csv module knows which line ends stand inside a quoted text.
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = dropwhile(str.isspace, file)
        first_line = next(lines, "")
        # The csv module counts, because separators inside quotes do not separate.
        delimiter = max(",;\t", key=lambda d: len(next(csv.reader([first_line], delimiter=d), [])))
        delimiter = "\t" if path.suffix.lower() == ".tsv" else delimiter
        # strict: else a quote that is never closed swallows the rest of the file in silence.
        reader = csv.DictReader(chain([first_line], lines), delimiter=delimiter, strict=True)
        try:
            twice = [name for name, n in Counter(reader.fieldnames or ()).items() if n > 1 and name]
            if twice:
                raise UserError(f"{path} has two columns named {twice[0]!r}: rename one")
            for row in reader:
                if None in row:  # DictReader's key for cells beyond the last column
                    raise UserError(
                        f"{path}, line {reader.line_num}: more cells than columns "
                        f"({', '.join(reader.fieldnames)}); a text that holds a {delimiter!r} must "
                        'be in double quotes, "like this"'
                    )
                if delimiter == "\t" and any("\t" in c and "\n" in c for c in row.values() if c):
                    raise UserError(
                        f"{path}, line {reader.line_num}: a quote that opens in one line and "
                        "closes in another has made one row of several; double the quotes of a "
                        'text, and put it in quotes, "like ""this"""'
                    )
                yield row
        except csv.Error as error:
            raise UserError(
                f"{path}, line {reader.reader.line_num} or before: not readable as CSV ({error}); "
                "a text that begins with a quote has to end in one, with its own quotes doubled"
            ) from error


def read_jsonl(path):
    """Rows of a file that holds one JSON object a line."""
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise UserError(f'{path}, line {number}: not an object like {{"text": "..."}}')
            yield row


def read_parquet(path):
    """Rows of a parquet file, read in slices."""
    import pyarrow.parquet  # comes with datasets; slow to import, so only where it is needed

    try:
        for slice_of_rows in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024):
            yield from slice_of_rows.to_pylist()
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is not a readable parquet file ({error})") from error


READERS = {".csv": read_csv, ".tsv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}


def read_rows(path, wanted=()):
    """Yield the rows of a .csv, .tsv, .jsonl or .parquet file as dicts, one at a time.

    The whole file is never in memory, so predict.py can read a file of any length.
    wanted: see check_columns(). Raises UserError with the place where something is wrong.
    """
    path, row = Path(path), None
    if not path.is_file():
        raise UserError(f"{path} is not a file: check the path")
    if path.suffix.lower() not in READERS:
        raise UserError(f"{path} has to end in one of {', '.join(READERS)}")
    try:
        for number, row in enumerate(READERS[path.suffix.lower()](path)):
            if number == 0:
                check_columns(row, wanted, path)
            yield row
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 ({error.reason}, byte 0x{error.object[error.start]:02x}): "
            "save it again with the encoding UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if row is None:
        raise UserError(f"{path} is empty: it has no rows, or none but the column names")


def check_columns(found, wanted, where):
    """Raise UserError unless all columns are found. wanted: {column: the option that names it}."""
    for column in wanted:
        if column not in found:
            raise UserError(
                f"{where} has no column {column!r}; its columns are {', '.join(map(repr, found))}: "
                f"name the right one with {wanted[column]}"
            )


# ------------------------------------------------------------------------------ texts and labels
def load_table(path, text_column="text", label_column="label", advice=""):
    """Read a whole file. Returns (texts, labels): two equally long lists, of values as they are.

    advice: what else can be done where the column of the labels is missing.
    """
    wanted = {text_column: "--text-column", label_column: f"--label-column{advice}"}
    rows = [(row.get(text_column), row.get(label_column)) for row in read_rows(path, wanted)]
    return [text for text, _ in rows], [label for _, label in rows]


def load_source(data, text_column="text", label_column="label"):
    """Load every labelled split of a file, a folder or a hub data set.

    data: a file (one split, "train"); a folder with train.* and, if there are any, validation.* and
        test.*; or a hub name such as "stanfordnlp/imdb" or, with a configuration, "glue:sst2".
    Returns {split name: (texts, labels)}, in the order of the rows; "train" is always there.
    Raises UserError where there is no such file, folder or data set, or it lacks a column.
    """
    path = Path(data)
    if path.is_file():
        return {"train": load_table(path, text_column, label_column)}
    if path.is_dir():
        found = load_folder(path, text_column, label_column)
    elif path.suffix.lower() in READERS or data.startswith((".", "/", "~")):
        raise UserError(f"--data {data}: there is no such file or folder")
    else:
        found = load_hub_dataset(data, text_column, label_column)
    # Competitions hand out test splits without answers. Those can measure nothing.
    for role, (_, labels) in list(found.items()):
        if all(label in (None, "") for label in labels):
            del found[role]
    if "train" not in found:
        where = "train file (train.csv, .tsv, .jsonl or .parquet) or train split with labels"
        raise UserError(f"--data {data}: has no {where}")
    return found


def load_folder(folder, text_column, label_column):
    """The splits of a folder of files that are named after them."""
    splits, also = {}, {"train": [], "validation": ["valid", "val", "dev"], "test": []}
    for role, others in also.items():
        files = [path for path in folder.iterdir() if path.stem in (role, *others)]
        files = [path for path in files if path.suffix.lower() in READERS]
        if len(files) > 1:
            raise UserError(f"{folder} holds {len(files)} files for {role!r}: keep one of them")
        advice = "; without labels it can test nothing: move it away" if role != "train" else ""
        for path in files:
            splits[role] = load_table(path, text_column, label_column, advice)
    return splits


def load_hub_dataset(data, text_column, label_column):
    """The splits of a data set on the hub (or in the hub's local cache)."""
    connect_to_hub(data)
    import datasets

    name, _, configuration = data.partition(":")
    # The card of IMDB, and of others, describes its splits in an older way, which harms nothing.
    # That a cached copy is read is said by fetch_data(), in one line.
    hide_bars()
    try:
        with without("datasets", "Ignoring part of dataset_info", "latest cached"):
            builder = patiently(lambda: datasets.load_dataset_builder(name, configuration or None))
        fetch_data(builder)
        patiently(builder.download_and_prepare)
        found = builder.as_dataset()
    except Exception as error:  # the library raises about ten types here, OSError among them
        raise hub_error("data set", data, error) from error

    splits = {}
    for role in [role for role in ("train", "validation", "test") if role in found]:
        table = found[role]
        if role != "train" and label_column not in table.column_names:
            continue  # without labels it can measure nothing
        wanted = {text_column: "--text-column", label_column: "--label-column"}
        check_columns(table.column_names, wanted, f"the data set {data!r}")
        labels = list(table[label_column])
        names = getattr(table.features[label_column], "names", None)
        if names:  # a ClassLabel: numbers that stand for names, with -1 for "not given"
            labels = [None if label in (None, -1) else names[label] for label in labels]
        splits[role] = list(table[text_column]), labels
    return splits


def label_name(value):
    """A label as it is shown: 'pos' becomes 'positive', 1.0 and '1.0' become '1', None stays None.

    Raises UserError for a number with a fraction (a score is not a class), and for a list.
    """
    if isinstance(value, (list, dict, bytes)):
        raise UserError(f"the label {value!r} is neither a number nor a name")
    text = "" if value is None else " ".join(str(value).split())
    if text.lower() == "nan":  # what tables write for a missing number
        return None
    # Not float(): it reads the names "1_1" and "1e1" as numbers, and loses digits of long ones.
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)", text):
        return FULL_NAMES.get(text, text) or None
    whole = Decimal(text).to_integral_value()
    if whole != Decimal(text):
        raise UserError(
            f"the label {text} is not a whole number: labels are classes, as numbers (0, 1, ...) "
            "or names; turn scores into classes first"
        )
    return str(whole or 0)  # "-0" is 0


def find_label_names(labels):
    """The classes of a data set, in their order: numbers by size, names by the alphabet.

    labels: raw values. Returns two or more names. Raises UserError where there are fewer, or where
    there are so many that this cannot be the label column.
    """
    counts = Counter(label_name(label) for label in labels)
    counts.pop(None, None)
    try:
        names = sorted(counts, key=int)
    except ValueError:
        names = sorted(counts)
    if len(names) < 2:
        only = f"only {names[0]!r}" if names else "nothing"
        raise UserError(f"the label column holds {only}: a classifier needs two classes or more")
    for name in names:  # printed, a hidden sign could fake another answer or color the terminal
        if not name.isprintable():
            raise UserError(f"the label {name!a} holds an invisible character: take it out")
    if len(names) > 100 and len(names) > sum(counts.values()) / 10:
        raise UserError(
            f"the label column holds {len(names):,} different values in {sum(counts.values()):,} "
            "rows: is it the right one? Name another with --label-column"
        )
    return names


def label_index(value, names):
    """The class number of a raw label, or None where the row has no label.

    A label is looked up by its name. Where no class has a number for a name, a number is a position
    in `names`: a table of 0 and 1 can be scored with a model that knows "negative" and "positive".
    """
    name = label_name(value)
    if name is None:
        return None
    if name in names:
        return names.index(name)
    positions = [str(c) for c in range(len(names))]
    if name in positions and not any(other.lstrip("-").isdecimal() for other in names):
        return positions.index(name)
    raise UserError(f"the label {name!r} is not among the classes {', '.join(names)}")


# ------------------------------------------------------------------------------ a split
def is_blank(text):
    """Whether a text shows nothing: it may still hold spaces, control signs, zero-width joiners."""
    return all(unicodedata.category(sign)[0] in "CZ" for sign in text)


def usable_text(value):
    """(text, error) of a cell: what to show, and why it is no text (or "" if it is one)."""
    if value is None or value != value:  # nan, which tables write for a missing text
        return "", ""
    if not isinstance(value, str):
        return str(value)[:100], f"no text, but {type(value).__name__}"
    return value, ""


def usable_rows(texts, labels, names, role, notes, clean):
    """Clean the texts, number the labels, and leave out the rows that lack one or the other.

    notes: gets a line if rows were left out. clean: dataset.clean().
    Returns {"texts": [...], "labels": [...]}. Raises UserError, with the number of the row, for a
    text that is none, or a label that is none of `names`.
    """
    kept = {"texts": [], "labels": []}
    for row, (text, label) in enumerate(zip(texts, labels), start=1):
        text, error = usable_text(text)
        try:
            if error:
                raise UserError(f"{text[:40]!r} is {error}")
            label = label_index(label, names)
        except UserError as error:
            raise UserError(f"{role}, row {row}: {error}") from error
        text = clean(text)
        if text and label is not None:
            kept["texts"].append(text)
            kept["labels"].append(label)
    if dropped := len(texts) - len(kept["texts"]):
        notes.append(f"{role}: dropped {dropped:,} rows with an empty or missing text or label")
    return kept


def fingerprint(splits):
    """16 letters that change when a text, a label, or the division of the data changes."""
    digest = hashlib.sha256()
    for role in sorted(splits):
        for text, label in zip(splits[role]["texts"], splits[role]["labels"]):
            digest.update(f"{role}\0{label}\0{text}\0".encode())
    return digest.hexdigest()[:16]


def require_all_classes(splits, names, notes):
    """Raise UserError for a split without one of the classes: it can neither teach nor measure it.

    The classic way to get one is `select(range(1000))`: the first rows of IMDB are all negative.
    """
    for role, split in splits.items():
        absent = [name for c, name in enumerate(names) if c not in set(split["labels"])]
        if absent:
            why = "; ".join(["more data, or a larger --subset"] + [n for n in notes if role in n])
            raise UserError(
                f"the {role} split ({len(split['labels'])} reviews) has no "
                f"{' and no '.join(absent[:3])} review: it takes {why}"
            )
