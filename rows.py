"""Appendix K: a file of any length, row by row.

Teaches   to answer a million rows in their order and in constant memory; to set aside a row that
          cannot be used instead of stopping; to go on after a kill, no row lost or written twice.
Order     after predict.py; it does the work of --file.
Run       python rows.py demo_reviews/test.csv
          python predict.py --file reviews.csv --out predictions.csv
          python predict.py --file reviews.csv --out predictions.csv --resume      after a stop
Expect    (from the first line) how many rows there are, and which of them could not be used.
Shows     $ python rows.py demo_reviews/test.csv
          400 rows: 400 usable
"""

import contextlib
import csv
import glob
import hashlib
import json
import os
from collections import Counter
from itertools import islice, zip_longest
from pathlib import Path

from tqdm import tqdm

import parallel
from dataset import clean
from errors import UserError, make_parser, run_command
from folder import only_writer, open_to_append, write_whole
from sources import check_columns, label_index, read_rows

COLUMNS = ("text", "label", "predicted", "score", "error")
CHUNK = 1024  # rows: enough to be sorted by length inside, and little for any memory


# ------------------------------------------------------------------------------ 1. rows
def count_rows(path, wanted):
    """The number of rows of a file. wanted: {column: the option that names it}, texts first.

    It only reads, and so finds a broken line before an hour of work, not after. Raises UserError.
    """
    count = 0
    for count, row in enumerate(read_rows(path), start=1):
        if count == 1:
            check_columns(row, wanted, path)
    if count == 0:
        raise UserError(f"{path} has column names but no rows")
    return count


def usable_text(value):
    """(text, error) of a cell: what to show and, where it cannot be classified, why not."""
    if value is None or value != value:  # nan, which tables write for a missing text
        return "", "no text"
    if not isinstance(value, str):
        return str(value)[:100], f"no text, but {type(value).__name__}"
    return value, "" if clean(value) else "no text"


def predict_chunks(path, text_column, label_column, names, classify, skip=0):
    """Yield lists of up to CHUNK rows (text, label, predicted, score, error), in the file's order.

    classify: see predict.make_classifier(). skip: so many rows have been answered before. A row
    that cannot be used keeps its place, with an error in place of predicted and score.
    """
    rows = islice(read_rows(path), skip, None)
    while chunk := list(islice(rows, CHUNK)):
        texts, errors = zip(*(usable_text(row.get(text_column)) for row in chunk))
        usable = [i for i, error in enumerate(errors) if not error]
        answers = dict(zip(usable, classify([texts[i] for i in usable]) if usable else []))
        yield [
            (texts[i], known_label(row.get(label_column), names), *answers.get(i, ("", "")), error)
            for i, (row, error) in enumerate(zip(chunk, errors))
        ]


def known_label(value, names):
    """A row's own label under the model's name for it; as it stands where the model has none."""
    try:
        index = label_index(value, names)
    except UserError:
        return value
    return "" if index is None else names[index]


# ------------------------------------------------------------------------------ 2. answers
def write_predictions(out, count, chunks, identity, resume=False):
    """Write the rows of all chunks to the CSV file `out`. Returns (rows, Counter of errors).

    count: rows of the whole file. chunks(skip): an iterable of lists of rows, without the first
    `skip`. identity: a dict of what has to be the same when a stopped run goes on.
    The rows go to `out`.unfinished; after each chunk `out`.unfinished.json says how many rows and
    bytes of it are certain. Whatever a kill left behind them is cut off, and written again.
    """
    unfinished, notes = Path(f"{out}.unfinished"), Path(f"{out}.unfinished.json")
    first = parallel.rank() == 0  # with torchrun the others compute their share and write nothing
    with only_writer(f"{out}.unfinished.lock", out) if first else contextlib.nullcontext():
        done = {"identity": identity, "rows": 0, "bytes": 0, "errors": {}}
        if resume:
            done |= read_notes(out, unfinished, notes, identity)
        elif first and unfinished.exists():
            raise UserError(
                f"{unfinished} is there, from a run that was stopped: the same command with "
                "--resume goes on with it; delete it to start over"
            )
        parallel.wait()  # until all have read the notes
        errors = Counter(done["errors"])
        with (
            open_answers(unfinished, done["bytes"]) if first else open(os.devnull, "w") as file,
            tqdm(total=count, initial=done["rows"], desc=Path(out).name, unit=" rows") as bar,
        ):
            writer = csv.writer(file)
            if done["rows"] == 0:
                writer.writerow(COLUMNS)
            for chunk in chunks(done["rows"]):
                writer.writerows(chunk)
                errors.update(error for *_, error in chunk if error)
                bar.update(len(chunk))
                done |= {"rows": done["rows"] + len(chunk), "errors": errors}
                if first:
                    file.flush()
                    os.fsync(file.fileno())  # first the rows are certain, then the note of them
                    done["bytes"] = os.fstat(file.fileno()).st_size
                    write_whole(notes, json.dumps(done))
        if first:
            os.replace(unfinished, out)
            notes.unlink(missing_ok=True)
            for left_over in notes.parent.glob(f".{glob.escape(notes.name)}.*.new"):
                left_over.unlink()  # of a process that was killed while it wrote the notes
    return done["rows"], errors


def open_answers(path, size):
    """Open a file to write behind its first `size` bytes; what it has more of is cut off."""
    file = open_to_append(path)
    file.truncate(size)
    return file


def read_notes(out, unfinished, notes, identity):
    """What an unfinished run has noted down; {} where there is none. Raises UserError."""
    if not unfinished.exists():
        return {}
    try:
        done = json.loads(notes.read_text(encoding="utf-8"))
        before, size = done["identity"], int(done["bytes"])
    except FileNotFoundError:
        return {}  # stopped within the first chunk
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{notes} is damaged: delete {unfinished} and start over") from error
    changed = [name for name in identity if before.get(name) != identity[name]]
    if changed:
        raise UserError(
            f"--resume: {' and '.join(changed)} changed since {unfinished} was written; delete it "
            "to start over"
        )
    if unfinished.stat().st_size < size:
        raise UserError(f"{unfinished} is shorter than it was: delete it and start over")
    return done


def has_answers_to(out, path, text_column):
    """Whether a finished file of answers has the texts of the file `path`, row by row."""
    asked = (usable_text(row.get(text_column))[0] for row in read_rows(path))
    with open(out, encoding="utf-8", errors="replace", newline="") as file:
        answered = (row.get("text") for row in csv.DictReader(file))
        # Signs that UTF-8 has no bytes for were replaced when the answers were written.
        pairs = zip_longest((text.encode(errors="replace").decode() for text in asked), answered)
        return all(text == other for text, other in pairs)


def file_digest(path):
    """16 letters that change when a file does."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def main():
    parser = make_parser(__doc__)
    parser.add_argument("file", help="a .csv, .tsv, .jsonl or .parquet file")
    parser.add_argument("--text-column", default="text", help="column of the texts")
    args = parser.parse_args()
    count = count_rows(args.file, {args.text_column: "--text-column"})
    errors = Counter()
    for number, row in enumerate(read_rows(args.file), start=1):
        error = usable_text(row.get(args.text_column))[1]
        errors[error or "usable"] += 1
        if error and sum(errors.values()) - errors["usable"] <= 10:
            print(f"row {number:,}: {error}")
    print(f"{count:,} rows: {', '.join(f'{n:,} {kind}' for kind, n in errors.items())}")


if __name__ == "__main__":
    run_command(main)
