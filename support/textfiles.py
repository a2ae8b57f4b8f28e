"""From bytes to cells: how a text file is packed, encoded and divided, and which column is which.

Each find_...() adds a printable line to `notes` for what it decides, with the option that says
otherwise: a guess that nobody hears of would be found weeks later.
"""

import codecs
import contextlib
import csv
import gzip
import io
import re
import shlex
import unicodedata
import zipfile
import zlib
from collections import Counter
from itertools import filterfalse, islice, takewhile

from support.errors import UserError

csv.field_size_limit(1 << 30)  # a long review has more than the usual limit, 131,072 characters

SAMPLE = 1000  # rows that are looked at before something is decided
PIECE = 1 << 16  # bytes
MARKS = {codecs.BOM_UTF8: "utf-8-sig"}  # the first bytes of a file, and what they say
MARKS |= {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}  # before UTF-16's
MARKS |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
# Column names that say what a column holds. v1 and v2: what spreadsheets made of the SMS spam set.
TEXTS = "text review sentence comment content message body tweet document v2".split()
LABELS = "label sentiment class category stars rating target liked polarity v1 coarse intent"
LABELS = LABELS.split()


def plain_name(column):
    """A column's name without what people do not see in it."""
    return str(column).lstrip("\ufeff").strip().casefold()


# ------------------------------------------------------------------------------ 1. bytes
def name_in_zip(path):
    """The name of the one file in a .zip (a Mac adds files of its own)."""
    with zipfile.ZipFile(path) as packed:
        names = [name for name in packed.namelist() if not name.endswith("/")]
    names = [name for name in names if not name.startswith("__MACOSX/")]
    if len(names) != 1:
        held = ", ".join(names[:5]) or "nothing"
        raise UserError(f"{path} holds {len(names)} files ({held}): unpack it first")
    return names[0]


@contextlib.contextmanager
def open_bytes(path):
    """The bytes of a file, unpacked if it is a .gz, or a .zip of a single file."""
    kind = path.suffix.lower()
    try:
        if kind == ".zip":
            stream = zipfile.ZipFile(path).open(name_in_zip(path))
        else:
            stream = gzip.open(path) if kind == ".gz" else open(path, "rb")
        with stream:
            yield stream
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UserError(f"{path} cannot be unpacked ({error}): unpack it yourself") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def find_encoding(path, notes):
    """The encoding of a text file: by its mark, UTF-8 if all of it is that, else cp1252.

    cp1252 is what Windows wrote in Western countries. Nearly all bytes can be read so, Russian too:
    so it is said, with a word that depends on it, and what is clearly something else is refused.
    """
    with open_bytes(path) as stream:
        start = stream.read(PIECE)
    for mark, name in MARKS.items():
        if start.startswith(mark):
            if name != "utf-8-sig":
                notes.append(f"{path.name}: {name.upper()}, by the mark at its start")
            return name
    if b"\0" in start:
        what = "holds zero bytes: it is no text, or UTF-16 without its mark"
        raise UserError(f"{path} {what}; for that: --encoding utf-16-le, or utf-16-be")
    number, whole = 0, 0  # whole: lines, and later letters, that are UTF-8 and more than ASCII
    with open_bytes(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                whole += not line.decode().isascii()
            except UnicodeDecodeError:
                piece = line + stream.read(PIECE)  # and what it would be in either encoding
                break
        else:
            return "utf-8"
    signs = piece.decode("utf-8", "replace")
    broken = signs.count("\ufffd")
    whole += sum(sign > "\x7f" for sign in signs) - broken
    if whole >= broken:
        how = "mend that line, or read all of it otherwise with --encoding"
        raise UserError(f"{path} is UTF-8, but not in line {number}: {how}")
    piece = start if line in start else piece  # with what is before it
    western = piece.decode("cp1252", "replace")
    if "\ufffd" in western or sum(byte > 127 for byte in piece) > 0.3 * len(piece):
        how = "name it, such as --encoding cp1251, shift_jis or gb18030"
        raise UserError(f"{path} is neither UTF-8 nor cp1252, from line {number} on: {how}")
    words = [word for word in re.findall(r"[^\W\d_]+|\S", western) if not word.isascii()]
    word = max(words, key=lambda word: len(word) > 2)  # the first of these, if there is one
    notes.append(
        f"{path.name}: not UTF-8, so read as cp1252, in which a word is {word[:30]!r}; if that is "
        "wrong: --encoding NAME"
    )
    return "cp1252"


@contextlib.contextmanager
def open_text(path, encoding):
    """The lines of a text file, with their ends as they are. Raises UserError where it is not."""
    try:
        encoding = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
        # newline="": only the csv module knows which line ends stand inside a quoted text.
        with open_bytes(path) as stream, io.TextIOWrapper(stream, encoding, newline="") as lines:
            yield lines
    except LookupError as error:
        raise UserError(f"--encoding {encoding}: Python knows no such encoding") from error
    except UnicodeError as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{path} is not {encoding} ({reason}): name another with --encoding"
        ) from error


