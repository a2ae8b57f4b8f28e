"""predict.py --file: answer a file of any length in its order, in constant memory, row by row.

A row that cannot be used gets an error and stops nothing. After a kill, --resume goes on with no
row lost or written twice: rows are on disk before a note counts them, and what a kill left behind
the counted ones is cut off. tests/kill_rows.py tries that on a million rows.
"""

import contextlib
import csv
import glob
import json
import os
import sys
from collections import Counter
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path

from tqdm import tqdm

from support import devices, errors
from support.errors import UserError, check_counts
from support.files import check_target, content_digest, file_digest, model_digest, only_writer
from support.files import open_to_append, write_whole
from support.reading import texts_and_labels
from support.tables import HOW, Source, how_to_read
from support.textfiles import choose_columns, usable_text

WORDS = ("config.json", "tokenizer.json", "vocab.txt", "vocab.json")  # beside a model's weights
COLUMNS = ("text", "label", "predicted", "score", "error")
CHUNK = 1024  # rows: enough to sort by length, and few enough for any memory


# ------------------------------------------------------------------------------ rows
def open_asked(path, arguments, **typed):
    """A file to answer: (Table, its columns of texts, its column of labels or None).

    arguments: of the model's run.json. typed: how to read the file, see support.tables.HOW.
    """
    source = Source(path, **how_to_read(arguments, typed, same=False))
    table = source.open(path)
    return table, *choose_columns(table, *source.asked, needs_label=False)


def count_rows(asked):
    """The number of rows of a file. asked: of open_asked().

    Reading it all first finds a broken line before an hour of work, not after. Raises UserError.
    """
    count = sum(1 for _ in texts_and_labels(*asked))
    if not count:
        raise UserError(f"{asked[0].path} is empty: it has no rows, or none but the column names")
    return count


def predict_chunks(asked, classify, clean, skip=0):
    """Yield lists of up to CHUNK rows (text, label, predicted, score, error), in the file's order.

    asked: of open_asked(). classify: a function from texts to as many (label, probability). clean:
    dataset.clean(). skip: how many rows have been answered before. label is the file's own, as it
    stands. A row that cannot be used keeps its place, with an error instead of predicted and score.
    """
    rows = islice(texts_and_labels(*asked), skip, None)
    while chunk := list(islice(rows, CHUNK)):
        texts, errors = zip(*(usable_text(text) for text, _ in chunk))
        errors = [error or ("" if clean(text) else "no text") for text, error in zip(texts, errors)]
        usable = [i for i, error in enumerate(errors) if not error]
        answers = dict(zip(usable, classify([texts[i] for i in usable]) if usable else []))
        yield [
            (texts[i], "" if label is None else label, *answers.get(i, ("", "")), errors[i])
            for i, (_, label) in enumerate(chunk)
        ]


# ------------------------------------------------------------------------------ a file of answers
def write_predictions(out, count, chunks, identity, resume=False):
    """Write the rows of all chunks to the CSV file `out`. Returns (rows, Counter of errors).

    count: rows of the whole file. chunks(skip): an iterable of lists of rows, without the first
    `skip`. identity: a dict of what must be the same when a stopped run goes on.
    The rows go to `out`.unfinished. After each chunk, `out`.unfinished.json notes how many of its
    rows and bytes are certain. What a kill left behind those bytes is cut off and written again.
    """
    unfinished, notes = Path(f"{out}.unfinished"), Path(f"{out}.unfinished.json")
    first = devices.rank() == 0  # under torchrun the other processes compute, and write nothing
    with only_writer(f"{out}.unfinished.lock", out) if first else contextlib.nullcontext():
        done = {"identity": identity, "rows": 0, "bytes": 0, "errors": {}}
        if resume:
            done |= read_notes(unfinished, notes, identity)
        elif first and unfinished.exists():
            raise UserError(
                f"{unfinished} is there, from a run that was stopped: the same command with "
                "--resume goes on with it; delete it to start over"
            )
        devices.wait()  # all have to read the notes before the first one writes new ones
        errors = Counter(done["errors"])
        with (
            open_to_append(unfinished if first else os.devnull) as file,
            tqdm(total=count, initial=done["rows"], desc=Path(out).name, unit=" rows") as bar,
        ):
            if first:
                file.truncate(done["bytes"])
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
                    os.fsync(file.fileno())  # the rows before the note that counts them
                    done["bytes"] = os.fstat(file.fileno()).st_size
                    write_whole(notes, json.dumps(done))
        if first:
            os.replace(unfinished, out)
            notes.unlink(missing_ok=True)
            for left_over in notes.parent.glob(f".{glob.escape(notes.name)}.*.new"):
                left_over.unlink()  # of a process that was killed while it wrote the notes
    return done["rows"], errors


def read_notes(unfinished, notes, identity):
    """What an unfinished run has noted, or {} if there is none. Raises UserError."""
    if not (unfinished.exists() and notes.exists()):
        return {}  # without notes: stopped before the first chunk was certain
    try:
        done = json.loads(notes.read_text(encoding="utf-8"))
        before, size = done["identity"], int(done["bytes"])
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


