"""extras.app: the page and the address for programs, tried as people and programs use them."""

import contextlib
import csv
import socket
import sys
import threading
import time

import pytest
import torch
from conftest import PROJECT, run_script
from load_app import measure

from extras import api, app
from predict import Classifier

pytestmark = pytest.mark.slow

REVIEWS = ["I regret watching this film", "Not terrible, it's great!", "A dull, tedious plot."]


@pytest.fixture(scope="module")
def classify(rehearsed):
    """What predict.py answers with."""
    return Classifier(rehearsed[0], torch.device("cpu")).classify


@contextlib.contextmanager
def serving(folder, files):
    """Inside this `with`, extras.app runs at the address that it gives. files: its uploads."""
    import uvicorn

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(files))
        application = app.make_app(folder, torch.device("cpu"), api.THIS_MACHINE)
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.05)
        try:
            yield "http://127.0.0.1:{}".format(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def address(rehearsed, tmp_path_factory):
    """A running extras.app: "http://127.0.0.1:port"."""
    with serving(rehearsed[0], tmp_path_factory.mktemp("uploads")) as address:
        yield address


@pytest.fixture(scope="module")
def client(address):
    import httpx

    with httpx.Client(base_url=address) as client:
        yield client


def test_predict_answers_as_predict_py_does(client, classify):
    """One model, one answer, whoever asks; in the order of the question."""
    response = client.post("/predict", json={"texts": REVIEWS})
    expected = [
        {"text": review, "label": label, "score": pytest.approx(score, abs=1e-6)}
        for review, (label, score) in zip(REVIEWS, classify(REVIEWS))
    ]
    assert response.status_code == 200 and response.json() == {"predictions": expected}


@pytest.mark.parametrize(
    "question, reason",
    [
        ({"texts": []}, "at least 1 item"),
        ({"texts": ["good"] * 257}, "at most 256 items"),
        ({"texts": ["good", "  "]}, "no words"),
        ({"texts": ["good", 3]}, "valid string"),
        ({"texts": ["x" * 100_001]}, "at most 100000 characters"),
        ({"texts": "good"}, "valid list"),
        ({"text": ["good"]}, "Field required"),
        ({}, "Field required"),
    ],
)
def test_a_question_that_cannot_be_answered_gets_the_reason(client, question, reason):
    """422, and what is wrong with which text."""
    response = client.post("/predict", json=question)
    assert response.status_code == 422 and reason in response.text


def test_limits_come_before_work(client):
    """A question too long, of unknown length, or sent to another name is not even read."""
    json_type = {"Content-Type": "application/json"}
    response = client.post("/predict", content=b" " * 4_000_001, headers=json_type)
    assert response.status_code == 413
    response = client.post("/predict", content=iter([b"{}"]), headers=json_type)
    assert response.status_code == 411
    assert client.post("/predict", content=b"not json", headers=json_type).status_code == 422
    for path in ("/gradio_api/queue/join", "/gradio_api/upload"):
        assert client.post(path, content=b" " * 20_200_000).status_code == 413


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"Host": "elsewhere.example"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:7860"}, 200),
        ({"Host": "LOCALHOST:7860"}, 200),
        ({"Host": "localhost."}, 200),
        ({"Host": "[::1]:7860"}, 200),
    ],
)
def test_only_this_machine_s_own_pages_may_ask(client, headers, status):
    """A page elsewhere must not read answers through the browser of who looks at it."""
    assert client.get("/health", headers=headers).status_code == status


@pytest.mark.parametrize("body", [r'["good \ud800 film"]', "[NaN]", "[1e999]", "[" * 50 + "]" * 50])
def test_what_no_json_can_hold_is_refused_like_the_rest(client, body):
    """The refusal itself has to be JSON."""
    text = '{"texts": %s}' % body
    response = client.post("/predict", content=text, headers={"Content-Type": "application/json"})
    assert response.status_code == 422 and response.json()["detail"][0]["msg"]


