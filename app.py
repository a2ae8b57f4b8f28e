"""Chapter 10: a page to try it on, and an address for programs.

Teaches   to let others ask the model: a page that shows a first answer at once and the reasons when
          they are there, and that never runs what its visitors write.
Order     the last chapter, after api.py; its answers are those of predict.py.
Run       pip install -r requirements-extra.txt
          python app.py --model model              then open http://127.0.0.1:7860
          curl http://127.0.0.1:7860/predict --json '{"texts": ["I regret watching this film"]}'
Expect    a page for one review (with the words that decided, in color, and the windows of a long
          one) and for many (a CSV file in, a CSV file out); POST /predict, GET /health, and /docs,
          which describes both. Only this machine can reach it, unless --host says otherwise.

gradio makes the page of Python objects: `button.click(function, inputs, outputs)` calls `function`
with what stands in the inputs, and shows in the outputs what it yields; elem_id names a part.
FastAPI and uvicorn, which gradio brings, answer programs.
"""

import csv
import functools
import os
import signal
import socket
import sys
import tempfile
from itertools import islice
from pathlib import Path

# First: once errors.py is in, Ctrl-C ends in one line, also while torch is imported (seconds).
from errors import UserError, make_parser, plain, run_command

from api import FILE, THIS_MACHINE, check_review, guard, load, make_api
from dataset import clean
from explain import gap_in_words
from hardware import choose_hardware
from page import WORD_COLORS, color_words, table, text
from rows import count_rows, predict_chunks, write_predictions

KINDS = [".csv", ".tsv", ".jsonl", ".parquet"]
EXAMPLES = (
    "I regret watching this film",
    "Not terrible, it's great!",
    "Not great, it's terrible!",
    "I expected nothing and got more than that",
)


STYLE = (
    WORD_COLORS
    + """
.track{background:rgba(128,128,128,.3);border-radius:6px;height:12px;max-width:30em}
.track div{background:#0a62c4;border-radius:6px;height:12px}
.words{line-height:1.8}.words span{border-radius:3px;padding:1px 2px}
td,th{text-align:left;padding:.25em .6em}.words,td{overflow-wrap:anywhere}.scroll{overflow-x:auto}
"""
)


# ------------------------------------------------------------------------------ for people
def make_page(asked, run, folder):
    """The page, as gradio Blocks. What it shows of a review is escaped (page.py), or no HTML."""
    import gradio

    arguments = run["arguments"]
    most, how = arguments["max_length"], arguments["truncation"]
    answer_columns = ["text", "label", "predicted", "score", "error"]

    @to_gradio_errors
    def answer(review):
        """Yields HTML twice: at once the label, and then, which takes longer, why."""
        check_review(review)
        shown = bar(*asked.classify([review])[0])
        yield shown, "<p>looking for the words that decided ...</p>", ""
        length, found = asked.length(review), asked.explain(review)
        note = f"Green speaks for {run['labels'][found['target']]}, red and underlined against it."
        if length > most:
            note += f" Only {most:,} of its {length:,} tokens were read for this ({how})."
        words, note = color_words(found["words"], found["shares"]), f"{note} {gap_in_words(found)}"
        yield shown, f"{words}<p>{text(note)}</p>", show_windows(review) if length > most else ""

    def show_windows(review):
        """All of a long review in windows, as an HTML table."""
        answers, found = asked.windows(review)
        rows = [["all", answers[0][0], f"{answers[0][1]:.3f}", "the mean of their logits"]]
        for _, (start, end), ids, (label, score) in found:
            rows.append([f"{start + 1}-{end}", label, f"{score:.3f}", asked.decode(ids)])
        return table(rows, ["tokens", "label", "probability", "what it reads"])

    @to_gradio_errors
    def answer_many(file, column, lines, progress=gradio.Progress(track_tqdm=True)):
        """Yields once: a CSV file of answers, its first rows as HTML, and what was done."""
        here = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
        out, label_column = here / "predictions.csv", arguments["label_column"]
        if not file:
            file, column = here / "typed.csv", "text"
            typed = [line for line in (lines or "").splitlines() if clean(line)]
            for line in typed:
                check_review(line)
            with open(file, "w", encoding="utf-8", newline="", errors="replace") as written:
                csv.writer(written).writerows([["text"], *([line] for line in typed)])
        try:
            count = count_rows(file, {column: "its name under the file"})
        except UserError as error:
            raise UserError(str(error).replace(str(file), "the file")) from error

        def chunks(skip):
            return predict_chunks(file, column, label_column, run["labels"], asked.classify, skip)

        rows, errors = write_predictions(out, count, chunks, identity={})
        with open(out, encoding="utf-8", newline="") as answers:
            first = [[cell[:200] for cell in row] for row in islice(csv.reader(answers), 1, 21)]
        (here / "typed.csv").unlink(missing_ok=True)
        said = f"{rows - errors.total():,} of {rows:,} rows predicted"
        yield str(out), table(first, answer_columns), f"<p>{said}. The first of them:</p>"

    hidden = {"api_visibility": "private"}  # programs have /predict
    with gradio.Blocks(
        analytics_enabled=False,
        title="What does the model say?",
        delete_cache=(600, 3600),  # looks every ten minutes for files that are an hour old
    ) as page:
        notice = (
            "<p>It has read made-up reviews only: a rehearsal.</p>" if arguments["demo"] else ""
        )
        names = text(f"{Path(folder).name}: {' or '.join(run['labels'])}")
        gradio.HTML(f"<h1>What does the model say?</h1><p>{names}</p>{notice}")
        with gradio.Tab("One review"):
            review = gradio.Textbox(label="A review", lines=4, elem_id="review")
            gradio.Examples([[example] for example in EXAMPLES], review)
            button = gradio.Button("What does it say?", variant="primary", elem_id="ask")
            shown = [gradio.HTML(elem_id=name) for name in ("label", "why", "windows")]
            button.click(answer, review, shown, **hidden)
        with gradio.Tab("Many reviews"):
            lines = gradio.Textbox(label="Reviews, one a line", lines=4, elem_id="lines")
            file = gradio.File(
                label=f"or a file: {', '.join(KINDS)}", file_types=KINDS, elem_id="file"
            )
            column = gradio.Textbox(arguments["text_column"], label="its column of texts")
            start = gradio.Button("Predict all", variant="primary", elem_id="start")
            out = gradio.File(label="The answers, as CSV", interactive=False, elem_id="out")
            said, rows = gradio.HTML(elem_id="said"), gradio.HTML(elem_id="rows")
            start.click(answer_many, [file, column, lines], [out, rows, said], **hidden)
    return page