# ------------------------------------------------------------------------------ 2. cells
def cells_of(lines, cut, **dialect):
    """The rows of cells of some lines; None where they do not fit the dialect. cut: of a sample."""
    rows = []
    try:
        rows.extend(filter(None, csv.reader(lines, strict=True, **dialect)))
    except csv.Error:
        if not cut:
            return None
    return rows[:-1] if cut else rows


def find_dialect(path, encoding, kind, delimiter, quoting, notes):
    """How a text table is divided: (arguments of csv.reader, lines to leave out at its start).

    A separator is right where rows have equally many cells; of several such, the one that makes
    most. delimiter, quoting: what was asked for, or None.
    """
    with open_text(path, encoding) as lines:
        sample = list(islice(lines, SAMPLE + 1))
    cut = len(sample) > SAMPLE  # so its last row may go on behind it
    leave_out = len(list(takewhile(str.isspace, sample)))
    sample, said = sample[leave_out:SAMPLE], f"{path.name}: "
    if sample and (typed := re.fullmatch(r'"?sep=(.)"?\s*', sample[0], re.IGNORECASE)):
        sample, leave_out, delimiter = sample[1:], leave_out + 1, delimiter or typed[1]
    wanted = SEPARATORS.get(delimiter, delimiter) or ("\t" if kind == ".tsv" else "\t;|,")
    if delimiter and len(wanted) != 1:
        raise UserError(f"--delimiter {delimiter}: has to be one sign, or {', '.join(SEPARATORS)}")
    how = {"quoting": csv.QUOTE_NONE} if quoting == "none" else {}
    tried = []
    for sign in wanted:
        rows = cells_of(sample, cut, delimiter=sign, **how)
        spaced = cells_of(sample, cut, delimiter=sign, skipinitialspace=True, **how)
        # Blanks before a quote: the line 1, "a, b" has three cells, unless they are left out.
        blanks = quoting is None and spaced and stripped(spaced) != stripped(rows)
        rows = spaced if blanks or quoting == "blanks" else rows
        widths = [len(row) for row in rows or [[]]]
        usual = max(widths, key=lambda width: (widths.count(width), width == widths[0]))
        fits = min(usual, widths[0]) > 1 and widths.count(usual) / len(widths)
        # A comma, where nothing else decides.
        tried.append((fits, usual if fits else widths[0], sign == ",", sign, blanks))
    _, usual, _, sign, blanks = max(tried, key=lambda one: one[:3])
    sign = sign if usual > 1 or len(wanted) == 1 else ","  # a single column
    how |= {"delimiter": sign, "skipinitialspace": bool(blanks or quoting == "blanks")}
    if sign != "," and len(wanted) > 1:
        name = next(name for name, other in SEPARATORS.items() if other == sign)
        notes.append(f"{said}{name}s between the columns; if that is wrong: --delimiter")
    if how["skipinitialspace"] and not quoting:
        notes.append(f"{said}blanks before a quote are left out; if that is wrong: --quoting csv")
    quotes = quotes_in_tabs(path, encoding) if sign == "\t" and quoting is None else ""
    if quotes == "letters":
        how |= {"quoting": csv.QUOTE_NONE}
        notes.append(f"{said}quotes are letters like others; if that is wrong: --quoting csv")
    elif quotes:
        notes.append(f"{said}cells may stand in quotes; if that is wrong: --quoting none")
    return how, leave_out


