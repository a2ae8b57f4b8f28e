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

from support import devices
from support.errors import UserError, check_counts
from support.files import check_target, file_digest, only_writer, open_to_append, write_whole
from support.tables import label_index, read_rows, usable_text

# The files of a model that decide its answers: --resume must not mix the answers of two models.
WEIGHTS_AND_WORDS = ("model.safetensors", "config.json", "tokenizer.json")
COLUMNS = ("text", "label", "predicted", "score", "error")
CHUNK = 1024  # rows: enough to sort by length, and few enough for any memory


# ------------------------------------------------------------------------------ rows
def count_rows(path, wanted):
    """The number of rows of a file. wanted: {column: the option that names it}.

    Reading it all first finds a broken line before an hour of work, not after. Raises UserError.
    """
    return sum(1 for _ in read_rows(path, wanted))


def predict_chunks(path, text_column, label_column, names, classify, clean, skip=0):
    """Yield lists of up to CHUNK rows (text, label, predicted, score, error), in the file's order.

    classify: a function from texts to as many (label, probability). clean: dataset.clean(). skip:
    how many rows have been answered before. A row that cannot be used keeps its place, with an
    error instead of predicted and score.
    """
    rows = islice(read_rows(path), skip, None)
    while chunk := list(islice(rows, CHUNK)):
        texts, errors = zip(*(usable_text(row.get(text_column)) for row in chunk))
        errors = [error or ("" if clean(text) else "no text") for text, error in zip(texts, errors)]
        usable = [i for i, error in enumerate(errors) if not error]
        answers = dict(zip(usable, classify([texts[i] for i in usable]) if usable else []))
        yield [
            (texts[i], known_label(row.get(label_column), names), *answers.get(i, ("", "")), error)
            for i, (row, error) in enumerate(zip(chunk, errors))
        ]


def known_label(value, names):
    """A row's own label by the model's name for it, or as it is if the model has no such label."""
    try:
        index = label_index(value, names)
    except UserError:
        return value
    return "" if index is None else names[index]


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
def check_answers(out, path, text_column, weights):
    """Raise UserError unless `out` is newer than its sources, and answers `path` row by row."""
    if max(map(os.path.getmtime, (path, weights))) > os.path.getmtime(out):
        raise UserError(
            f"{out} is there, but older than the file or the model, and nothing unfinished is "
            "beside it: delete it, or leave --resume out to write it again"
        )
    asked = (usable_text(row.get(text_column))[0] for row in read_rows(path))
    with open(out, encoding="utf-8", errors="replace", newline="") as file:
        answered = (row.get("text") for row in csv.DictReader(file))
        # Characters that UTF-8 cannot hold (half an emoji) were replaced when `out` was written.
        pairs = zip_longest((text.encode(errors="replace").decode() for text in asked), answered)
        if any(text != other for text, other in pairs):
            raise UserError(f"{out} holds answers to other texts than {path}: delete it")


def answer_file(args, classifier, clean, show):
    """Answer args.file, in args.out or in the terminal. Returns an exit code if it was stopped.

    classifier: a predict.Classifier. clean, show: dataset.clean() and predict.show().
    """
    arguments, names = classifier.run["arguments"], classifier.names
    text_column = args.text_column or arguments["text_column"]
    label_column = args.label_column or arguments["label_column"]
    wanted = {text_column: "--text-column"}
    if args.label_column:  # typed, so it has to be there
        wanted[label_column] = "--label-column"
    count = count_rows(args.file, wanted)
    if args.resume and Path(args.out).exists() and not Path(f"{args.out}.unfinished").exists():
        check_answers(args.out, args.file, text_column, Path(args.model, WEIGHTS_AND_WORDS[0]))
        print(f"{args.out} is done. To answer anew, with other options: leave out --resume")
        return None
    classify = partial(classifier.classify, windows=args.windows)
    ask = args.file, text_column, label_column, names, classify, clean
    chunks = partial(predict_chunks, *ask)  # what is open is `skip`
    if args.out is None:
        for text, _, label, score, error in chain.from_iterable(chunks()):
            show(text, label, score, args.json, error)
        return None
    how = [text_column, label_column, classifier.precision, args.batch_size, names]
    how += [arguments["max_length"], arguments["truncation"], args.windows]
    identity = {
        "the file": file_digest(args.file),
        "the model": [file_digest(Path(args.model, name)) for name in WEIGHTS_AND_WORDS],
        "the options": how,
    }
    try:
        rows, errors = write_predictions(args.out, count, chunks, identity, args.resume)
    except KeyboardInterrupt:
        print("\nstopped. To go on: the same command, with --resume", file=sys.stderr)
        return 130
    except OSError as error:  # a full disk
        raise UserError(
            f"{args.out} cannot be written ({error.strerror}). To go on: the same command, with "
            "--resume"
        ) from error
    print(f"{rows - errors.total():,} of {rows:,} rows predicted, in {args.out}")
    for error, number in errors.items():
        print(f"{number:,} rows have an error instead: {error}", file=sys.stderr)
    return None


# ------------------------------------------------------------------------------ what is asked
def check_asked(args, clean):
    """Raise UserError for options that do not go together."""
    check_counts(args, "batch_size")
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


def typed_lines(clean):
    """Yield texts from standard input: from a prompt where somebody sits, else line by line."""
    prompt = sys.stdin is not None and sys.stdin.isatty()
    if prompt:
        print("A review, then Enter; Ctrl-D ends.", file=sys.stderr)
    while sys.stdin is not None:  # None: closed by whoever started us
        try:
            line = input("> ") if prompt else next(sys.stdin)
        except (EOFError, StopIteration):
            return
        except UnicodeDecodeError as error:
            raise UserError("standard input is not UTF-8: save or convert it as UTF-8") from error
        if clean(line):
            yield line.rstrip("\n")
