"""Where the texts come from: a file, a folder or a data set of the hub, as texts and labels.

Whatever is wrong with one of them ends in a UserError that says where it is wrong and what to do:
a file of your own is read here for the first time, and seldom right at the first try.
"""

import re
import unicodedata
from collections import Counter
from decimal import Decimal
from pathlib import Path

from support.errors import UserError
from support.hub import connect_to_hub, fetch_data, hide_bars, hub_error, patiently, without
from support.large import keep, read_whole
from support.reading import Table, class_folders, kind_of, open_table, texts_and_labels
from support.textfiles import choose_columns, find_columns

# How a file is to be read, where the user knows better: options of several commands.
HOW = ("text_column", "label_column", "labels", "encoding", "delimiter", "quoting", "header")
ROLES = {"train": (), "validation": ("valid", "val", "dev"), "test": ()}
# IMDB's labels are written out, because every output shows them.
FULL_NAMES = {"neg": "negative", "pos": "positive"}
NO_LABEL = ("na", "n/a", "null", "none", "nan")  # what tables write where there is none
MANY = 100  # classes: more of them with hardly a text each are no classes


# ------------------------------------------------------------------------------ 1. sources
class Source:
    """What a data set holds: splits {role: (Texts, labels)}, as they stand, in their order.

    how: see HOW; and "usual", the columns to try first, and "clean", what to make of each text:
    dataset.clean(), or nothing. text_column, label_column: where they were
    found in train. classes: the names of all in their order, where the data say so, else None.
    notes: what was decided on the way, printable lines.
    """

    def __init__(
        self, data, usual=(), text_column=None, label_column=None, labels=None, clean=str, **how
    ):
        self.data, self.asked, self.how = data, (text_column, label_column, usual), how
        self.clean = clean
        self.splits, self.classes, self.notes, self.form = {}, None, [], ""

    def open(self, path, notes=None):
        """A file as a Table, read as was asked for."""
        *typed, usual = self.asked
        known = ",".join(filter(None, [*typed, *usual])).split(",")
        return open_table(path, known, **self.how, told=notes)

    def add(self, role, table):
        """Read a Table as a split. Without labels it is left out, unless it is train."""
        *typed, usual = self.asked
        if role != "train":  # the others may have other names
            typed = [name if name and find_columns(table, name) else None for name in typed]
        columns, label_column = choose_columns(table, *typed, usual, needs_label=role == "train")
        if label_column is None:
            self.notes.append(f"{role}: has no labels, so it is left out")
            return
        texts, labels = read_whole(texts_and_labels(table, columns, label_column), self.clean)
        if names := table.classes.get(label_column):  # numbers that stand for names
            names = list(map(label_name, names))
            labels = names_of_numbers(labels, names, table.path)
            self.classes = names if role == "train" else self.classes
        self.notes += [note for note in dict.fromkeys(table.notes) if note not in self.notes]
        self.splits[role] = texts, labels
        if role == "train":
            self.text_column, self.label_column = ",".join(columns), label_column
        self.form = self.form or table.form


def how_to_read(arguments, typed, same):
    """How to read data for a model: as typed, else as in its training if it is the same data.

    arguments: of its run.json. Other data are looked at anew. The meaning of labels stays. The same
    data are also divided by the same --fold.
    """
    how = {name: arguments.get(name) for name in ((*HOW, "fold") if same else ["labels"])}
    how |= {name: value for name, value in typed.items() if name in HOW and value is not None}
    return how | {"usual": tuple(filter(None, map(arguments.get, HOW[:2])))}


def load_table(path, **how):
    """Read a whole file: a Source with one split, "train"."""
    source = Source(path, **how)
    source.add("train", source.open(path))
    if not source.splits["train"][0]:
        raise UserError(f"{path} is empty: it has no rows, or none but the column names")
    return source