def stripped(rows):
    return [[cell.lstrip(" ") for cell in row] for row in rows or ()]


def quotes_in_tabs(path, encoding):
    """What the quotes in a table with tabs are: "letters" or "quotes"; "" if there are none.

    They are letters where each line has as many tabs, and a cell holds quotes that no program would
    have written around it: `say "hi"`, or one that opens and never closes.
    """
    tabs, odd, quotes = set(), False, ""
    with open_text(path, encoding) as lines:
        for line in filterfalse(str.isspace, lines):
            tabs.add(line.count("\t"))
            if '"' in line:
                quotes, cells = "quotes", line.rstrip("\r\n").split("\t")
                odd |= any('"' in c and not re.fullmatch(r'"(?:[^"]|"")*"', c) for c in cells)
    return "letters" if odd and len(tabs) == 1 else quotes


def find_header(rows, header, known, said, notes):
    """Whether the first of `rows`, lists of cells, holds names. header: "yes", "no", or None.

    It does not where it looks like the others: a number where a name would stand, or a value that
    comes again below it. Row 1 must not be lost. known: names that would settle it.
    """
    if header:
        return header == "yes"
    first = list(map(plain_name, rows[0]))
    names = list(filter(None, first))
    others = [list(map(plain_name, row)) for row in rows[1:]]
    others = [row for row in others if row != first]  # files that were joined repeat their names
    seen = Counter(cell for row in others for cell in enumerate(row))
    again = max((seen[cell] for cell in enumerate(first) if cell[1]), default=0)
    looked_for = {plain_name(name) for name in known if not str(name).isdecimal()}
    if {*names} & {*TEXTS, *LABELS, *looked_for}:
        named = again < max(1, len(others) / 10)  # unless "comment" is a label that comes again
    elif names == [str(n) for n in range(len(names))] and len(names) > 1:
        return True  # 0, 1, 2: what pandas writes where a table has no names
    else:
        # Who looks for column 2 has a table without names, such as the one of a model's training.
        asked = any(str(name).isdecimal() for name in known)
        named = not (again or asked or any(re.fullmatch(r"-?[0-9.]+", name) for name in names))
        if named:
            notes.append(f"{said}the first row holds the column names; if not: --no-header")
    if not named:
        what = "no column names, so the columns are 1, 2, ..."
        notes.append(f"{said}{what}; if the first row holds names: --header")
    return named