# ------------------------------------------------------------------------------ the whole of --file
def check_answers(out, asked, folder):
    """Raise UserError unless `out` is newer than its sources, and answers the file row by row."""
    path = asked[0].path
    if max(map(os.path.getmtime, (path, *folder.glob("*.safetensors")))) > os.path.getmtime(out):
        raise UserError(
            f"{out} is there, but older than the file or the model, and nothing unfinished is "
            "beside it: delete it, or leave --resume out to write it again"
        )
    texts = (usable_text(text)[0] for text, _ in texts_and_labels(*asked))
    with open(out, encoding="utf-8", errors="replace", newline="") as file:
        answered = (row.get("text") for row in csv.DictReader(file))
        # Characters that UTF-8 cannot hold (half an emoji) were replaced when `out` was written.
        pairs = zip_longest((text.encode(errors="replace").decode() for text in texts), answered)
        if any(text != other for text, other in pairs):
            raise UserError(f"{out} holds answers to other texts than {path}: delete it")


def answer_file(args, classifier, clean, show):
    """Answer args.file, in args.out or in the terminal. Returns an exit code if it was stopped.

    classifier: a predict.Classifier. clean, show: dataset.clean() and predict.show().
    """
    arguments, names = classifier.run["arguments"], classifier.names
    typed = {name: getattr(args, name) for name in HOW}
    asked = open_asked(args.file, arguments, **typed)
    count = count_rows(asked)
    for note in asked[0].notes:
        errors.show("read as", note, file=sys.stderr)
    if args.resume and Path(args.out).exists() and not Path(f"{args.out}.unfinished").exists():
        check_answers(args.out, asked, classifier.folder)
        print(f"{args.out} is done. To answer anew, with other options: leave out --resume")
        return None
    classify = partial(classifier.classify, windows=args.windows)
    chunks = partial(predict_chunks, asked, classify, clean)  # what is open is `skip`
    if args.out is None:
        for text, _, label, score, error in chain.from_iterable(chunks()):
            show(text, label, score, args.json, error)
        return None
    how = [*asked[1:], typed, classifier.precision, args.batch_size, names]
    how += [arguments["max_length"], arguments["truncation"], args.windows]
    folder = classifier.folder
    words = [path for name in WORDS for path in [Path(folder, name)] if path.is_file()]
    identity = {
        "the file": content_digest(args.file),
        # What decides a model's answers: --resume must not mix the answers of two models.
        "the model": [model_digest(folder), *map(file_digest, words)],
        "the options": how,
    }
    try:
        rows, failed = write_predictions(args.out, count, chunks, identity, args.resume)
    except KeyboardInterrupt:
        print("\nstopped. To go on: the same command, with --resume", file=sys.stderr)
        return 130
    except OSError as error:  # a full disk
        raise UserError(
            f"{args.out} cannot be written ({error.strerror}). To go on: the same command, with "
            "--resume"
        ) from error
    print(f"{rows - failed.total():,} of {rows:,} rows predicted, in {args.out}")
    for error, number in failed.items():
        print(f"{number:,} rows have an error instead: {error}", file=sys.stderr)
    return None


# ------------------------------------------------------------------------------ what is asked
def check_asked(args, clean):
    """Raise UserError for options that do not go together."""
    check_counts(args, "batch_size", "max_length")
    if args.file and args.texts:
        raise UserError("texts on the command line or --file, not both")
    if args.out is not None and not args.file:
        raise UserError("--out goes with --file; other answers are printed (redirect them with >)")
    if args.resume and args.out is None:
        raise UserError("--resume goes with --file and --out")
    check_target(args.out, args.file or args.model, args.model)
    for number, text in enumerate(args.texts, start=1):
        if not clean(text):
            raise UserError(f"text {number} of {len(args.texts)} is empty: give it some words")


def typed_lines(clean, encoding=None):
    """Yield texts from standard input: from a prompt where somebody sits, else line by line."""
    prompt = sys.stdin is not None and sys.stdin.isatty()
    if hasattr(sys.stdin, "reconfigure"):  # strict: without a locale Python takes any bytes
        try:
            sys.stdin.reconfigure(encoding=encoding or "utf-8-sig", errors="strict")
        except LookupError as error:
            raise UserError(f"--encoding {encoding}: Python knows no such encoding") from error
    if prompt:
        print("A review, then Enter; Ctrl-D ends.", file=sys.stderr)
    while sys.stdin is not None:  # None: closed by whoever started us
        try:
            line = input("> ") if prompt else next(sys.stdin)
        except (EOFError, StopIteration):
            return
        except UnicodeError as error:
            kind = encoding or "UTF-8"
            raise UserError(f"standard input is not {kind}: name its --encoding") from error
        if clean(line):
            yield line.rstrip("\n")