def load_source(data, **how):
    """Load every labelled split of a file, a folder or a hub data set. Returns a Source.

    data: a file (one split, "train"), or a folder of class folders; a folder with train.* and, if
        there are any, validation.* and test.*; or a hub name such as "stanfordnlp/imdb" or, with a
        configuration, "glue:sst2".
    how: see HOW; what is not given is found out. Raises UserError where there is no such file,
    folder or data set, or it lacks a column.
    """
    path = Path(data)
    if path.is_file() or class_folders(path):
        return load_table(data, **how)
    source = Source(data, **how)
    if path.is_dir():
        add_folder(source, path)
    elif path.suffix and kind_of(path) is not None or data.startswith((".", "/", "~")):
        raise UserError(f"--data {data}: there is no such file or folder")
    else:
        add_hub_dataset(source)
    # Competitions hand out test splits without answers. Those can measure nothing. -1 is an answer
    # only where train has it too.
    trained = set(map(str, source.splits.get("train", ((), ()))[1])) - {"None", ""}
    for role, (_, labels) in list(source.splits.items()):
        nothing = {"", "-1", *NO_LABEL} - set(map(str.lower, trained))
        if {str(label).lower() for label in labels} <= nothing:
            del source.splits[role]
            source.notes.append(f"{role}: has no labels, so it is left out")
    if "train" not in source.splits:
        where = "train file (train.csv, .tsv, .jsonl, .parquet, ...) or train split with labels"
        raise UserError(f"--data {data}: has no {where}")
    return source


def add_folder(source, folder):
    """Add the splits of a folder of files, or of folders of class folders, named after them.

    As the hub stores them, a split may be in several files (train-00000-of-00002.parquet), and all
    in a folder named data.
    """
    found = {}
    for place in (folder, folder / "data"):
        for path in sorted(place.iterdir()) if place.is_dir() and not found else ():
            stem = path.name.lower().split(".")[0]
            part = re.fullmatch(r"(.+?)-\d{5}-of-(\d{5})", stem)
            for role, others in ROLES.items():
                named = (part[1] if part else stem) in (role, *others)
                if named and (class_folders(path) or path.is_file() and kind_of(path) is not None):
                    found.setdefault(role, []).append((path, int(part[2]) if part else 1))
    for role in [role for role in ROLES if role in found]:
        paths = [path for path, _ in found[role]]
        if any(of != len(paths) for _, of in found[role]):
            names = ", ".join(path.name for path in paths)
            raise UserError(f"{folder}: of {role!r} there is {names}: keep one file, or all parts")
        notes = []  # of all parts, also while they are read
        tables = [source.open(path, notes) for path in paths]
        for other in tables[1:]:
            if (other.columns, other.classes) != (tables[0].columns, tables[0].classes):
                raise UserError(f"{other.path} has other columns or classes than {tables[0].path}")
        rows, first = [table.rows for table in tables], tables[0]
        first.rows = lambda wanted, rows=rows: (row for one in rows for row in one(wanted))
        source.add(role, first)


def add_hub_dataset(source):
    """Add the splits of a data set on the hub (or in the hub's local cache)."""
    data = source.data
    connect_to_hub(data)
    import datasets

    name, _, configuration = data.partition(":")
    # The card of IMDB, and of others, describes its splits in an older way, which harms nothing.
    # That a cached copy is read is said by fetch_data(), in one line.
    hide_bars()
    try:
        with without("datasets", "Ignoring part of dataset_info", "latest cached"):
            builder = patiently(datasets.load_dataset_builder, name, configuration or None)
        fetch_data(builder)
        patiently(builder.download_and_prepare)
        found = builder.as_dataset()
    except Exception as error:  # the library raises about ten types here, OSError among them
        raise hub_error("data set", data, error) from error

    for role in [role for role in ROLES if role in found]:
        split = found[role]
        names = {key: getattr(kind, "names", None) for key, kind in split.features.items()}
        where = f"the data set {data!r}"
        rows = lambda wanted, split=split: zip(*(split[column] for column in wanted))  # noqa: E731
        source.add(role, Table(where, "", split.column_names, rows, [], names))


# ------------------------------------------------------------------------------ 2. labels
def label_name(value):
    """A label as it is shown: 1.0 and "1.0" become "1", nothing becomes None; names stay.

    Raises UserError for a number with a fraction (a score is not a class), and for a list.
    """
    if isinstance(value, (list, dict, bytes)):
        raise UserError(f"the label {value!r} is neither a number nor a name")
    text = "" if value is None or value != value else " ".join(str(value).split())
    text = unicodedata.normalize("NFC", text)  # an accent may be a sign of its own, and look alike
    # Not float(): it reads the names "1_1" and "1e1" as numbers, and loses digits of long ones.
    # And 007 is a name: a number does not begin with a 0.
    if not re.fullmatch(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)", text):
        return text or None
    whole = Decimal(text).to_integral_value()
    if whole != Decimal(text):
        raise UserError(
            f"the label {text} is not a whole number: labels are classes, as numbers (0, 1, ...) "
            "or names; turn scores into classes first"
        )
    return str(whole or 0)  # "-0" is 0


