"""Chapter 9: a page about a model.

Teaches   what to look at before a model is trusted: whether it had finished learning, whether its
          best epoch stands out, which mistakes it makes and where, how sure it is of them, and what
          counting words (baseline.py) gets on the same reviews.
Order     after baseline.py; calibration.py computes what it shows, charts.py draws it.
Run       pip install -r requirements-extra.txt
          python report.py model                              writes report.html
          python report.py model-a model-b --baseline baseline.json --out both.html
Expect    one file that needs nothing else: no network, no script. Light and dark, for phone, screen
          and paper. It shows what finetune.py and evaluate.py have answered; with all of the test
          split, after `python evaluate.py`, the figures are surer.
"""

# First: once errors.py is in, Ctrl-C ends in one line, also while torch is imported (seconds).
from errors import UserError, make_parser, run_command

from tqdm import tqdm

import charts
from answers import read_answers, read_figures, surest_mistakes
from attention import choose_attention
from calibration import answers_of, calibration_error, coverage, reliability, temperature_for
from checkpoint import load_model, read_run
from compare import difference_interval, mcnemar
from dataset import make_collate
from evaluate import score, wilson_interval
from explain import explain, gap_in_words
from folder import check_target, read_json, write_whole
from history import read_history
from hardware import choose_hardware
from page import card, cards, color_words, document, table, text
from plan import command_line


# ------------------------------------------------------------------------------ one model
def share(right, n):
    """A share in words, with its 95 % interval and n."""
    low, high = wilson_interval(right, n)
    return f"{right / n:.2%} ({low:.2%} to {high:.2%}, n\u00a0=\u00a0{n:,})"


def read_all(folder):
    """Everything that the page says about a model, from its folder. Raises UserError."""
    run = read_run(folder)
    test, held_out = answers_of(folder, "test"), read_answers(folder, "validation")
    logits, labels = test["logits"], test["labels"]
    for answers in filter(None, (test, held_out)):
        if answers["logits"].shape[1] != len(run["labels"]):
            raise UserError(f"{folder}: answers-*.json has not as many classes as run.json")
    temperature = temperature_for(test, held_out)
    before = reliability(logits, labels)
    after = reliability(logits / temperature, labels) if temperature else None
    return {
        "folder": folder,
        "run": run,
        "steps": read_history(folder)[0],
        "test": test,
        "figures": score(logits, labels, run["labels"]),
        "right": logits.argmax(dim=-1) == labels,  # [N]
        "temperature": temperature,
        "before": before,
        "after": after,
    }


def show_mistakes(found, count):
    """The surest mistakes as an HTML list, their words in color by integrated gradients."""
    names, test = found["run"]["labels"], found["test"]
    scores, predicted = test["logits"].softmax(dim=-1).max(dim=-1)  # [N], [N]
    rows = [
        row for row in surest_mistakes(test["logits"], test["labels"]) if row in test["mistakes"]
    ]
    if not rows[:count]:
        return "<p>none</p>"
    device, _, _ = choose_hardware(None, "fp32")
    model, tokenizer, run = load_model(found["folder"], device)
    choose_attention(model, device, "fp32")
    collate, items = make_collate(tokenizer.pad_token_id), []
    for row in tqdm(rows[:count], desc="explaining mistakes", unit=" reviews", leave=False):
        review = test["mistakes"][row]
        answer, truth = names[predicted[row]], names[test["labels"][row]]
        try:  # the answer that was given then; with --windows another than the cut text's, perhaps
            about = (collate, review, run["arguments"], device)
            why = explain(model, tokenizer, *about, quick=True, target=predicted[row].item())
            shown = color_words(why["words"], why["shares"])
            shown += f'<p class="note">{text(gap_in_words(why))}</p>'
        except UserError as error:
            shown = f'<p>{text(review)}</p><p class="note">{text(str(error))}</p>'
        items.append(
            f"<li>{text(answer)} {scores[row]:.3f}, but is <strong>{text(truth)}</strong>"
            f"{shown}</li>"
        )
    return f"<ol>{''.join(items)}</ol>"


