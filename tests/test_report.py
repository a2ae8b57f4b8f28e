"""extras.calibration and extras.report: figures about certainty, and the page that shows them."""

import json
import os
import re
import shutil
import sys

import pytest
import torch
from conftest import PROJECT, run_script
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize_scalar
from torchmetrics.classification import MulticlassCalibrationError

import evaluate
from evaluate import load_model, score
from extras.calibration import calibration_error, coverage, fit_temperature, reliability
from extras.compare import difference_interval
from extras.kept import read_answers
from extras.report import read_all, show_test, which_is_better
from support.files import OURS, model_digest
from support.saved import keep_answers


def make_answers(n=2000, classes=2, sharpness=1.0):
    """Random logits, and labels that are drawn with just their probabilities."""
    generator = torch.Generator().manual_seed(classes)
    logits = 2 * torch.randn(n, classes, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]
    return logits * sharpness, labels


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_calibration_error_is_that_of_torchmetrics(classes, sharpness):
    """Fifteen bins of equal width, as Guo et al. have them."""
    logits, labels = make_answers(classes=classes, sharpness=sharpness)
    reference = MulticlassCalibrationError(classes, n_bins=15, norm="l1")
    expected = reference(logits.softmax(dim=-1), labels).item()
    assert calibration_error(reliability(logits, labels)) == pytest.approx(expected, abs=1e-6)


def test_bins_lose_no_answer_at_their_ends():
    """Probabilities of exactly 1, and exactly at the end of a bin."""
    logits = torch.tensor([[1000.0, 0.0], [0.0, 0.0], [(0.8 / 0.2), 1.0]])
    logits[2] = logits[2].log()
    found = reliability(logits, torch.tensor([0, 1, 0]))
    assert sum(one["n"] for one in found) == 3
    assert [(one["low"], one["high"]) for one in found][-1] == (14 / 15, 1.0)


@pytest.mark.parametrize("sharpness", [0.25, 1.0, 4.0])
def test_the_temperature_undoes_what_made_the_logits_too_sharp(sharpness):
    """It is the one that scipy finds, and it makes the cross-entropy smallest."""
    logits, labels = make_answers(n=20_000, classes=3, sharpness=sharpness)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(sharpness, rel=0.05)

    def loss(candidate):
        return torch.nn.functional.cross_entropy(logits.double() / candidate, labels).item()

    best = minimize_scalar(loss, bounds=(0.01, 100), options={"xatol": 1e-7}, method="bounded").x
    assert temperature == pytest.approx(best, rel=1e-4)


def test_where_no_temperature_is_best_none_is_given():
    """All right: the surer the better. All wrong: the less sure the better."""
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(logits, torch.tensor([0, 1])) is None
    assert fit_temperature(logits, torch.tensor([1, 0])) is None


def test_coverage_is_the_accuracy_of_the_surest():
    """And with all answers given, it is the accuracy."""
    logits, labels = make_answers(n=200)
    scores, predicted = logits.softmax(dim=-1).max(dim=-1)
    for share, accuracy in coverage(logits, labels, points=10):
        surest = scores.argsort(descending=True)[: round(200 * share)]
        assert accuracy == pytest.approx((predicted == labels)[surest].double().mean().item())
    assert share == 1


def test_answers_of_another_model_are_not_its_own(rehearsed, tmp_path):
    """A folder may get another model; the answers of the one before must not speak for it."""
    folder = shutil.copytree(rehearsed[0], tmp_path / "model")
    assert run_script("evaluate.py", "--model", folder).returncode == 0
    found = read_answers(folder, "test")
    run = json.loads((folder / "run.json").read_text())
    assert (found["logits"].argmax(dim=-1) == found["labels"]).sum() == (
        run["results"]["test"]["correct"]
    )
    # Fewer reviews do not replace more.
    assert run_script("evaluate.py", "--model", folder, "--subset", 50).returncode == 0
    assert len(read_answers(folder, "test")["labels"]) == len(found["labels"])
    with open(folder / "model.safetensors", "ab") as file:
        file.write(b" ")
    assert read_answers(folder, "test") is None
    done = run_script("extras.report", folder, "--out", tmp_path / "page.html")
    assert done.returncode == 2 and "python evaluate.py --model" in done.stderr
    assert not (tmp_path / "page.html").exists()