def predict_all(client, file, lines, session):
    """Ask as the page's button "Predict all" does. Returns all that the server says about it."""
    functions = client.get("/config").json()["dependencies"]
    function = next(one["id"] for one in functions if len(one["inputs"]) == 3)
    question = {"fn_index": function, "data": [file, "text", lines], "session_hash": session}
    assert client.post("/gradio_api/queue/join", json=question).status_code == 200
    seen = ""
    with client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as events:
        for line in events.iter_lines():
            seen += line
            if "process_completed" in line or "close_stream" in line:
                break
    return seen.replace(" ", "")


def test_no_request_reads_a_file_of_this_machine(client, tmp_path):
    """Only what was uploaded here. Asked behind the page's back, as a program would."""
    secret = tmp_path / "secret.csv"
    secret.write_text("text\nmy diary\n")
    for path in (secret, PROJECT / "support" / "demo_reviews" / "test.csv"):
        named = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        seen = predict_all(client, named, "", "s")
        assert '"success":false' in seen and "diary" not in seen
        assert "predictions.csv" not in seen


def test_no_file_stays_longer_than_it_has_to(rehearsed, tmp_path, monkeypatch):
    """Ours go with the answer or the refusal; gradio's copies and the uploads some time later."""
    import httpx

    uploads, ours = tmp_path / "uploads", tmp_path / "ours"
    ours.mkdir()
    monkeypatch.setattr(app.tempfile, "tempdir", str(ours))
    monkeypatch.setattr(app, "LOOK", 1)
    monkeypatch.setattr(app, "KEEP", 3)

    def left():  # gradio leaves an empty file beside each upload: those do not count
        files = (path for path in tmp_path.rglob("*") if path.is_file())
        return {path.name for path in files if path.stat().st_size}

    with serving(rehearsed[0], uploads) as address, httpx.Client(base_url=address) as client:
        uploaded = {"files": ("my.csv", "film\nI loved it.\n")}
        (path,) = client.post("/gradio_api/upload", files=uploaded).json()
        named = {"path": path, "meta": {"_type": "gradio.FileData"}}
        assert '"success":true' in predict_all(client, None, "I loved it.", "a")
        assert '"success":false' in predict_all(client, None, "", "b")  # no rows
        assert '"success":false' in predict_all(client, named, "", "c")  # no such column
        assert list(ours.glob("answers-*")) == [] and left() <= {"my.csv", "predictions.csv"}
        end = time.monotonic() + 20
        while left() and time.monotonic() < end:
            time.sleep(0.2)
        assert left() == set()


def test_it_says_how_it_is_and_what_it_can(client):
    """For a supervisor, and for whoever writes a program."""
    health = client.get("/health").json()
    assert health["status"] == "ok" and health["labels"] == ["negative", "positive"]
    page = client.get("/docs")
    assert page.status_code == 200 and "<title>What does" in page.text, "and no name of a class"
    assert {"/predict", "/health"} <= set(client.get("/openapi.json").json()["paths"])


def test_many_clients_at_once_get_their_own_answers(address, classify):
    """For two seconds here; `python tests/load_app.py demo` does it at length."""
    expected = {review: classify([review])[0] for review in REVIEWS}
    times, complaints = measure(int(address.rpartition(":")[2]), expected, clients=20, seconds=2)
    assert len(times) > 20 and complaints == []


@pytest.fixture
def tab(address, browser):
    """The page in a browser, and what it complains about."""
    tab = browser.new_page(accept_downloads=True)
    tab.set_default_timeout(20_000)
    seen = []
    tab.on("pageerror", lambda error: seen.append(str(error)))
    tab.on("dialog", lambda dialog: (seen.append("a dialog"), dialog.dismiss()))
    tab.on("request", lambda request: seen.append(request.url))
    tab.goto(address)
    yield tab
    own = (address, "data:", "blob:")
    assert [one for one in seen if not one.startswith(own)] == []
    tab.close()


def test_a_browser_shows_label_probability_and_colored_words(tab, classify):
    """What a visitor does first: type, click, look."""
    tab.fill("#review textarea", REVIEWS[0])
    tab.click("#ask button, button#ask")
    tab.wait_for_selector("#why .words")
    label, score = classify([REVIEWS[0]])[0]
    assert tab.inner_text("#label").split() == [label, f"{score:.3f}"]
    assert tab.locator("#why .words span").all_inner_texts() == REVIEWS[0].split()
    colors = tab.evaluate(
        "[...document.querySelectorAll('#why .words span')]"
        ".map(span => getComputedStyle(span).backgroundColor)"
    )
    assert len(set(colors)) > 1
    assert tab.inner_text("#windows") == ""