def to_gradio_errors(handler):
    """`handler`, but what the user can mend is shown on the page.

    Handlers are generators, so that one can show a first answer before the second is ready.
    """
    import gradio

    @functools.wraps(handler)
    def handled(*arguments):
        try:
            yield from handler(*arguments)
        except UserError as error:
            # As text: gradio shows HTML, and the message can quote a stranger's file.
            raise gradio.Error(text(plain(str(error))), print_exception=False) from error

    return handled


def bar(label, score):
    """A label and its probability as a bar, HTML."""
    return (
        f'<p><strong>{text(label)}</strong> {score:.3f}</p><div class="track" role="img" '
        f'aria-label="probability {score:.3f}"><div style="width:{100 * score:.1f}%"></div></div>'
    )


def make_app(folder, device, hosts=None):
    """Page and addresses as one application, for uvicorn. Raises UserError without gradio."""
    # Before gradio is imported: it sends no usage statistics.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    if "GRADIO_TEMP_DIR" not in os.environ:
        os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="reviews-")
    try:
        import gradio
    except ImportError as error:
        raise UserError("the page needs gradio: pip install -r requirements-extra.txt") from error
    asked, run = load(folder, device)
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
    page = make_page(asked, run, folder)
    application = gradio.mount_gradio_app(
        make_api(asked, run, folder),
        page,
        path="/",
        max_file_size=FILE,
        ssr_mode=False,
        theme=gradio.themes.Default(**fonts),
        css=STYLE,
        footer_links=[],
    )
    # gradio checks that a file which a request names was uploaded here only once its page has been
    # "launched", which it never is behind another application. Without this line a request could
    # name any CSV file of this machine, and read it. (A test tries.)
    page.has_launched = True
    return guard(application, hosts)


def main():
    parser = make_parser(__doc__)
    parser.add_argument(
        "--model", default="model", help="a folder that finetune.py saved (default: model)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="127.0.0.1: this machine only (default); 0.0.0.0: all"
    )
    parser.add_argument("--port", type=int, default=7860, help="0 for any (default: 7860)")
    parser.add_argument("--device", help="cpu, cuda, mps, xpu (default: the best there is)")
    args = parser.parse_args()
    if not 0 <= args.port < 65536:
        raise UserError(f"--port {args.port}: has to be from 0 to 65535")
    device, _, _ = choose_hardware(args.device, "fp32")
    alone = args.host in THIS_MACHINE
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the end of this `with`
    with tempfile.TemporaryDirectory(prefix="reviews-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # gone when we are
        application = make_app(args.model, device, THIS_MACHINE if alone else None)
        import uvicorn

        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        try:
            listening = socket.create_server((args.host, args.port), family=family)
        except OSError as error:
            raise UserError(
                f"--host {args.host} --port {args.port}: {error.strerror}; try --port 0"
            ) from error
        host, port = (
            args.host if family == socket.AF_INET else f"[{args.host}]",
            listening.getsockname()[1],
        )
        print(f"http://{host}:{port}   (for programs: /predict, /docs; Ctrl-C stops)", flush=True)
        if not alone:
            print("anybody who reaches this machine can ask: there is no password", flush=True)
        config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=5)
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    run_command(main)