def test_answers_of_a_model_that_was_replaced_meanwhile_are_not_kept(
    rehearsed, tmp_path, capsys, monkeypatch
):
    """evaluate.py takes minutes, in which a run may put its next epoch's model there: the answers
    would speak for a model that never gave them.
    """
    folder = shutil.copytree(rehearsed[0], tmp_path / "model")
    before, kept = model_digest(folder), (folder / "answers-test.json").read_bytes()
    weights = load_file(folder / "model.safetensors")
    save_file({name: weight + 1 for name, weight in weights.items()}, folder / "model.safetensors")
    split = {"texts": ["a", "b"], "labels": [0, 1], "lengths": [3, 3]}
    assert not keep_answers(folder, "test", torch.eye(2), split, {}, asked=before)
    assert "another model" in capsys.readouterr().out

    def replaced_meanwhile(*given):
        loaded = load_model(*given)
        save_file(weights, folder / "model.safetensors")
        return loaded

    monkeypatch.setattr(evaluate, "load_model", replaced_meanwhile)
    done = run_script("evaluate.py", "--model", folder, module=evaluate)
    assert done.returncode == 0 and "another model" in done.stdout
    assert (folder / "answers-test.json").read_bytes() == kept


@pytest.fixture(scope="module")
def page(rehearsed, tmp_path_factory):
    """A page of two models, one of them with a name and a review that are HTML."""
    root = tmp_path_factory.mktemp("report")
    shutil.copytree(rehearsed[0], root / "one")
    other = shutil.copytree(rehearsed[0], root / "<b>two")
    found = read_answers(other, "test")
    split = {name: found[name].tolist() for name in ("labels", "lengths")}
    split["texts"] = ["<script>alert(1)</script> good"] * len(found["labels"])
    how = {"subset": None, "windows": False, "precision": "fp32"}
    keep_answers(other, "test", found["logits"], split, how)
    # Else it would be said, rightly, that the two have read different reviews.
    kept = json.loads((other / "answers-test.json").read_text())
    kept["reviews"] = read_answers(root / "one", "test")["reviews"]
    (other / "answers-test.json").write_text(json.dumps(kept))
    reviews = PROJECT / "support" / "demo_reviews"
    run_script("extras.baseline", "--data", reviews, "--results", root / "floor.json")
    words = ["--baseline", root / "floor.json", "--out", root / "page.html", "--mistakes", "2"]
    done = run_script("extras.report", root / "one", other, *words)
    assert done.returncode == 0, done.stderr
    return root / "page.html"


def test_the_page_shows_the_figures_of_the_run(page, rehearsed):
    """Nothing is typed: accuracy, calibration error and facts come from the folder."""
    text = page.read_text(encoding="utf-8")
    run = json.loads((rehearsed[0] / "run.json").read_text())
    found = read_answers(page.parent / "one", "test")
    right = (found["logits"].argmax(dim=-1) == found["labels"]).double().mean().item()
    error = calibration_error(reliability(found["logits"], found["labels"]))
    for figure in (f"{right:.2%}", f"{error:.4f}"):
        assert figure in text
    floor = json.loads((page.parent / "floor.json").read_text())["test"]["accuracy"]
    assert f"{floor:.2%}" in text and run["data_fingerprint"] in text
    assert text.count("<svg") == 2 * 5  # five pictures of each of two models
    assert "python finetune.py --demo" in text
    _, low, high = difference_interval(0, 0, len(found["labels"]))  # the two models are the same
    assert f"interval {100 * low:+.2f} to {100 * high:+.2f} points" in text


