"""The measured parts of README.md: the screen of a run, what it needs, and the small tables.

Run       python -m docs.pages, which writes them into the page
"""

import re
from pathlib import Path

from docs.results.tables import made_on, markdown, minutes_of, read, runs, spread
from evaluate import wilson_interval
from support.banner import in_words

ROOT = Path(__file__).resolve().parent.parent.parent
DISTILBERT = 66_955_010  # parameters, with a head for two classes, as finetune.py prints them


def screen():
    """What the main job prints, as it was recorded by docs/results/screen.py."""
    (found,) = read("screen-main.json")
    shown = [line for line in found["lines"] if not line.startswith("precision ")]
    lines = "\n".join(shown[: shown.index("") + 1 if "" in shown else None])
    rest = "\n".join(shown).split("\nepoch ", 1)[1].split("\n\nsaved in")[0]
    answer = "\n".join(found["answer"])
    return (
        f"```\n$ {found['command']}\n{lines}...\n\nepoch {rest}\n\n"
        f"$ {found['question']}\n{answer}\n```"
    )


def caption():
    """What stands below the picture of the main job."""
    (found,) = read("screen-main.json")
    test = found["run"]["results"]["test"]
    low, high = test["accuracy_interval"]
    return (
        f"*The loss of each step, and the accuracy after each epoch, of `{found['command']}`. In "
        f"the end {test['accuracy']:.2%} of {test['n']:,} test reviews, which chose nothing, were "
        f"right (95 % interval {low:.2%} to {high:.2%}).*"
    )


def needs():
    """How long the main job takes, and how much disk."""
    (found,), (bench,) = read("screen-main.json"), read("benchmark-amd-epyc-2-bf16.json")
    device, run = found["run"]["device"], found["run"]
    speed = {task["task"]: task["contenders"] for task in bench["tasks"]}
    sizes = {role: split["reviews"] for role, split in run["splits"].items()}
    epochs, shown = run["arguments"]["epochs"], "\n".join(found["lines"])
    judged = epochs * sizes["validation"] + sizes["test"]
    seconds = epochs * sizes["train"] / speed["train-256"]["finetune.py"]["reviews_per_second"]
    seconds += judged / speed["score-256"]["evaluate.py"]["reviews_per_second"]
    larger = DISTILBERT / int(re.search(r"([\d,]+) parameters", shown)[1].replace(",", ""))
    return (
        f"**Time.** The run above took {in_words(found['seconds'])} on a CPU ({device['name']}, "
        f"{device['threads']} cores, {device['precision']}). DistilBERT is {larger:.0f} times as "
        f"large, and takes longer there. On {bench['threads']} cores that multiply numbers of 16 "
        f"bits ({bench['precision']}) it needs {in_words(seconds)}, by its [measured "
        "speed](docs/speed.md). GPUs could not be measured yet.\n"
        f"**Disk.** {size(found['environment_bytes'])} for the packages. This run needs "
        f"{size(found['peak_disk_bytes'])} more while it lasts, for its last two checkpoints, and "
        f"leaves {size(found['saved_bytes'])} behind; with DistilBERT {larger:.0f} times as much."
    )


def size(count):
    """Bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


CHAPTERS = {
    "dataset.py": "from reviews to a batch: three splits that do not leak, tokens, padding, mask",
    "model.py": "device and precision; a pretrained encoder with a new head; saving it whole",
    "evaluate.py": "count, then divide: accuracy and its interval, F1, the worst mistakes",
    "finetune.py": "the loop, in ten numbered steps; then the whole path around it",
    "predict.py": "your own sentences, a file, or a pipe",
}


def chapters():
    """The reading order, and how long each takes at ten lines a minute."""
    rows, total = [], 0
    for number, (name, what) in enumerate(CHAPTERS.items(), start=1):
        lines = len((ROOT / name).read_text(encoding="utf-8").splitlines())
        minutes = 5 * round(lines / 50)
        total += minutes
        rows.append([number, f"[{name}]({name}): {what}", f"{minutes} min"])
    table = markdown(["", "chapter", "to read"], rows)
    return f"{table}\n\nTogether some {total / 60:.1f} hours, at ten lines a minute."


def short():
    """The small table: what comes out, beside what it has to beat. All of it on all of test."""
    rows = []
    for name, words, peer in (
        ("imdb-2000", "counted-2000-*", "trainer-2000-*"),
        ("imdb-all", "counted-all-*", "trainer-all-*"),
    ):
        counted, found = read(f"{words}.json"), runs(name)
        learned = f"{round(counted[0]['train_reviews'], -2):,} reviews"  # seeds differ by a few
        seconds = min(one["seconds"] for one in counted)
        tests = [one["test"] for one in counted]
        rows.append([f"counting words, {learned}", tests, f"{seconds / 60:.1f}"])
        figures = [one["evaluated"]["figures"] for one in found]
        # Beside the minutes stands what they depend on: other rows may have been made otherwise.
        fastest = min(found, key=lambda one: minutes_of(one["run"]))
        made = f"{minutes_of(fastest['run']):.0f} ({made_on([fastest])})"
        theirs = [one["evaluated"]["figures"] for one in read(f"{peer}.json")]
        rows.append([f"transformers' Trainer, as it comes, {learned}", theirs, ""])
        rows.append([f"`finetune.py`, {learned}", figures, made])
    (n,) = {one["n"] for _, figures, _ in rows for one in figures}
    shown = []
    for way, figures, minutes in rows:
        shares = [one["correct"] / one["n"] for one in figures]
        if len(figures) == 1:
            low, high = wilson_interval(figures[0]["correct"], n)
            share = f"{shares[0]:.2%} ({low:.1%} to {high:.1%})"
        else:
            share = f"{spread(shares)} ({len(figures)} seeds)"
        shown.append([way, share, minutes])
    return markdown(["trained on", f"accuracy on {n:,} test reviews", "minutes of training"], shown)


SECTIONS = {
    "caption": caption,
    "screen": screen,
    "needs": needs,
    "short": short,
    "chapters": chapters,
}
