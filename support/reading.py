"""Files as people have them: what one is, which columns it has, and its rows one after the other.

open_table() looks before it reads. What it decides goes into the table's notes, a printable line
each; an option overrides it.
"""

import contextlib
import csv
import json
import re
import zipfile
from itertools import chain, islice
from pathlib import Path

from support.errors import UserError
from support.textfiles import LABELS, SAMPLE, SEPARATORS, TEXTS, find_dialect, find_encoding
from support.textfiles import find_header, name_in_zip, open_bytes, open_text, plain_name

KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".xlsx", ".txt", "")


class Table:
    """A file and what was understood of it. rows(columns) yields a tuple of values for each row.

    form: what the file is, in a few words. columns: their names as they stand, or "1", "2", ...
    where the file has none. classes: of a column whose numbers are classes, as the datasets library
    writes them: {column: their names}. notes: what was decided, printable lines.
    """

    def __init__(self, path, form, columns, rows, notes, classes=None):
        self.path, self.form, self.columns, self.rows = path, form, list(columns), rows
        self.notes, self.classes = notes, classes or {}

    def like(self, column):
        """The column of this name. Case and white space around it do not matter. None without."""
        alike = [name for name in self.columns if plain_name(name) == plain_name(column)]
        found = column if column in self.columns else alike[0] if len(alike) == 1 else None
        if self.columns.count(found) > 1:
            raise UserError(f"{self.path} has two columns named {found!r}: rename one")
        return found


def kind_of(path):
    """What a file's name says that it is, one of KINDS, also where it is packed; else None."""
    if path.suffix.lower() == ".zip" and path.is_file() and zipfile.is_zipfile(path):
        path = Path(name_in_zip(path))
    kind = Path(path.name.lower().removesuffix(".gz").removesuffix(".zip")).suffix
    return kind if kind in KINDS else None


# ------------------------------------------------------------------------------ 1. each kind
def cut(path, form, records, header, notes, unit="line"):
    """A Table of rows of cells. records(): yields (number, cells), perhaps names at first.

    header: (what was asked for, names that would settle it), see find_header().
    """
    sample = [cells for _, cells in islice(records(), SAMPLE)]
    named = sample and find_header(sample, *header, f"{path.name}: ", notes)
    widths = list(map(len, sample))
    width = len(sample[0]) if named else max(widths, key=widths.count, default=0)
    columns = [str(cell).lstrip("\ufeff") for cell in (sample[0] if named else range(1, width + 1))]

    def rows(wanted):
        places, spilled, headers = [columns.index(column) for column in wanted], 0, 0
        nameless = [i for i, name in enumerate(columns) if i and not name]
        for number, row in islice(records(), 1 if named else 0, None):
            spilled += any(row[i] for i in nameless if i < len(row))
            if named and [cell.lstrip("\ufeff") for cell in row] == columns:
                headers += 1  # files that were joined, with the names in each
                continue
            if len(row) > width and any(row[width:]):
                raise UserError(
                    f"{path}, {unit} {number}: more cells than columns ({', '.join(columns)}); a "
                    'text that holds what stands between cells must be in double quotes, "like '
                    'this"; or name what that is: --delimiter'
                )
            yield tuple(row[i] if i < len(row) else None for i in places)
        for count, what in (
            (spilled, "rows go on in columns without a name, which are not read"),
            (headers, "rows repeat the column names, and are left out"),
        ):
            if count and f"{path.name}: {count:,} {what}" not in notes:
                notes.append(f"{path.name}: {count:,} {what}")

    form += ", column names in the first row" if named else ", no column names"
    return Table(path, form, columns, rows, notes)


def read_cells(path, kind, encoding, delimiter, quoting, header, notes):
    """A Table of a text file with separators."""
    how, leave_out = find_dialect(path, encoding, kind, delimiter, quoting, notes)

    def records():
        with open_text(path, encoding) as lines:
            # strict: else a quote that is never closed swallows the rest of the file in silence.
            reader = csv.reader(islice(lines, leave_out, None), strict=True, **how)
            last, what = 0, "a quoted text holds a line that looks like a row"
            try:
                for row in filter(None, reader):
                    number, spans = reader.line_num + leave_out, reader.line_num - last > 1
                    last = reader.line_num
                    if spans and swallows(row, how) and not any(what in note for note in notes):
                        how_else = "if it is one: --quoting none"
                        notes.append(f"{path.name}, line {number}: {what}; {how_else}")
                    yield number, row
            except csv.Error as error:
                raise UserError(
                    f"{path}, line {reader.line_num + leave_out} or before: not readable as CSV "
                    f"({error}); a text that begins with a quote has to end in one, with its own "
                    "quotes doubled; or, if quotes are letters like others: --quoting none"
                ) from error

    names = {sign: f"{name}-separated" for name, sign in SEPARATORS.items()}
    form = names.get(how["delimiter"], f"separated by {how['delimiter']!r}")
    return cut(path, f"{spoken(encoding)}, {form}", records, header, notes)