def test_the_better_of_two_is_named_with_a_positive_number(rehearsed):
    """Whichever comes first on the command line; and none of them where they are equally good."""
    one = read_all(rehearsed[0]) | {"folder": "one"}
    right = one["right"].clone()
    right[right.nonzero()[:8, 0]] = False  # eight of its right answers are wrong
    two = one | {"folder": "two", "right": right}
    words = f"one is better than two by {800 / len(right):.2f} points: 8 more of {len(right)}"
    assert which_is_better(one, two) == which_is_better(two, one)
    assert which_is_better(one, two).startswith(words)
    right = one["right"].clone()
    right[right.nonzero()[:2, 0]] = False  # two against none: p = 0.5
    assert " is above, perhaps by luck, " in which_is_better(one, one | {"right": right})
    interval = [f"{100 * value:+.2f}" for value in difference_interval(8, 0, len(right))[1:]]
    assert f"interval {interval[0]} to {interval[1]} points" in which_is_better(two, one)
    equal = which_is_better(one, one | {"folder": "two"})
    assert equal.startswith("one and two have equally many right answers") and "better" not in equal


def test_the_page_needs_no_network_and_runs_nothing(page):
    """It may be sent by mail, and opened in ten years."""
    text = page.read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\"'\s<)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "<b>two" not in text and "&lt;b&gt;two" in text


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.slow
def test_the_page_fits_a_phone_and_a_screen(page, browser, width, scheme):
    """No scrolling to the side, no error, no request; the words can be told from the paper."""
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    seen = []
    tab.on("console", lambda message: seen.append(message.text))
    tab.on("pageerror", lambda error: seen.append(str(error)))
    tab.on("request", lambda request: seen.append(request.url))
    tab.goto(page.as_uri())
    assert [one for one in seen if not one.startswith(("file:", "data:"))] == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    colors = tab.evaluate(
        "['color', 'background-color'].map(name => getComputedStyle(document.body)[name])"
    )
    lights = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in colors]
    assert abs(lights[0] - lights[1]) > 450 and (lights[0] < lights[1]) == (scheme == "light")
    tab.close()


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["nowhere"], "there is no such folder"),
        (["--mistakes", "21"], "--mistakes 21: has to be from 0 to 20"),
        (["MODEL", "--baseline", "README.md"], "holds no figures of --results"),
        (["MODEL", "--baseline", "docs/results/counted-all-42.json"], "is about other data"),
        (["MODEL", "--out", "tests"], "cannot be written"),
    ],
)
def test_bad_input_gets_one_line(rehearsed, words, complaint):
    """Exit code 2, and no page."""
    words = [rehearsed[0] if word == "MODEL" else word for word in words]
    done = run_script("extras.report", *words)
    assert done.returncode == 2 and complaint in done.stderr
    assert done.stderr.count("\n") == 1 and not (PROJECT / "report.html").exists()


DAMAGE = {
    "answers-test.json": [
        ("logits", [[float("nan"), 0.0]]),
        ("logits", [1.0, 2.0]),
        ("logits", [[1.0]]),
        ("logits", [[1.0, 2.0, 3.0]]),
        ("labels", [0.5]),
        ("labels", [2]),
        ("labels", [True]),
        ("lengths", [0]),
        ("lengths", [3, 4]),
        ("mistakes", {"7": "a text"}),
        ("mistakes", ["a text"]),
        ("windows", None),
        ("max_length", "12"),
        ("reviews", 5),
    ],
    "run.json": [("history", [{}]), ("results", {}), ("device", 3), ("versions", []), ("notes", 1)],
    "history.jsonl": [
        "null",
        "{}",
        '{"step": 1, "loss": NaN}',
        '{"step": "x", "loss": 1}',
        "[" * 9999,
    ],
    "floor.json": [
        ("test", {"correct": 3, "n": 0}),
        ("test", {"correct": True, "n": 1}),
        ("test", 5),
    ],
}