def names_of_numbers(labels, names, where):
    """Labels of a ClassLabel by name. -1 is how the datasets library writes "not given"."""
    found = {None: None, -1: None, **dict(enumerate(names)), **{name: name for name in names}}
    try:
        return [found[label] for label in labels]
    except (KeyError, TypeError) as error:
        what = f"has the label {error} where its classes are 0 to {len(names) - 1}"
        raise UserError(f"{where} {what} ({', '.join(names[:10])})") from error


def plain_labels(values):
    """The labels of a column by name, see label_name(); each different object is looked at once."""
    names = dict.fromkeys(map(id, values))
    for row, value in enumerate(values, start=1):
        if names[id(value)] is None:
            try:
                names[id(value)] = label_name(value) or ""
            except UserError as error:
                raise UserError(f"row {row}: {error}") from error
    return [names[key] or None for key in map(id, values)]


def parse_renames(labels):
    """--labels "1=negative,2=positive,3=" as a dict; None for 3, "no label". Raises UserError."""
    pairs = [pair.partition("=") for pair in (labels or "").split(",") if pair.strip()]
    if not all(old.strip() and sign for old, sign, _ in pairs):
        raise UserError(f"--labels {labels}: write it like this: --labels 1=negative,2=positive")
    return {label_name(old): new.strip() or None for old, _, new in pairs}


def find_label_names(labels, renames=None, classes=None):
    """The classes of a data set, in their order: the data's own, numbers by size, or the alphabet.

    labels: raw values. renames: of --labels. classes: of a Source. Returns two or more names.
    Raises UserError where there are fewer, or so many that this cannot be the label column.
    """
    renames = parse_renames(renames)
    counts = Counter(plain_labels(labels))
    counts.pop(None, None)
    if unknown := set(renames) - set(counts):
        raise UserError(f"--labels: no row has the label {min(unknown)!r}")
    known = {*renames, *(classes or ())}  # in the schema of a file "none" may be a class
    no_label = [name for name in counts if name.lower() in NO_LABEL and name not in known]
    for name in no_label if len(no_label) < len(counts) else ():
        del counts[name]
    names = [name for name in classes or sorted(counts) if name in counts]
    if not classes and all(re.fullmatch(r"-?[0-9]+", name) for name in names):
        names.sort(key=int)
    if set(names) == set(FULL_NAMES) and not renames:
        names = [FULL_NAMES[name] for name in names]
    names = [renames.get(name, name) for name in names]
    names = [name for name in dict.fromkeys(names) if name is not None]
    if len(names) < 2:
        only = f"only {names[0]!r}" if names else "nothing"
        for name in no_label:
            only += f" (and {name!r}, read as no label; else: --labels {name}={name})"
        raise UserError(f"the label column holds {only}: a classifier needs two classes or more")
    for name in names:  # printed, a hidden sign could fake another answer or color the terminal
        if not name.isprintable():
            raise UserError(f"the label {name!a} holds an invisible character: take it out")
    rows = sum(counts.values())
    if len(names) > MANY and len(names) > rows / 3:
        raise UserError(
            f"the label column holds {len(names):,} different values in {rows:,} rows: is it the "
            "right one? Name another with --label-column"
        )
    return names