def swallows(row, how):
    """Whether a cell holds a line that looks like a row: a quote may have been left open."""
    lines = [line for cell in row for line in cell.splitlines()[1:]]
    parts = [line.split(how["delimiter"]) for line in lines]
    return any(len(p) == len(row) > 1 and min(len(p[0]), len(p[-1])) < 12 for p in parts)


def read_json(path, encoding, notes):
    """A Table of an object a line, or of a file that is one list of objects."""

    def objects():
        with open_text(path, encoding) as lines:
            lines = ((f"line {n}", line) for n, line in enumerate(lines, start=1) if line.strip())
            first = next(lines, ("", ""))
            if first[1].lstrip().startswith("[") and path.suffix.lower() != ".jsonl":
                whole = parsed("the list", "".join([first[1], *(line for _, line in lines)]))
                rows = ((f"entry {n}", row) for n, row in enumerate(whole, start=1))
            else:
                lines = chain([first] * bool(first[1]), lines)
                rows = ((place, parsed(place, line)) for place, line in lines)
            for place, row in rows:
                if not isinstance(row, dict):
                    raise UserError(f'{path}, {place}: not an object like {{"text": "..."}}')
                if len(row) > 1 and all(isinstance(value, list) for value in row.values()):
                    lists = ", ".join(map(repr, list(row)[:4]))
                    how = "three lines write them as CSV files, see docs/your-texts.md"
                    raise UserError(f"{path}: holds lists ({lists}), not rows: {how}")
                yield row

    def parsed(place, words):
        try:
            return json.loads(words)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, {place}: not JSON ({error})") from error

    # A key that the first row lacks is a column all the same.
    columns = dict.fromkeys(key for row in islice(objects(), SAMPLE) for key in row)
    return Table(path, f"{spoken(encoding)}, JSON", columns, pick(objects), notes)


def spoken(encoding):
    return "UTF-8 with its mark" if encoding == "utf-8-sig" else encoding.upper()


def pick(records):
    """The rows() of a Table whose records() yields dicts."""
    return lambda wanted: (tuple(map(row.get, wanted)) for row in records())


def read_parquet(path, notes):
    """A Table of a parquet file; only the columns that are asked for are read, in slices."""
    import pyarrow.parquet  # comes with datasets; slow to import, so only where it is needed

    @contextlib.contextmanager
    def opened():
        try:
            with open_bytes(path) as stream:
                yield pyarrow.parquet.ParquetFile(stream)
        except (pyarrow.ArrowException, OverflowError, ValueError) as error:
            raise UserError(f"{path} is not a readable parquet file ({error})") from error

    with opened() as file:
        schema = file.schema_arrow
    features = {}
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):  # not of datasets
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"].copy()
    classes = {
        name: one["names"]
        for name, one in features.items()
        if isinstance(one, dict) and one.get("_type") == "ClassLabel" and "names" in one
    }

    def rows(wanted):
        with opened() as file:
            for part in file.iter_batches(batch_size=1024, columns=list(dict.fromkeys(wanted))):
                yield from zip(*(part.column(name).to_pylist() for name in wanted))

    return Table(path, "parquet", schema.names, rows, notes, classes)


def read_sheet(path, header, notes):
    """A Table of the first sheet of a spreadsheet."""
    try:
        import openpyxl
    except ImportError as error:
        how = "pip install -r requirements-extra.txt, or save the sheet as .csv"
        raise UserError(f"{path}: to read spreadsheets takes openpyxl: {how}") from error

    def records():
        with open_bytes(path) as stream:
            try:
                book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
                book.worksheets[0].reset_dimensions()  # what the file says of them may be wrong
                for number, row in enumerate(book.worksheets[0].values, start=1):
                    if any(cell is not None for cell in row):
                        # As a CSV file would hold it: a text may be a number, 1984.
                        yield number, ["" if cell is None else str(cell) for cell in row]
            except Exception as error:  # a damaged file: about ten types
                raise UserError(f"{path} is not a readable spreadsheet ({error})") from error
        what = f"{path.name}: its first sheet of {len(book.worksheets)} is read"
        if len(book.worksheets) > 1 and what not in notes:
            notes.append(what)

    return cut(path, "sheet", records, header, notes, "row")


