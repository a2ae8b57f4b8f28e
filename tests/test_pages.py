"""README.md and docs/*.md: every figure is measured and recorded, or names its source.

Figures with these units outside of the generated sections have to be in KNOWN. (Numbers that are
written as words are not found.)
"""

import json
import random
import re
import shlex

import pytest
from conftest import PROJECT

from docs import pages
from docs.results import record, tables
from extras.kept import command_line
from support.files import file_digest
from support.options import FOUND_OUT, parse_arguments

TEXTS = {path.relative_to(PROJECT).as_posix(): path.read_text("utf-8") for path in pages.PAGES}
ALL = "\n".join(TEXTS.values())
RESULTS_PAGE = TEXTS["docs/results.md"]
FOUND = {found[1]: found for found in pages.SECTION.finditer(ALL)}

# What a run was told, and not what came out.
CHOSEN = "subset seed epochs max_length lr batch_size accumulate warmup n attention_dropout clip"
CHOSEN = f"{CHOSEN} weight_decay head_epochs train_layers train_reviews threads reviews".split()

# Figures outside of the generated sections: what they are, and so why nobody measured them.
KNOWN = {
    "268 MB": "the size of DistilBERT's file on the hub",
    "91 MB": "the size of MiniLM's file on the hub",
    "84 MB": "the size of IMDB's files on the hub",
    "92.82 %": "quoted: Sanh et al. 2019, named beside it",
    "95 %": "the confidence of all intervals",
    "66 million": "DistilBERT's weights",
    "50 %": "chance, of two classes",
    "33 %": "macro F1 of one class: (2/3 + 0) / 2",
    "2 s": "a message of support/hub.py",
    "5 points": "one review of twenty",
}


def files_of(name):
    """The result files that a section is made from."""
    pages.section(name)
    return set(tables.READ)


FROM_FILES = sorted(name for name in pages.SECTIONS if files_of(name))
assert {"main", "defaults", "short", "screen"} < set(FROM_FILES)


def test_the_tables_are_the_recorded_ones():
    """Figures that were typed go stale; these are written by `python -m docs.pages`."""
    for name, text in TEXTS.items():
        assert pages.rewrite(text) == text, f"{name}: python -m docs.pages"
    names = [found[1] for found in pages.SECTION.finditer(ALL)]
    assert sorted(names) == sorted(pages.SECTIONS), "each of them once"
    assert ALL.count("docs/pages.py writes this -->") == len(names), "a mark that is not closed"


def test_every_result_names_the_commit_that_made_it():
    """Figures belong to the code of their day. A file that has changed since needs a new commit."""
    known = json.loads(pages.COMMITS.read_text(encoding="utf-8"))
    files = {path.name: path for path in pages.COMMITS.parent.glob("*.json")}
    del files[pages.COMMITS.name]
    assert set(known) == set(files)
    for name, path in files.items():
        assert known[name]["digest"] == file_digest(path), f"{name}: python -m docs.pages"
    for name in set(FROM_FILES) - pages.INSIDE:
        assert re.search(r"<sub>Recorded .*commits? `[0-9a-f]{7,}`", FOUND[name][2]), name