def show_facts(found):
    """What the model is and how it was made, as an HTML table."""
    run, test = found["run"], found["test"]
    arguments, device = run["arguments"], run["device"]
    rows = {
        "command": command_line(arguments),
        "model": arguments["model"],
        "data": f"{arguments['data']}, fingerprint {run.get('data_fingerprint', 'unknown')}",
    }
    for role, split in run["splits"].items():
        classes = ", ".join(f"{n:,} {name}" for name, n in split["classes"].items())
        rows[role] = f"{split['reviews']:,} reviews: {classes}"
    rows |= {
        "division": "; ".join(run["notes"]),
        "device": f"{device['type']} ({device['name']}, {device['threads']} threads)",
        "precision": f"{device['precision']} in training, {test['precision']} in testing",
        "training": f"{minutes(run):.1f} minutes",
    }
    if run["results"].get("peak_bytes"):
        rows["peak memory"] = f"{run['results']['peak_bytes'] / 2**30:.2f} GiB"
    rows["versions"] = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    return table(rows.items(), kind="facts")


def minutes(run):
    """How long a run has trained."""
    return sum(record["seconds"] for record in run["history"]) / 60


def show_test(found, floor):
    """The figures of the test split, as HTML tables."""
    figures, names = found["figures"], found["run"]["labels"]
    rows = [["accuracy", share(figures["correct"], figures["n"])]]
    rows += [["macro F1", f"{figures['macro_f1']:.2%}"], ["loss", f"{figures['loss']:.4f}"]]
    rows += [["baseline", share(*floor)]] if floor else []
    confusion = [
        [f"is {name}", *(f"{cell:,}" for cell in row)]
        for name, row in zip(names, figures["confusion"])
    ]
    per_class = [
        [name, *(f"{one[key]:.2%}" for key in ("precision", "recall", "f1"))]
        for name, one in figures["per_class"].items()
    ]
    return (
        table(rows)
        + table(confusion, ["", *(f"called {name}" for name in names)])
        + table(per_class, ["class", "precision", "recall", "F1"])
    )


def section(found, floor, mistakes):
    """The cards about one model, as HTML. floor: (right, n) of the baseline, or None."""
    run, test, right = found["run"], found["test"], found["right"]
    history, max_length = run["history"], run["arguments"]["max_length"]
    last_steps = [record["optimizer_steps"] for record in history]
    epochs = charts.draw_epochs(history, run["results"]["best_epoch"])
    wrong = len(right) - int(right.sum())
    sure = charts.draw_reliability(found["before"], found["after"])
    error = f"Expected calibration error {calibration_error(found['before']):.4f}"
    if found["after"]:
        error += (
            f"; {calibration_error(found['after']):.4f} when the logits are divided by "
            f"{found['temperature']:.3f}, a temperature that was fitted on validation"
        )
    points = coverage(test["logits"], test["labels"])
    half = min(points, key=lambda point: abs(point[0] - 0.5))
    lengths = charts.draw_lengths(test["lengths"], right, max_length, floor)
    cut = test["lengths"] > max_length  # [N]
    groups = (f"up to {max_length} tokens", ~cut), ("longer", cut)
    by_cut = [
        [title, share(int(right[rows].sum()), int(rows.sum()))]
        for title, rows in groups
        if rows.any()
    ]
    return cards(
        card("Loss", charts.draw_loss(found["steps"], last_steps)),
        card(
            "Validation by epoch",
            epochs,
            note="With 95 % intervals. The epoch that is kept is the one in a circle.",
        ),
        card(
            "Test",
            show_test(found, floor),
            note="Long reviews were read whole, in windows." if test["windows"] else "",
        ),
        card(
            "How sure, and how often right",
            sure,
            note=f"{error}. On the line a probability keeps its promise; below, it promises more.",
        ),
        card(
            "If only the surest answers counted",
            charts.draw_coverage(points, floor),
            note=f"Of the surest {half[0]:.0%}, {half[1]:.2%} are right.",
        ),
        card("By length", lengths, table(by_cut)),
        card(
            "The surest mistakes",
            show_mistakes(found, mistakes),
            note=f"{min(mistakes, wrong)} of {wrong:,}. Green speaks for the answer that was "
            "given, red and underlined against it (integrated gradients, of the part that the "
            "model reads). Often the label is what is odd.",
            wide=True,
        ),
        card("Facts", show_facts(found), wide=True),
    )


