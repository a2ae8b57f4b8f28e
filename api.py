"""Appendix W: an address for programs.

Teaches   what it takes to answer many who ask at once: one question at a time, limits before work,
          reasons for every refusal, and nothing for pages that have no business here.
Order     before app.py, which puts a page beside it.
Run       pip install -r requirements-extra.txt && python api.py
Expect    what POST /predict and GET /health take and give, as /openapi.json describes it.
"""

import functools
import json
import threading
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

# First: once errors.py is in, Ctrl-C ends in one line, also while torch is imported (seconds).
from errors import UserError, make_parser, plain, run_command

from dataset import clean, encode
from explain import explain
from predict import make_classifier

LETTERS = 100_000  # characters of one text: fifty pages
TEXTS = 256  # in one request
BODY = 4_000_000  # bytes of one request; 256 texts of full length would be more
FILE = 20_000_000  # bytes of an uploaded file
THIS_MACHINE = {"127.0.0.1", "localhost", "::1"}


# ------------------------------------------------------------------------------ the model
def load(folder, device):
    """Load a saved model for many who ask at once. Returns (asked, run).

    asked: .classify(texts), .windows(text), .explain(text), .length(text), .decode(ids), which
    answer one caller at a time: an answer uses all cores, and two at once would both be late.
    """
    classify, run, (model, tokenizer, collate, windows) = make_classifier(folder, device)
    lock, arguments = threading.Lock(), run["arguments"]

    def in_turn(function):
        @functools.wraps(function)
        def waiting(*words):
            with lock:
                return function(*words)

        return waiting

    def explain_one(review):
        return explain(model, tokenizer, collate, review, arguments, device, quick=True)

    asked = SimpleNamespace(
        classify=in_turn(classify),
        windows=in_turn(lambda review: windows([review])),
        explain=in_turn(explain_one),
        length=lambda review: encode([clean(review)], tokenizer, 10**9, "head")[1][0],
        decode=lambda ids: plain(tokenizer.decode(ids, skip_special_tokens=True)),
    )
    return asked, run


def check_review(review):
    """Raise UserError if a text is no use to the model."""
    if not clean(review or ""):
        raise UserError("there are no words in it: write a review")
    if len(review) > LETTERS:
        raise UserError(f"{len(review):,} letters; at most {LETTERS:,} are read")


# ------------------------------------------------------------------------------ for programs
def make_api(asked, run, folder):
    """POST /predict and GET /health, as a FastAPI application."""
    from typing import Annotated

    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from pydantic import AfterValidator, BaseModel, Field

    def has_words(value):
        if not clean(value):
            raise ValueError("there are no words in it")
        return value

    Review = Annotated[str, Field(max_length=LETTERS), AfterValidator(has_words)]

    class Question(BaseModel):
        texts: Annotated[list[Review], Field(min_length=1, max_length=TEXTS)]

    class Prediction(BaseModel):
        text: str
        label: str
        score: float

    class Answer(BaseModel):
        predictions: list[Prediction]

    api = FastAPI(title=f"{folder}: {' / '.join(run['labels'])}")

    @api.exception_handler(RequestValidationError)
    def explain_refusal(_, error):
        # Without the input: what no JSON can hold (a NaN, half of a sign) would break the answer.
        reasons = [{key: one[key] for key in ("loc", "msg", "type")} for one in error.errors()]
        return JSONResponse({"detail": reasons}, 422)

    # "def" and not "async def": FastAPI then calls it in a thread, and others are served meanwhile.
    # (health() is "async def": it takes no time, and all threads may be busy with reviews.)
    @api.post("/predict")
    def predict(question: Question) -> Answer:
        """The label of each text, and the probability that the model gives it."""
        answers = asked.classify(question.texts)
        rows = zip(question.texts, answers)
        return Answer(
            predictions=[
                Prediction(text=review, label=label, score=score) for review, (label, score) in rows
            ]
        )

    @api.get("/health")
    async def health() -> dict[str, str | list[str]]:
        """Whether the model is there, and its labels."""
        return {"status": "ok", "model": Path(folder).name, "labels": run["labels"]}

    return api


def guard(application, hosts):
    """`application` behind refuse(), whose checks cost nothing.

    It speaks ASGI, as uvicorn does: called with scope, a dict about the request; receive(), which
    reads its body; and send(), which answers.
    """
    from fastapi.responses import JSONResponse

    async def guarded(scope, receive, send):
        refusal = refuse(scope, hosts) if scope["type"] in ("http", "websocket") else None
        if refusal:
            status, reason = refusal
            await JSONResponse({"detail": reason}, status)(scope, receive, send)
        else:
            await application(scope, receive, send)

    return guarded


def refuse(scope, hosts):
    """(status, reason) if a request is not even to be read, else None.

    A page elsewhere on the web must not use its reader's browser to ask here. The browser says so
    in Origin; or in Host, if that page's name was made to point to this machine (DNS rebinding).
    hosts: the names that are ours, or None for any. And no question may fill the memory: uvicorn
    holds every request to the length that it has announced.
    """
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    addresses = {"Host": f"//{headers.get(b'host', '')}"}
    if b"origin" in headers:  # "null" where a page hides where it comes from
        addresses["Origin"] = headers[b"origin"]
    for name, address in addresses.items() if hosts else ():
        try:
            host = (urlsplit(address).hostname or "").rstrip(".")
        except ValueError:  # half an address
            host = ""
        if host not in hosts:
            return 403, f"{name} {address.removeprefix('//')!r} is not this machine"
    most = FILE + 100_000 if scope["path"].startswith("/gradio_api/upload") else BODY
    length = headers.get(b"content-length", "0")
    if b"transfer-encoding" in headers:
        return 411, "the request has to say its Content-Length, and not come in chunks"
    if len(length) > 12 or int(length) > most:
        return 413, f"{length} bytes; at most {most:,} are read"
    return None


def main():
    make_parser(__doc__).parse_args()
    described = make_api(None, {"labels": ["negative", "positive"]}, "model").openapi()
    print(json.dumps({key: described[key] for key in ("paths", "components")}, indent=1))


if __name__ == "__main__":
    run_command(main)