def test_html_in_a_review_is_shown_and_not_run(tab):
    """And a long review is shown in windows, escaped as well."""
    tab.fill(
        "#review textarea", "<script>alert(1)</script> <img src=x onerror=alert(2)> dull " * 30
    )
    tab.click("#ask button, button#ask")
    tab.wait_for_selector("#windows table")
    assert "<script>alert(1)</script>" in tab.inner_text("#why")
    assert tab.locator("#why img, #windows img, #why script, #windows script").count() == 0
    assert "onerror" in tab.inner_text("#windows")


def test_a_file_goes_in_and_a_file_comes_out(tab, classify):
    """The rehearsal's test reviews; the answers are those of predict.py."""
    tab.get_by_role("tab", name="Many texts").click()
    source = PROJECT / "support" / "demo_reviews" / "test.csv"
    tab.set_input_files("#file input[type=file]", source)
    tab.wait_for_selector("#file a[href]")  # uploaded
    tab.click("#start button, button#start")
    tab.wait_for_selector("#said >> text=400 of 400 rows predicted")
    with tab.expect_download() as download:
        tab.click("#out a")
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(source, encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert [row["text"] for row in rows] == texts
    for row, (label, score) in zip(rows, classify(texts)):
        assert row["predicted"] == label and float(row["score"]) == pytest.approx(score, abs=1e-5)


def test_what_was_guessed_about_a_file_is_said_on_the_page(tab, tmp_path):
    """predict.py says it, too. A wrong encoding would otherwise be found weeks later."""
    (tmp_path / "old.csv").write_bytes("text\na caf\u00e9 film\n".encode("cp1252"))
    tab.get_by_role("tab", name="Many texts").click()
    tab.set_input_files("#file input[type=file]", tmp_path / "old.csv")
    tab.wait_for_selector("#file a[href]")
    tab.click("#start button, button#start")
    tab.wait_for_selector("#said >> text=1 of 1 rows predicted")
    assert "cp1252" in tab.inner_text("#said")


def test_lines_are_answered_and_mistakes_are_said_on_the_page(tab):
    """Nothing typed, nothing chosen; then two lines."""
    tab.get_by_role("tab", name="Many texts").click()
    tab.click("#start button, button#start")
    tab.wait_for_selector("text=no rows")
    tab.fill("#lines textarea", "I loved it.\n\nI hated it.")
    tab.click("#start button, button#start")
    tab.wait_for_selector("#said >> text=2 of 2 rows predicted")
    assert "I hated it." in tab.inner_text("#rows")


def test_a_stranger_s_column_names_are_shown_and_not_run(tab, tmp_path):
    """A complaint quotes the file; a picture in it would tell its author who has opened it."""
    (tmp_path / "odd.csv").write_text("<img src=http://elsewhere.example/x>\nfilm\n")
    tab.get_by_role("tab", name="Many texts").click()
    tab.set_input_files("#file input[type=file]", tmp_path / "odd.csv")
    tab.wait_for_selector("#file a[href]")
    tab.click("#start button, button#start")
    tab.wait_for_selector("text=<img src")
    assert tab.locator("img[src*=elsewhere]").count() == 0


def test_without_gradio_it_says_what_to_install(rehearsed, monkeypatch):
    """It is no core package."""
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = run_script("extras.app", "--model", rehearsed[0])
    assert done.returncode == 2 and "pip install -r requirements-extra.txt" in done.stderr


def test_a_port_that_is_taken_and_a_folder_that_is_missing_get_one_line(rehearsed, address):
    """Exit code 2, and nothing else."""
    port = address.rpartition(":")[2]
    for words, complaint in (
        (["--model", rehearsed[0], "--port", port], "Address already in use"),
        (["--model", "nowhere"], "there is no such folder"),
        (["--port", "70000"], "--port 70000: has to be from 0 to 65535"),
    ):
        done = run_script("extras.app", *words)
        assert done.returncode == 2 and complaint in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1
