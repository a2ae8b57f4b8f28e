"""From bytes to cells: how a text file is packed, encoded and divided, and what columns hold.

Each find_...() adds a printable line to `notes` for what it decides, with the option that says
otherwise: a guess that nobody hears of would be found weeks later.
"""

import codecs
import contextlib
import csv
import gzip
import io
import re
import zipfile
import zlib
from itertools import dropwhile, islice

from support.errors import UserError

csv.field_size_limit(1 << 30)  # a long review has more than the usual limit, 131,072 characters

SAMPLE = 1000  # rows that are looked at before something is decided
PIECE = 1 << 16  # bytes
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
# Column names that say what a column holds. v1 and v2: what spreadsheets made of the SMS spam set.
TEXTS = "text review sentence comment content message body tweet document v2".split()
LABELS = "label sentiment class category stars rating target liked polarity v1 coarse intent"
LABELS = LABELS.split()


def plain_name(column):
    """A column's name without what people do not see in it."""
    return str(column).strip().casefold()


# ------------------------------------------------------------------------------ 1. bytes
@contextlib.contextmanager
def open_bytes(path):
    """The bytes of a file, unpacked if it is a .gz, or a .zip of a single file."""
    kind = path.suffix.lower()
    try:
        with contextlib.ExitStack() as opened:
            if kind == ".gz":
                yield opened.enter_context(gzip.open(path))
            elif kind == ".zip":
                packed = opened.enter_context(zipfile.ZipFile(path))
                names = [one.filename for one in packed.infolist() if not one.is_dir()]
                names = [name for name in names if not name.startswith("__MACOSX/")]
                if len(names) != 1:
                    held = ", ".join(names[:5]) or "nothing"
                    raise UserError(f"{path} holds {len(names)} files ({held}): unpack it first")
                yield opened.enter_context(packed.open(names[0]))
            else:
                yield opened.enter_context(open(path, "rb"))
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UserError(f"{path} cannot be unpacked ({error}): unpack it yourself") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def find_encoding(path, notes):
    """The encoding of a text file: by its mark, UTF-8 if all of it is that, else cp1252.

    cp1252 is what Windows wrote in Western countries. Any bytes can be read so, even Russian ones:
    so it is said, with a word that depends on it, and what is clearly something else is refused.
    """
    with open_bytes(path) as stream:
        piece, lines = stream.read(PIECE), 1
        for mark, name in MARKS.items():
            if piece.startswith(mark):
                notes += [f"{path.name}: UTF-16, by the mark at its start"] * (name == "utf-16")
                return name
        if b"\0" in piece:
            what = "holds zero bytes: it is no text, or UTF-16 without its mark"
            raise UserError(f"{path} {what}; for that: --encoding utf-16-le, or utf-16-be")
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while piece:
                decoder.decode(piece)
                before, piece = piece, stream.read(PIECE)
                lines += before.count(b"\n") if piece else 0
            decoder.decode(b"", final=True)
            return "utf-8"
        except UnicodeDecodeError as error:
            # The piece with the first strange byte, and what it would be in either encoding.
            piece = piece or before
            lines += error.object[: error.start].count(b"\n")
    broken = piece.decode("utf-8", "replace").count("\ufffd")
    whole = sum(sign > "\x7f" for sign in piece.decode("utf-8", "replace")) - broken
    if whole > broken:
        how = "mend that line, or read all of it otherwise with --encoding"
        raise UserError(f"{path} is UTF-8, but not in line {lines}: {how}")
    western = piece.decode("cp1252", "replace")
    if "\ufffd" in western or sum(byte > 127 for byte in piece) > 0.3 * len(piece):
        how = "name it, such as --encoding cp1251, shift_jis or gb18030"
        raise UserError(f"{path} is neither UTF-8 nor cp1252, from line {lines} on: {how}")
    words = [word for word in re.findall(r"[^\W\d_]+|\S", western) if not word.isascii()]
    word = next((word for word in words if len(word) > 2), words[0])
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
        sample = list(islice(dropwhile(str.isspace, lines), SAMPLE + 1))
    cut = len(sample) > SAMPLE  # so its last row may go on behind it
    sample, leave_out, said = sample[:SAMPLE], 0, f"{path.name}: "
    if sample and (typed := re.fullmatch(r'"?sep=(.)"?\s*', sample[0], re.IGNORECASE)):
        sample, leave_out, delimiter = sample[1:], 1, delimiter or typed[1]
    wanted = [SEPARATORS.get(delimiter, delimiter)] if delimiter else list("\t;|,")
    wanted = ["\t"] if kind == ".tsv" and not delimiter else wanted
    if delimiter and len(wanted[0]) != 1:
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
        tried.append((fits, usual if fits else widths[0], sign, blanks))
    _, usual, sign, blanks = max(tried, key=lambda one: one[:2])
    sign = sign if usual > 1 or len(wanted) == 1 else ","  # a single column
    how |= {"delimiter": sign, "skipinitialspace": bool(blanks or quoting == "blanks")}
    usual = "\t" if kind == ".tsv" else ","
    if sign != usual and not delimiter:
        name = next(name for name, other in SEPARATORS.items() if other == sign)
        notes.append(f"{said}{name}s between the columns; if that is wrong: --delimiter")
    if how["skipinitialspace"] and not quoting:
        notes.append(f"{said}blanks before a quote are left out; if that is wrong: --quoting csv")
    if sign == "\t" and quoting is None and any(rows := quotes_in_tabs(path, encoding)):
        letters = rows == (1, 1)
        if letters:
            how |= {"quoting": csv.QUOTE_NONE}
        what = "quotes are letters like others" if letters else "cells may stand in quotes"
        other = "csv" if letters else "none"
        notes.append(f"{said}{what}; if that is wrong: --quoting {other}")
    return how, leave_out


