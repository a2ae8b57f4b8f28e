"""An address where programs can ask the model.

Teaches   what it takes to answer many who ask at once: one question at a time, limits before work,
          a reason with every refusal, and no answer to web pages that have no business here.
After     predict.py and extras.explain, whose answers it gives. extras.app puts a page beside it.
"""

import threading
from pathlib import Path
from urllib.parse import urlsplit

from dataset import clean
from extras.explain import explain
from predict import Classifier
from support.errors import UserError

LETTERS = 100_000  # in one text: fifty pages
TEXTS = 256  # in one request
BODY = 4_000_000  # bytes of one request: less than 256 texts of full length
FILE = 20_000_000  # bytes of an uploaded file
THIS_MACHINE = {"127.0.0.1", "localhost", "::1"}


# ------------------------------------------------------------------------------ the model
class SharedClassifier(Classifier):
    """A saved model that many may ask at once. Each waits for its turn.

    One answer uses all cores, so two answers at once would both be late.
    """

    turn = threading.RLock()  # "R": whoever has the turn may ask again, and not wait

    def classify(self, texts, windows=False):
        with self.turn:
            return super().classify(texts, windows)

    def read_windows(self, text):
        with self.turn:
            return super().read_windows(text)

    def explain(self, text):
        with self.turn:
            return explain(self, text, quick=True)


def check_review(review):
    """Raise UserError if a text has no words, or too many letters."""
    if not clean(review or ""):
        raise UserError("there are no words in it: write a review")
    if len(review) > LETTERS:
        raise UserError(f"{len(review):,} letters; at most {LETTERS:,} are read")


# ------------------------------------------------------------------------------ for programs
def make_api(classifier, folder):
    """POST /predict and GET /health, as a FastAPI application. classifier: a SharedClassifier."""
    from typing import Annotated

    from fastapi import Body, FastAPI
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from pydantic import AfterValidator, BaseModel, Field

    def has_words(value):
        if not clean(value):
            raise ValueError("there are no words in it")
        return value

    Review = Annotated[str, Field(max_length=LETTERS), AfterValidator(has_words)]

    Question = Annotated[list[Review], Body(embed=True, min_length=1, max_length=TEXTS)]

    class Prediction(BaseModel):
        text: str
        label: str
        score: float

    api = FastAPI(title="What does the model say?")  # no names of strangers: nothing escapes it

    @api.exception_handler(RequestValidationError)
    def explain_refusal(_, error):
        # Do not repeat the input: JSON cannot hold all of it (a NaN, half an emoji).
        reasons = [{key: one[key] for key in ("loc", "msg", "type")} for one in error.errors()]
        return JSONResponse({"detail": reasons}, 422)

    # "def", not "async def": so FastAPI calls it in a thread, and serves others meanwhile. health()
    # is "async def" because it takes no time, and must answer even when all threads are busy.
    @api.post("/predict")
    def predict(texts: Question) -> dict[str, list[Prediction]]:
        """The label of each text, and the probability that the model gives it."""
        rows = zip(texts, classifier.classify(texts))
        return {"predictions": [{"text": x, "label": label, "score": p} for x, (label, p) in rows]}

    @api.get("/health")
    async def health() -> dict[str, str | list[str]]:
        """Whether the server answers, which model it has, and the labels of that model."""
        return {"status": "ok", "model": Path(folder).name, "labels": classifier.names}

    return api


def guard(application, hosts):
    """`application`, but refuse() looks at every request first.

    It speaks ASGI, uvicorn's language: uvicorn calls it with scope, a dict about the request, with
    receive(), which reads the body, and with send(), which answers.
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
    """(status, reason) if a request must not even be read, else None.

    A page elsewhere on the web must not ask here through the browser of its reader. The browser
    says in Origin which page asks. If the page made its own name point to this machine (DNS
    rebinding), that name is in Host. hosts: our own names, or None for any. And no question may
    fill the memory: it has to announce its length, and uvicorn reads no more than that.
    """
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    addresses = {"Host": f"//{headers.get(b'host', '')}"}
    if b"origin" in headers:  # "null" where a page hides where it comes from
        addresses["Origin"] = headers[b"origin"]
    for name, address in addresses.items() if hosts else ():
        try:
            host = (urlsplit(address).hostname or "").rstrip(".")
        except ValueError:  # no whole address
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