def way_of(found):
    """How the test reviews were read, in words."""
    return f"{'in windows' if found['test']['windows'] else 'cut'}, {found['test']['precision']}"


# ------------------------------------------------------------------------------ several models
def overview(all_found):
    """A row for each model and, where two have answered the same reviews, their difference."""
    rows = []
    for found in all_found:
        figures = found["figures"]
        rows.append([found["folder"], way_of(found), share(figures["correct"], figures["n"])])
        rows[-1] += [f"{figures['macro_f1']:.2%}", f"{figures['loss']:.4f}"]
        rows[-1] += [f"{calibration_error(found['before']):.4f}", f"{minutes(found['run']):.1f}"]
    header = ["model", "read", "test accuracy", "macro F1", "loss", "calibration error", "minutes"]
    first, lines = all_found[0], []
    for other in all_found[1:]:
        names = f"{first['folder']}, {other['folder']}"
        if first["test"]["reviews"] != other["test"]["reviews"]:
            lines.append(f"{names}: tested on different reviews.")
            continue
        only_a = int((first["right"] & ~other["right"]).sum())
        only_b = int((other["right"] & ~first["right"]).sum())
        found = difference_interval(only_a, only_b, len(first["right"]))
        difference, low, high = (f"{100 * value:+.2f}" for value in found)
        lines.append(
            f"{names}: the first is better by {difference} points ({low} to {high}), McNemar's "
            f"exact p = {mcnemar(only_a, only_b):.3g}."
        )
    return cards(card("Side by side", table(rows, header), note=" ".join(lines), wide=True))


def read_floor(path, run):
    """(right, n) of a file of baseline.py --results. Raises UserError if it is of other data.

    It may have answered more test reviews than the model; the page shows both numbers.
    """
    floor = read_figures(path, "test")
    fingerprint = read_json(path).get("data_fingerprint")
    if not fingerprint or fingerprint != run.get("data_fingerprint"):
        raise UserError(f"--baseline {path}: is about other data than the model, or another seed")
    return floor


def make_page(all_found, args):
    """The HTML about all models: a list of pieces. all_found: of read_all()."""
    parts = [overview(all_found)] if len(all_found) > 1 else []
    if any(found["run"]["arguments"]["demo"] for found in all_found):
        parts.insert(0, "<p>A rehearsal: made-up reviews. This says nothing about real ones.</p>")
    for found in all_found:
        floor = None if args.baseline is None else read_floor(args.baseline, found["run"])
        parts += [f"<h2>{text(found['folder'])}</h2>", section(found, floor, args.mistakes)]
    return parts


def main():
    parser = make_parser(__doc__)
    parser.add_argument(
        "folders",
        nargs="*",
        default=["model"],
        metavar="MODEL",
        help="folders that finetune.py saved (default: model)",
    )
    parser.add_argument(
        "--baseline", metavar="FILE.json", help="of baseline.py --results: a line to compare with"
    )
    parser.add_argument(
        "--mistakes",
        type=int,
        default=5,
        help="to show, with colored words (default: 5, at most 20)",
    )
    parser.add_argument(
        "--out", default="report.html", metavar="FILE.html", help="(default: report.html)"
    )
    args = parser.parse_args()
    if not 0 <= args.mistakes <= 20:
        raise UserError(f"--mistakes {args.mistakes}: has to be from 0 to 20")
    check_target(args.out, *args.folders, *[args.baseline] * bool(args.baseline))
    charts.new_picture()  # matplotlib missing? Say so now
    try:
        parts = make_page([read_all(folder) for folder in args.folders], args)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(
            f"{', '.join(args.folders)}: run.json does not hold what it should "
            f"({type(error).__name__}: {error}); train again"
        ) from error
    write_whole(args.out, document("What the model learned", *parts))
    print(f"{args.out}: open it in a browser")


if __name__ == "__main__":
    run_command(main)