@pytest.mark.parametrize(
    "name, damage", [(name, damage) for name, kinds in DAMAGE.items() for damage in kinds], ids=str
)
@pytest.mark.slow
def test_damaged_files_are_named_in_one_line(rehearsed, tmp_path, name, damage):
    """Whatever a file holds: no traceback, and no page of nonsense."""
    folder = shutil.copytree(rehearsed[0], tmp_path / "model")
    how = {"subset": None, "windows": False, "precision": "fp32"}
    (folder / "answers-test.json").unlink()
    split = {"texts": ["a film"], "labels": [0], "lengths": [5]}
    keep_answers(folder, "test", torch.tensor([[1.0, 0.0]]), split, how)
    run = json.loads((folder / "run.json").read_text())
    floor = {"test": {"correct": 1, "n": 2}, "data_fingerprint": run["data_fingerprint"]}
    (folder / "floor.json").write_text(json.dumps(floor))
    words = ("extras.report", folder, "--baseline", folder / "floor.json", "--mistakes", "1")
    words += ("--out", tmp_path / "page.html")
    assert run_script(*words).returncode == 0
    (tmp_path / "page.html").unlink()
    if isinstance(damage, str):
        (folder / name).write_text(damage + "\n")
    else:
        found = json.loads((folder / name).read_text())
        if damage == ("windows", None):
            del found["windows"]
        else:
            found[damage[0]] = damage[1]
        (folder / name).write_text(json.dumps(found))
    done = run_script(*words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert name.partition("-")[0] in done.stderr and not (tmp_path / "page.html").exists()


def test_answers_are_kept_to_the_last_digit(rehearsed, tmp_path):
    """Two logits that differ little must not tie: report and evaluate would count differently."""
    folder = shutil.copytree(rehearsed[0], tmp_path / "model")
    (folder / "answers-test.json").unlink()
    logits = torch.tensor([[0.123456, 0.123457], [-7.0, 1e-7], [1 / 3, 2e9]])
    split = {"texts": ["a", "b", "c"], "labels": [1, 1, 0], "lengths": [3, 3, 3]}
    how = {"subset": None, "windows": False, "precision": "fp32"}
    assert keep_answers(folder, "test", logits, split, how)
    assert torch.equal(read_answers(folder, "test")["logits"], logits)



def test_a_device_and_a_file_that_is_read_are_not_written_to(rehearsed, tmp_path):
    """To rename over /dev/null would take it away from every other program."""
    floor = tmp_path / "floor.json"
    floor.write_text("{}")
    device = tmp_path / "pipe"
    os.mkfifo(device)
    for out in (device, floor):
        done = run_script("extras.report", rehearsed[0], "--baseline", floor, "--out", out)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert device.is_fifo() and floor.read_text() == "{}"


def test_the_page_may_lie_in_the_model_s_folder_and_be_written_again(rehearsed, tmp_path):
    """But none of the model's own files is overwritten, whatever its path looks like."""
    folder = shutil.copytree(rehearsed[0], tmp_path / "model")
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "page.html").symlink_to(folder / "run.json")
    (folder / "page.html").symlink_to(folder / "README.md")
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    words = ("extras.report", folder, "--mistakes", "0", "--out")
    own = [folder / name for name in OURS if (folder / name).is_file()]
    own += [tmp_path / "link" / "run.json", folder / ".." / "model" / "model.safetensors"]
    own += [os.path.relpath(folder / "config.json", PROJECT), folder / "page.html"]
    own += [tmp_path / "page.html"]
    for out in own:
        done = run_script(*words, out)
        assert done.returncode == 2 and "is the file that is read" in done.stderr, out
    assert before == {path: path.read_bytes() for path in before}
    for _ in range(2):
        done = run_script(*words, folder / "report.html")
        assert done.returncode == 0, done.stderr
    assert "<svg" in (folder / "report.html").read_text(encoding="utf-8")


def test_without_matplotlib_it_says_what_to_install(rehearsed, monkeypatch):
    """It is no core package."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run_script("extras.report", rehearsed[0])
    assert done.returncode == 2 and "pip install -r requirements-extra.txt" in done.stderr


def test_of_many_classes_the_page_shows_the_confused_pairs_and_the_worst():
    """A table of 30 x 30 cells, or of 77 rows, is seen by nobody."""
    names, labels = [f"class-{c}" for c in range(30)], torch.arange(30).repeat(4)
    said = labels.clone()
    said[[7, 37]] = 8  # class-7 is twice called class-8
    figures = score(torch.nn.functional.one_hot(said, 30).float(), labels.tolist(), names)
    page = show_test({"figures": figures, "run": {"labels": names}}, None)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    at = cells.index("class-7")
    assert cells[at : at + 3] == ["class-7", "class-8", "2"]
    assert "class, of the lowest 10" in page and page.count("<tr") < 20
