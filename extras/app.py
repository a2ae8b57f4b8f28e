"""A page where people can ask the model, and an address where programs can.

Teaches   how to let others ask a model: with a page that shows the answer at once and the reasons
          as soon as they are there, and that never runs what its visitors write.
After     predict.py, whose answers it gives, and extras.api, the part for programs.
Run       pip install -r requirements-extra.txt
          python -m extras.app --model model              then open http://127.0.0.1:7860
          curl http://127.0.0.1:7860/predict --json '{"texts": ["I regret watching this film"]}'
Expect    a page for one review (with the words that decided, in color, and the windows of a long
          one) and for many (a CSV file in, a CSV file out). For programs: POST /predict,
          GET /health, and /docs, which describes both. Nobody but this machine can reach it, unless
          you say so with --host.

gradio makes the page out of Python objects: `button.click(function, inputs, outputs)` calls
`function` with what is in the inputs and shows in the outputs what it yields. elem_id gives a part
a name. FastAPI and uvicorn, which come with gradio, answer programs.
"""

import contextlib
import csv
import os
import signal
import socket
import sys
import tempfile
from itertools import islice
from pathlib import Path

from dataset import clean, encode
from model import choose_hardware
from support.rows import count_rows, open_asked, predict_chunks, write_predictions
from extras.api import FILE, THIS_MACHINE, SharedClassifier, check_review, guard, make_api
from extras.explain import gap_in_words
from extras.page import WORD_COLORS, color_words, table, text
from support.errors import UserError, extra_packages, make_parser, plain, run_command
from support.saved import example

KINDS = [".csv", ".tsv", ".jsonl", ".json", ".parquet", ".xlsx", ".txt"]
# Seconds: how often gradio looks for files that it keeps, uploads and answers, and how long it
# keeps them. An hour is time enough to download the answers.
LOOK, KEEP = 600, 3600
EXAMPLES = (
    "I regret watching this film",
    "Not terrible, it's great!",
    "Not great, it's terrible!",
    "I expected nothing and got more than that",
)
STYLE = WORD_COLORS + """
.track{background:rgba(128,128,128,.3);border-radius:6px;height:12px;max-width:30em}
.track div{background:#0a62c4;border-radius:6px;height:12px}
.words{line-height:1.8}.words span{border-radius:3px;padding:1px 2px}
td,th{text-align:left;padding:.25em .6em}.words,td{overflow-wrap:anywhere}.scroll{overflow-x:auto}
"""


# ------------------------------------------------------------------------------ for people
def make_page(classifier, folder):
    """The page, as gradio Blocks. classifier: a SharedClassifier.

    Whatever it shows of a review is text, or escaped by extras/page.py.
    """
    import gradio

    arguments = classifier.run["arguments"]
    most, part = arguments["max_length"], arguments["truncation"]

    def answer(review):
        """Yields HTML twice: the label at once, and then the reasons, which take longer."""
        with showing_errors():
            check_review(review)
            shown = bar(*classifier.classify([review])[0])
            yield shown, "<p>looking for the words that decided ...</p>", ""
            found = classifier.explain(review)
            _, (length,) = encode([clean(review)], classifier.tokenizer, most, part)
            label = classifier.names[found["target"]]
            note = f"Green speaks for {label}, red and underlined against it."
            if length > most:
                note += f" Only {most:,} of its {length:,} tokens were read for this ({part})."
            words = color_words(found["words"], found["shares"])
            why = f"{words}<p>{text(note)} {text(gap_in_words(found))}</p>"
            yield shown, why, show_windows(review) if length > most else ""

    def show_windows(review):
        """All of a long review in windows, as an HTML table."""
        (label, score), windows = classifier.read_windows(review)
        rows = [["all", label, f"{score:.3f}", "the mean of their logits"]]
        for one in windows:
            piece = plain(classifier.tokenizer.decode(one["input_ids"], skip_special_tokens=True))
            span = f"{one['start'] + 1}-{one['end']}"
            rows.append([span, one["label"], f"{one['score']:.3f}", piece])
        return table(rows, ["tokens", "label", "probability", "what it reads"])

    def answer_many(file, column, lines, progress=gradio.Progress(track_tqdm=True)):
        """Yields once: a CSV file of answers, its first rows as HTML, and what was done."""
        # gradio copies the file that it gets into a folder of its own, and goes on here afterwards.
        # So ours can go at once, whatever happens.
        with showing_errors(), tempfile.TemporaryDirectory(prefix="answers-") as here:
            if not file:
                file, column = Path(here, "typed.csv"), "text"
                write_lines(file, lines or "")
            try:
                asked = open_asked(file, arguments, text_column=column.strip() or None)
                count = count_rows(asked)
            except UserError as error:
                raise UserError(str(error).replace(str(file), "the file")) from error

            def chunks(skip):
                return predict_chunks(asked, classifier.classify, clean, skip)

            out = Path(here, "predictions.csv")
            rows, errors = write_predictions(out, count, chunks, identity={})
            with open(out, encoding="utf-8", newline="") as answers:
                header, *first = islice(csv.reader(answers), 21)
            first = [[cell[:200] for cell in row] for row in first]
            said = [f"{rows - errors.total():,} of {rows:,} rows predicted", *asked[0].notes]
            yield str(out), table(first, header), f"<p>{text('; '.join(said))}. The first:</p>"

    hidden = {"api_visibility": "private"}  # programs have /predict
    with gradio.Blocks(
        analytics_enabled=False, title="What does the model say?", delete_cache=(LOOK, KEEP)
    ) as page:
        rehearsal = "<p>A rehearsal: a tiny model, not pretrained.</p>"
        notice = rehearsal if arguments["demo"] else ""
        names = text(f"{Path(folder).name}: {' or '.join(classifier.names)}")
        gradio.HTML(f"<h1>What does the model say?</h1><p>{names}</p>{notice}")
        with gradio.Tab("One text"):
            review = gradio.Textbox(label="A text", lines=4, elem_id="review")
            if example(arguments) in EXAMPLES:
                gradio.Examples([[example] for example in EXAMPLES], review)
            button = gradio.Button("What does it say?", variant="primary", elem_id="ask")
            shown = [gradio.HTML(elem_id=name) for name in ("label", "why", "windows")]
            button.click(answer, review, shown, **hidden)
        with gradio.Tab("Many texts"):
            lines = gradio.Textbox(label="Texts, one a line", lines=4, elem_id="lines")
            file = gradio.File(
                label=f"or a file: {', '.join(KINDS)}", file_types=KINDS, elem_id="file"
            )
            column = gradio.Textbox(label="its column of texts (empty: known by its name)")
            start = gradio.Button("Predict all", variant="primary", elem_id="start")
            out = gradio.File(label="The answers, as CSV", interactive=False, elem_id="out")
            said, rows = gradio.HTML(elem_id="said"), gradio.HTML(elem_id="rows")
            start.click(answer_many, [file, column, lines], [out, rows, said], **hidden)
    return page