def class_folders(folder):
    """{class: folder} of a folder whose folders are classes that hold .txt files, else {}."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    if any(re.split("[.-]", path.name.lower())[0] == "train" for path in inside):
        return {}  # it has splits
    inside = [path for path in inside if path.is_dir() and not path.name.startswith(".")]
    return {path.name: path for path in inside if texts_in(path)}


def texts_in(folder):
    """The .txt files of a folder."""
    return [p for p in folder.iterdir() if p.suffix.lower() == ".txt" and p.name[0] != "."]


def read_folders(folder, encoding, notes):
    """A Table of class folders, as IMDB is published (train/pos/0_9.txt): a text a file."""
    classes = class_folders(folder)
    if "unsup" in classes and len(classes) > 2:
        notes.append(f"{folder.name}: unsup, IMDB's texts without labels, is left out")
        del classes["unsup"]

    def number(path):  # 2_1.txt before 10_1.txt: neighbours are reviews of one film
        return [int(part) if part.isdecimal() else 0 for part in path.stem.split("_")], path.name

    left_out = sum(len(list(place.iterdir())) - len(texts_in(place)) for place in classes.values())
    if left_out:
        notes.append(f"{folder.name}: {left_out:,} files that do not end in .txt are left out")

    def records():
        told = []
        for name, place in classes.items():
            for path in sorted(texts_in(place), key=number):
                with open_text(path, encoding or find_encoding(path, told)) as lines:
                    yield {"text": lines.read(), "label": name}
            notes.extend([note for note in told[:1] if not any("cp1252" in n for n in notes)])

    form = "a folder for each class, a file for each text"
    return Table(folder, form, ["text", "label"], pick(records), notes)


# ------------------------------------------------------------------------------ 2. all of them
def open_table(path, known=(), encoding=None, delimiter=None, quoting=None, header=None, told=None):
    """Look at a file, or a folder of class folders, and return it as a Table.

    encoding, delimiter, quoting ("csv", "blanks" or "none"), header ("yes" or "no"): what the user
    knows; None to find out. known: columns that are looked for. told: a list for the notes. Only a
    .json list is kept in memory; any other file may be of any length. Raises UserError, with the
    place where something is wrong; so may the rows.
    """
    path, notes = Path(path), [] if told is None else told
    header = header, known
    if class_folders(path):
        return read_folders(path, encoding, notes)
    if not path.is_file():
        raise UserError(f"{path} is not a file: check the path")
    kind = kind_of(path)
    if kind is None:
        known = ", ".join(filter(None, KINDS))
        what = f"has to end in one of {known}, perhaps with .gz or .zip behind it"
        raise UserError(f"{path} {what}; if it is a text file, rename it to .txt")
    if kind == ".parquet":
        return read_parquet(path, notes)
    if kind == ".xlsx":
        return read_sheet(path, header, notes)
    encoding = encoding or find_encoding(path, notes)
    if kind in (".txt", "") and not delimiter:
        kind = kind_by_content(path, encoding, notes)
    if kind == "lines":
        return read_lines(path, encoding, notes)
    if kind in (".jsonl", ".ndjson", ".json"):
        return read_json(path, encoding, notes)
    return read_cells(path, kind, encoding, delimiter, quoting, header, notes)


def kind_by_content(path, encoding, notes):
    """What a file is whose name does not say it: one of KINDS, or "lines", a text a line."""
    with open_text(path, encoding) as lines:
        sample = [line for line in islice(lines, SAMPLE) if line.strip()] or [""]
    names = {plain_name(name) for name in re.split("[,;|]", sample[0])}
    tabs = {line.count("\t") for line in sample}
    if sample[0].lstrip().startswith(("{", "[{")):
        kind, what = ".json", "JSON"
    elif len(tabs) == 1 and tabs != {0}:
        kind, what = ".tsv", "a table with tabs"
    elif names & {*TEXTS} and names & {*LABELS}:
        kind, what = ".csv", "a table with separators"
    else:
        kind, what = "lines", "a text a line"
    notes.append(f"{path.name}: read as {what}; if that is wrong: give it its suffix")
    return kind


def read_lines(path, encoding, notes):
    """A Table of a text a line."""

    def records():
        with open_text(path, encoding) as lines:
            for line in filter(str.strip, lines):
                yield {"text": line.rstrip("\r\n")}

    return Table(path, f"{spoken(encoding)}, a text a line", ["text"], pick(records), notes)


# ------------------------------------------------------------------------------ 3. its rows
def texts_and_labels(table, columns, label_column):
    """Yield (text, label) of each row, as they stand; several columns are joined to a text."""
    for *texts, label in table.rows([*columns, label_column or columns[0]]):
        if len(texts) > 1:
            given = [str(x) for x in texts if x is not None and x == x and str(x).strip()]  # no nan
            texts = ["\n\n".join(given) or None]
        yield texts[0], label if label_column else None


def read_rows(path, wanted=()):
    """Yield the rows of a file as dicts. wanted: columns that have to be there (none: all)."""
    table = open_table(path, wanted)
    for column in wanted:
        if table.like(column) is None:
            found = ", ".join(map(repr, table.columns))
            raise UserError(f"{path} has no column {column!r}; its columns are {found}")
    columns = [table.like(column) for column in wanted] or table.columns
    row = None
    for row in table.rows(columns):
        yield dict(zip(wanted or columns, row))
    if row is None:
        raise UserError(f"{path} is empty: it has no rows, or none but the column names")