def label_indices(labels, names, where, notes, renames=None, numbers=None):
    """The class number of each raw label, None where a row has no label.

    A label is looked up by its name. A number is a class's position only where the labels are
    exactly 0 ... C-1, or where the model was trained on such `numbers` (names by number). What is
    not taken literally is said in `notes`. Raises UserError for a label that is none of `names`.
    """
    found, renames = plain_labels(labels), parse_renames(renames)
    counts, index, unknown = Counter(found), {None: None}, []
    counts.pop(None, None)
    labelled = any(name.lower() not in NO_LABEL for name in counts)

    def place_of(name):
        name = renames.get(name, name)
        full = FULL_NAMES.get(name.lower(), name)
        name = full if full in map(str.lower, names) and name not in names else name
        alike = [i for i, other in enumerate(names) if other.casefold() == name.casefold()]
        return names.index(name) if name in names else alike[0] if len(alike) == 1 else None

    def no_label(name, way_out=""):
        index[name] = None
        notes.append(f"{where}: {counts[name]:,} rows with {name!r} as label have none{way_out}")

    for name in counts:
        if renames.get(name, name) is None:
            no_label(name, ", as was asked for")
        elif (place := place_of(name)) is not None:
            index[name] = place
            if names[place] not in (name, FULL_NAMES.get(name.lower()), renames.get(name)):
                notes.append(f"{where}: the label {name!r} is read as {names[place]!r}")
        elif name.lower() in NO_LABEL and labelled:
            no_label(name, f"; if it is a class: --labels {name}={name}")
        else:
            unknown.append(name)
    if unknown == ["-1"] or numbers and "-1" in unknown:
        unknown.remove("-1")  # how the datasets library writes "not given"
        no_label("-1", "; else: --labels=-1=...")
    places = set(map(str, range(len(names))))
    known = {*unknown} <= set(map(str, range(len(numbers or ()))))
    alone = not any(place is not None for place in index.values())
    if unknown and (known or {*unknown} == places and alone):
        order = numbers if known else names
        meant = {name: place_of(order[int(name)]) for name in sorted(unknown, key=int)}
        # "1 star", "2 stars": there a 1 may mean either.
        if None not in meant.values() and not any(re.match("[+-]?[0-9]", n) for n in names):
            index |= meant
            said = ", ".join(f"{name} as {names[place]}" for name, place in meant.items())
            notes.append(f"{where}: the label is a number: {said}; else: --labels 0=...")
            unknown = []
    if unknown:
        row, there = found.index(unknown[0]) + 1, ", ".join(sorted(counts)[:10])
        free = [name for i, name in enumerate(names) if i not in index.values()]
        say = ",".join(f"{old}={new}" for old, new in zip(sorted(unknown), free))
        say = f"Say what they mean, such as --labels={say}; or leave" if say else "Leave"
        raise UserError(
            f"{where}, row {row}: the label {unknown[0]!r} is not among the classes "
            f"{', '.join(names[:10])}; the labels here are {there}. {say} rows out with "
            f"--labels={unknown[0]}="
        )
    return [index[name] for name in found]


# ------------------------------------------------------------------------------ a split
def usable_rows(texts, labels, names, role, notes, renames=None, numbers=None):
    """Number the labels, and leave out the rows that lack a text or a label.

    texts, labels: of a Source. notes: gets a line if rows were left out. renames, numbers: see
    label_indices(). Returns {"texts": Texts, "labels": [...]}. Raises UserError, with the number of
    the row, for a text that is none, or a label that is none of `names`.
    """
    labels = label_indices(labels, names, role, notes, renames, numbers)
    if texts.error:
        raise UserError(f"{role}, {texts.error}")
    usable = [size > 0 and label is not None for size, label in zip(texts.sizes(), labels)]
    if dropped := usable.count(False):
        notes.append(f"{role}: dropped {dropped:,} rows with an empty or missing text or label")
    return keep({"texts": texts, "labels": labels}, usable)


def require_all_classes(splits, names, notes):
    """Raise UserError where a class is not in train, and so cannot be learned, or a split is empty.

    The classic way to get one is `select(range(1000))`: the first rows of IMDB are all negative.
    What validation or test lack they cannot measure: that is said.
    """
    for role, split in splits.items():
        there = set(split["labels"])
        absent = [name for c, name in enumerate(names) if c not in there]
        some = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        if absent and (role == "train" or len(absent) == len(names)):
            why = "; ".join(["more data, or a larger --subset"] + [n for n in notes if role in n])
            has = f"the {role} split ({len(split['labels'])} reviews) has no review of {some}"
            raise UserError(f"{has}: it takes {why}")
        if absent:
            notes.append(f"warning: no {role} review is {some}: how well that is told, nobody sees")
    for name in names:
        if alike := [n for n in names if n > name and n.casefold() == name.casefold()]:
            as_one = f"as one: --labels {name}={alike[0]}"
            notes.append(f"warning: {name} and {alike[0]} are two classes; {as_one}")