def stripped(rows):
    return [[cell.lstrip(" ") for cell in row] for row in rows or ()]


def quotes_in_tabs(path, encoding):
    """Two answers (0 or 1) about a table with tabs: are its quotes letters; has it quotes?

    They are letters where each line has as many tabs, and a cell holds quotes that no program would
    have written around it: `say "hi"`, or one that opens and never closes.
    """
    tabs, odd, quotes = set(), False, False
    with open_text(path, encoding) as lines:
        for line in lines:
            if line.isspace():
                continue
            tabs.add(line.count("\t"))
            if '"' in line:
                quotes = True
                cells = line.rstrip("\r\n").split("\t")
                odd |= any('"' in c and not re.fullmatch(r'"(?:[^"]|"")*"', c) for c in cells)
    return int(len(tabs) == 1 and odd), int(quotes)


def find_header(rows, header, known, said, notes):
    """Whether the first of `rows`, lists of cells, holds names. header: "yes", "no", or None.

    It does not where it looks like the others: a number where a name would stand, or a value that
    comes again below it. Row 1 must not be lost. known: names that would settle it.
    """
    first, others = [plain_name(cell) for cell in rows[0]], rows[1:]
    if header:
        return header == "yes"
    names = [name for name in first if name]
    looked_for = {plain_name(name) for name in known if not str(name).isdecimal()}
    if {*names} & {*TEXTS, *LABELS, *looked_for}:
        return True
    if names == [str(n) for n in range(len(names))]:
        return True  # 0, 1, 2: what pandas writes where a table has no names
    again = any(
        cell and any(cell == plain_name(row[i]) for row in others if i < len(row))
        for i, cell in enumerate(first)
    )
    # Who looks for column 2 has a table without names, such as the one of a model's training.
    asked = any(str(name).isdecimal() for name in known)
    if again or asked or any(re.fullmatch(r"-?[0-9.]+", name) for name in names):
        what = "no column names, so the columns are 1, 2, ..."
        notes.append(f"{said}{what}; if the first row holds names: --header")
        return False
    return True


def likeliest(table):
    """(column of texts, column of labels, all columns of sentences) by what they hold.

    Texts have the most words. Labels are few and come again; or, in the first rows of a sorted
    file, are all one number. None where no column is like it.
    """
    words, kinds, sentences = {}, {}, []
    for column in filter(None, table.columns):
        with contextlib.suppress(UserError, ValueError, OverflowError):  # a date after 9999, say
            cells = [value for (value,) in islice(table.rows([column]), SAMPLE)]
            values = [str(value) for value in cells if value not in (None, "")]
            letters = sum(sum(map(str.isalpha, value)) for value in values)
            words[column] = sum(len(value.split()) for value in values), letters
            sentences += [column] * (words[column][0] >= 3 * max(1, len(values)))
            few = len(set(values)) <= max(2, len(values) / (10 if len(values) > 100 else 2))
            number = any(re.fullmatch(r"-?[0-9]*\.[0-9]*[1-9]0*", value) for value in values)
            if few and 2 * len(values) >= len(cells) and not number:
                one = len(set(values)) == 1
                named = any(name in plain_name(column) for name in LABELS if name != "v1")
                kinds[column] = one, not named, len(set(values))
                if one and not values[0].isdecimal():
                    del kinds[column]
    text = max(words, key=words.get, default=None)
    few = {column: kind for column, kind in kinds.items() if column != text}
    others = [column for column in words if column != text]
    label = others[0] if len(words) == 2 and others else min(few, key=few.get, default=None)
    return text, label, sentences