@pytest.mark.parametrize("name", sorted(pages.SECTIONS))
def test_one_altered_digit_is_found(name):
    """Tried with five or so digits of every section."""
    part = FOUND[name][0]
    digits = [match.start() for match in re.finditer(r"\d", part)]
    assert digits
    for at in digits[:: max(1, len(digits) // 5)]:
        altered = part[:at] + str((int(part[at]) + 1) % 10) + part[at + 1 :]
        assert pages.rewrite(altered) == part != altered


def joined(text):
    """A page's text with the lines of a command put together."""
    return re.sub(r" *\\\n *", " ", text)


def test_the_option_beside_a_row_repeats_its_runs():
    """The page's command, with a row's option behind it, has the options of every recorded run of
    that name: what a figure is called is what was done.
    """
    (command,) = re.findall(r"^python -m extras\.search (.*?) OPTION$", joined(RESULTS_PAGE), re.M)
    own, _, main = command.replace("--model $MINILM", record.MINILM).partition(" -- ")
    assert own == f"seed={','.join(map(str, record.SEEDS))} --grid --test {record.FEW}"
    files = (PROJECT / "docs" / "results").glob("run-*.json")
    names = {path.stem.removeprefix("run-").rpartition("-")[0] for path in files}
    for name in names - {"demo", *record.LEARNED}:  # which have folders of their own
        typed = record.RUNS[record.ASKED.get(name, [name])[0]].replace(record.MAIN, main)
        again = vars(parse_arguments("", shlex.split(typed)))
        for one in tables.runs(name):
            recorded = one["run"]["arguments"]
            # Options of another day: one is a command today, extras.sanity, and one is new.
            assert not recorded.get("sanity")
            unset = {key for key in FOUND_OUT if again[key] is None} | {"sanity"}
            for key in set(recorded) - unset - {"out", "seed", "resume"}:
                assert again[key] == recorded[key], f"{name}: {key}"


def test_a_row_says_how_many_threads_and_which_numbers_made_it():
    """The last digit of a sum depends on both, and so a figure that is to be repeated."""
    runs = tables.runs("few")
    runs[2]["run"]["device"] = {"threads": 1, "precision": "bf16"}
    assert tables.made_on(runs) == "2 threads, fp32 (42, 43)<br>1 thread, bf16 (44)"
    assert tables.made_on(runs[:2]) == "2 threads, fp32"
    minutes = [round(tables.minutes_of(one["run"])) for one in runs]
    assert tables.minutes_on(runs) == f"{min(minutes[:2])}<br>{minutes[2]}", "a time for each kind"


@pytest.mark.parametrize("name", FROM_FILES)
def test_other_results_make_another_section(name, tmp_path, monkeypatch):
    """The other way round: most of a section's figures change when those in the files do."""

    def altered(value, key=""):
        if isinstance(value, dict):
            return {k: altered(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [altered(v, key) for v in value]
        if key == "right" and isinstance(value, str):  # a bit for each answer
            return "".join(chance.choice("07f") if chance.random() < 0.1 else x for x in value)
        if key in ("lines", "answer"):  # what was printed
            return re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), value)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or key in CHOSEN:
            return value
        return type(value)(value * chance.uniform(0.7, 0.95))

    for path in sorted((PROJECT / "docs" / "results").glob("*.json")):
        chance = random.Random(path.name)
        record = altered(json.loads(path.read_text(encoding="utf-8")))
        (tmp_path / path.name).write_text(json.dumps(record), encoding="utf-8")
    before = pages.SECTIONS[name]()
    assert before in FOUND[name][2]
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    told = r"`.*?`|\d threads?|\(\d seeds, [\d,]+ each\)"
    figures = [
        re.findall(r"\d[\d,.]*(?:e-\d+)?", re.sub(told, "", text))
        for text in (before, pages.SECTIONS[name]())
    ]
    assert len(figures[0]) == len(figures[1])
    changed = sum(one != other for one, other in zip(*figures))
    assert changed > len(figures[0]) / 3, f"{changed} of {len(figures[0])}"


@pytest.mark.parametrize("name", TEXTS)
def test_no_figure_is_typed(name):
    """Shares, times and sizes outside of the generated sections are known, and no measurements."""
    text = re.sub(r"```.*?```", "", pages.SECTION.sub("", TEXTS[name]), flags=re.S)
    text = re.sub(r"<picture>.*?</picture>|<img.*?>", "", text, flags=re.S)
    units = r"(?:%|points|x\b|GFLOP/s|reviews/s|GiB|GB|MB|minutes?|seconds?|s\b|ms\b|times|million)"
    found = {" ".join(figure.split()) for figure in re.findall(rf"\d[\d,.]*\s?{units}", text)}
    assert found <= set(KNOWN), found - set(KNOWN)


def test_recorded_runs_are_whole_and_name_no_machine():
    """Command, versions, hardware, data, sizes, history, result, memory; no folder of anybody's."""
    files = sorted((PROJECT / "docs" / "results").glob("run-*.json"))
    assert files
    for path in files:
        one = json.loads(path.read_text(encoding="utf-8"))
        run = one["run"]
        assert {"arguments", "versions", "device", "data_fingerprint", "splits"} <= set(run)
        assert run["history"] and run["results"]["peak_bytes"] > 0
        for part in [one[name] for name in ("validated", "evaluated") if name in one]:
            figures = part["figures"]
            assert sum(map(sum, figures["confusion"])) == figures["n"]
            right = int(part.get("right", "0"), 16).bit_count()
            assert right == figures["correct"] or "right" not in part, path
        assert not re.search(r'"(/|[A-Z]:)', json.dumps(one)), path


@pytest.mark.parametrize(
    "words",
    [
        "--epochs 3 --subset 2000",
        "--lr 2e-05 --truncation tail --head-epochs 2 --train-layers 3 --dropout 0.0",
        "--demo --epochs 2 --seed 7 --precision fp32",
        "--data 'a file.csv' --text-column 'the text' --patience 1",
    ],
)
def test_the_command_beside_a_row_repeats_the_run(words):
    """It is made from run.json's arguments; typed again, it gives the same ones."""
    args = vars(parse_arguments("", shlex.split(words)))
    command = shlex.split(command_line({"arguments": args, "recipe": {}}))
    assert command[:2] == ["python", "finetune.py"]
    assert vars(parse_arguments("", command[2:])) == args
    assert len(command) - 2 == len(shlex.split(words)), "nothing that is the default anyway"


# ------------------------------------------------------------------------------ the pages
def anchors_of(text):
    """What GitHub makes of a page's headings: lower case, hyphens for spaces, no other signs."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    plain = [re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def broken_links(name, text, texts):
    """The links of a page, pictures among them, that lead nowhere. texts: {page: text}."""
    text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    wrong = []
    for link in links:
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (PROJECT / name).parent / path if path else PROJECT / name
        page = target.resolve().relative_to(PROJECT).as_posix() if target.exists() else None
        if page is None or (anchor and anchor not in anchors_of(texts.get(page, ""))):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_somewhere(name):
    """To a file that exists, and a heading that the page really has."""
    assert broken_links(name, TEXTS[name], TEXTS) == []


def test_a_broken_link_is_found():
    """In a sentence, in a picture, and to a heading that was renamed."""
    text = "# One two\n[a](docs/x.md) [b](#one-two) [c](#two) [d](README.md#three)"
    text += '<img src="y.svg">'
    found = broken_links("README.md", text, {"README.md": text})
    assert found == ["docs/x.md", "#two", "README.md#three", "y.svg"]


def test_the_front_page_is_short_and_leads_to_every_other():
    """Who has to scroll for the second command does not type it."""
    assert len(TEXTS["README.md"].splitlines()) <= 200
    for name in set(TEXTS) - {"README.md"}:
        assert f"({name})" in TEXTS["README.md"], name
    for command in (
        "python finetune.py --epochs 3 --subset 2000",
        'python predict.py "I regret watching this film"',
    ):
        assert TEXTS["README.md"].index(command) < 2500, "in the first screen"


@pytest.mark.parametrize("name", sorted(set(TEXTS) - {"README.md"}))
def test_each_page_opens_with_what_it_answers(name):
    """A heading; then, before anything else, the question."""
    heading, _, opening = TEXTS[name].partition("\n\n")
    assert heading.startswith("# ") and "This page" in opening.split("\n\n")[0]


def test_words_stand_in_the_order_of_the_chapters():
    """So a section can be read before its chapter, which is the first to use each word."""
    order, page = ["dataset", "model", "evaluate", "finetune"], TEXTS["docs/words.md"]
    sources = {
        name: " ".join(re.sub(r"\s*#?\s+", " ", (PROJECT / f"{name}.py").read_text()).split())
        for name in order
    }
    sections = re.findall(r"^## In \[(\w+)\.py\].*?$(.*?)(?=^## )", page, re.M | re.S)
    assert [name for name, _ in sections] == order
    for name, rows in sections:
        for words in re.findall(r"^\| (?!word|-)(.*?) \|", rows, re.M):
            word = re.escape(words.split(",")[0])
            found = re.compile(rf"(?<![\w-]){word}(s|es|ed)?(?!\w)", re.I)
            used = [at for at in order if found.search(sources[at])]
            assert used and used[0] == name, (words, used)