@contextlib.contextmanager
def showing_errors():
    """Inside this `with`, what visitors can mend is shown to them on the page."""
    import gradio

    try:
        yield
    except UserError as error:
        # Escaped, because gradio shows it as HTML, and it may quote a stranger's file.
        raise gradio.Error(text(plain(str(error))), print_exception=False) from error


def write_lines(path, lines):
    """Write a text as a CSV file with a review to each line. Lines without words are left out."""
    typed = [line for line in lines.splitlines() if clean(line)]
    for line in typed:
        check_review(line)
    with open(path, "w", encoding="utf-8", newline="", errors="replace") as file:
        csv.writer(file).writerows([["text"], *([line] for line in typed)])


def bar(label, score):
    """A label, and its probability as a number and as a bar: HTML."""
    return (
        f'<p><strong>{text(label)}</strong> {score:.3f}</p><div class="track" role="img" '
        f'aria-label="probability {score:.3f}"><div style="width:{100 * score:.1f}%"></div></div>'
    )


def make_app(folder, device, hosts=None, precision="fp32"):
    """The page and the addresses as one application for uvicorn. UserError without gradio.

    hosts: as in refuse().
    """
    # Before the import of gradio, or it would send usage statistics.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with extra_packages():
        import gradio
    classifier = SharedClassifier(folder, device, precision)
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
    page = make_page(classifier, folder)
    application = gradio.mount_gradio_app(
        make_api(classifier, folder),
        page,
        path="/",
        max_file_size=FILE,
        ssr_mode=False,
        theme=gradio.themes.Default(**fonts),
        css=STYLE,
        footer_links=[],
    )
    # A request may name a file. gradio checks that the file was uploaded here, but only if its page
    # has been "launched", which never happens behind another application. Without this line a
    # request could read any CSV file of this machine. (A test tries.)
    page.has_launched = True
    return guard(application, hosts)


def main():
    parser = make_parser(__doc__, "model device precision", precision="fp32")
    parser.add_argument(
        "--host", default="127.0.0.1", help="127.0.0.1: this machine only (default); 0.0.0.0: all"
    )
    parser.add_argument("--port", type=int, default=7860, help="0 for any (default: 7860)")
    args = parser.parse_args()
    if not 0 <= args.port < 65536:
        raise UserError(f"--port {args.port}: has to be from 0 to 65535")
    device, precision, _ = choose_hardware(args.device, args.precision)
    print(f"loading {args.model}", flush=True)
    alone = args.host in THIS_MACHINE
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that this `with` can clean up
    with tempfile.TemporaryDirectory(prefix="reviews-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        application = make_app(args.model, device, THIS_MACHINE if alone else None, precision)
        import uvicorn

        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        try:
            listening = socket.create_server((args.host, args.port), family=family)
        except OSError as error:
            raise UserError(
                f"--host {args.host} --port {args.port}: {error.strerror}; try --port 0"
            ) from error
        host = args.host if family == socket.AF_INET else f"[{args.host}]"
        port = listening.getsockname()[1]  # the one that was found, if it was 0
        print(f"http://{host}:{port}   (for programs: /predict, /docs; Ctrl-C stops)", flush=True)
        if not alone:
            print("anybody who can reach this machine can ask: no password", flush=True)
        config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=5)
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    run_command(main)