# ------------------------------------------------------------------------------ 3. columns
def choose_columns(table, text_column=None, label_column=None, usual=(), needs_label=True):
    """Which columns of a Table hold the texts, and which the labels: (list of names, name or None).

    text_column, label_column: what was typed; "title,text" joins two columns. usual: what else is
    tried first, those of a model's training. Else they are known by their names. Raises one
    UserError for all that is missing, with the likeliest choice.
    """
    if not table.columns:
        raise UserError(f"{table.path} is empty: it has no rows, or none but the column names")
    if any(map(str.isdecimal, usual)):
        # A place among columns counts only where this table has no names, and texts in that place.
        numbers = list(map(str, range(1, len(table.columns) + 1)))
        same = table.columns == numbers and likeliest(table)[0] in usual[0].split(",")
        usual = usual if same else ()
    kinds = {"texts": (text_column, TEXTS), "labels": (label_column, LABELS)}
    chosen, missing, by_name = {}, {}, []
    for n, (kind, (typed, names)) in enumerate(kinds.items()):
        found = []
        for name in [typed] if typed else [*usual[n : n + 1], names[0]]:
            found = found or find_columns(table, name)
        alike = [column for column in table.columns if plain_name(column) in names]
        if not typed and not found and len(alike) == 1:
            found = alike
            by_name.append(f"{kind} in {alike[0]!r}")
        if not found and (typed or kind == "texts" or needs_label):
            named = f"column {typed!r}" if typed else f"column of {kind} that is known by its name"
            missing[kind] = named
        chosen[kind] = found
    where = getattr(table.path, "name", table.path)  # a data set of the hub has no path
    if by_name:
        table.notes.append(f"{where}: {', '.join(by_name)}, by the names")
    if missing:
        text, label, more = likeliest(table)
        likely = {"texts": text, "labels": label}
        named = [name for name in table.columns if name]
        if len(named) <= 2 and all(map(str.isdecimal, named)) and not (text_column or label_column):
            # Without names, two columns can be told apart by what they hold.
            wanted = likely if needs_label else ["texts"]
            chosen = {kind: [likely[kind]] for kind in wanted if likely[kind]}
            what = ", ".join(f"{kind} in column {name}" for kind, (name,) in chosen.items())
            else_ = "--text-column, --label-column"
            table.notes.append(f"{where}: {what}, by what they hold; else: {else_}")
            missing = {kind: named for kind, named in missing.items() if kind not in chosen}
    if missing:
        options = {"texts": "--text-column", "labels": "--label-column"}
        words = [f"{options[kind]} {shlex.quote(likely[kind] or 'NAME')}" for kind in missing]
        columns = ", ".join(map(repr, table.columns))
        one = table.columns[0] if len(table.columns) == 1 else ""
        if re.search(r"[,;|\t]", one) or one == "text" and list(missing) == ["labels"]:
            words = ["--delimiter, and what stands between its columns"]
        no_names = "; or, if the first row holds no names: --no-header"
        both = f" (or --text-column {shlex.quote(','.join(more))}, joined)"
        raise UserError(
            f"{table.path} has no {' and no '.join(missing.values())}; its columns are {columns}: "
            f"name {'it' if len(missing) == 1 else 'them'}, most likely with {' '.join(words)}"
            f"{both * ('texts' in missing and len(more) > 1)}"
            f"{no_names * any('--no-header' in note for note in table.notes)}"
        )
    label = (chosen.get("labels") or [None])[0]
    if label in chosen["texts"] or len(set(chosen["texts"])) < len(chosen["texts"]):
        raise UserError(f"{table.path}: a column cannot be a text twice, or text and label at once")
    return chosen["texts"], label


def find_columns(table, typed):
    """The columns that were typed, one or several with commas between them; [] without one."""
    if table.like(typed):
        return [table.like(typed)]
    parts = [table.like(part) for part in typed.split(",")]
    return parts if None not in parts else []


def likeliest(table):
    """(column of texts, column of labels, all columns of sentences) by what they hold.

    Texts have the most words. Labels are few and come again; or, in the first rows of a sorted
    file, are all one number. None where no column is like it.
    """
    words, kinds, sentences = {}, {}, []
    for column in filter(None, table.columns):
        cells = []
        with contextlib.suppress(UserError, ValueError, OverflowError):  # a date after 9999, say
            cells.extend(value for (value,) in islice(table.rows([column]), SAMPLE))
        values = [str(value) for value in cells if value not in (None, "")]
        whole, different = " ".join(values), len(set(values))
        words[column] = len(whole.split()), sum(map(str.isalpha, whole))
        sentences += [column] * (words[column][0] >= 3 * max(1, len(values)))
        few = different <= max(2, len(values) / (10 if len(values) > 100 else 2))
        number = any(re.fullmatch(r"-?[0-9]*\.[0-9]*[1-9]0*", value) for value in values)
        sure = different > 1 or values and values[0].isdecimal()
        if sure and few and 2 * len(values) >= len(cells) and not number:
            named = any(name in plain_name(column) for name in LABELS if name != "v1")
            kinds[column] = different == 1, not named, different
    text = max(words, key=words.get, default=None)
    others = [column for column in words if column != text]
    few = [column for column in others if column in kinds]
    label = others[0] if len(words) == 2 else min(few, key=kinds.get, default=None)
    return text, label, sentences


def is_blank(text):
    """Whether a text shows nothing: it may still hold spaces, control signs, zero-width joiners."""
    return not text[:1].isalnum() and all(unicodedata.category(sign)[0] in "CZ" for sign in text)


def usable_text(value):
    """(text, error) of a cell: what to show, and why it is no text (or "" if it is one)."""
    if value is None or value != value:  # nan, which tables write for a missing text
        return "", ""
    if not isinstance(value, str):
        return str(value)[:100], f"no text, but {type(value).__name__}"
    return value, ""
