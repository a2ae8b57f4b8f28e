"""A page about a model, to look at before you trust it.

Teaches   what to ask of a model. Had it finished learning? Does its best epoch stand out? Which
          mistakes does it make, and where? How sure is it of them? What does a program that only
          counts words (extras.baseline) get right on the same reviews?
After     finetune.py or evaluate.py, whose answers it reads, and extras.calibration.
Run       pip install -r requirements-extra.txt
          python -m extras.report model                writes report.html
          python -m extras.report model-a model-b --baseline baseline.json --out both.html
Expect    one file that needs nothing else: no network, no script. It fits phone, screen and paper,
          light and dark. Its figures are those of the answers that finetune.py kept. After
          `python evaluate.py` they are those of the whole test split, and surer.
"""

import os

from tqdm import tqdm

from evaluate import score, wilson_interval
from model import choose_hardware
from extras.kept import command_line, read_answers, read_figures, read_history
from support.files import check_target, read_json, write_whole
from support.pretrained import find_model
from support.saved import confused, read_run, shown_classes, surest_mistakes
from extras import charts
from extras.calibration import answers_of, calibration_error, coverage, reliability, temperature_for
from extras.compare import difference_interval, mcnemar
from extras.explain import explain, gap_in_words
from extras.page import card, cards, color_words, document, table, text
from predict import Classifier
from support.errors import UserError, make_parser, run_command

FEW = 8  # classes: of more, a table of all pairs is too wide to read


# ------------------------------------------------------------------------------ one model
def share(right, n):
    """A share in words, with its 95 % interval and with n."""
    low, high = wilson_interval(right, n)
    return f"{right / n:.2%} ({low:.2%} to {high:.2%}, n\u00a0=\u00a0{n:,})"


def read_all(folder):
    """Everything that the page needs about a model, from its folder. Raises UserError."""
    place = find_model(folder)
    read_run(place)  # if this is no model, say so first
    test, held_out = answers_of(place, "test"), read_answers(place, "validation")
    run = read_run(place, test["max_length"])  # somebody else's may have been told another
    logits, labels = test["logits"], test["labels"]
    for answers in filter(None, (test, held_out)):
        if answers["logits"].shape[1] != len(run["labels"]):
            raise UserError(f"{folder}: answers-*.json has not as many classes as run.json")
    temperature = temperature_for(test, held_out)
    return {
        "folder": folder,
        "run": run,
        "steps": read_history(place)[0] if run["history"] else [],
        "minutes": sum(record["seconds"] for record in run["history"]) / 60,
        "test": test,
        "figures": score(logits, labels, run["labels"]),
        "right": logits.argmax(dim=-1) == labels,  # [N]
        "temperature": temperature,
        "before": reliability(logits, labels),
        "after": reliability(logits / temperature, labels) if temperature else None,
    }


def show_mistakes(found, count):
    """The surest mistakes as an HTML list. Integrated gradients give their words a color."""
    names, test = found["run"]["labels"], found["test"]
    scores, predicted = test["logits"].softmax(dim=-1).max(dim=-1)  # [N], [N]
    surest = surest_mistakes(test["logits"], test["labels"])
    rows = [row for row in surest if row in test["mistakes"]][:count]
    if not rows:
        return "<p>none</p>"
    device, _, _ = choose_hardware(None, "fp32")
    classifier, items = Classifier(found["folder"], device, max_length=test["max_length"]), []
    for row in tqdm(rows, desc="explaining mistakes", unit=" reviews", leave=False):
        review = test["mistakes"][row]
        answer, truth = names[predicted[row]], names[test["labels"][row]]
        try:  # Explain the answer that was kept: one that was read in windows may differ from this.
            why = explain(classifier, review, quick=True, target=predicted[row].item())
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
    if "assumed" in run:  # a classifier that somebody else has trained
        rows = {"model": run["arguments"]["model"], "assumed": run["assumed"]}
        return table((rows | {"asked about": test.get("data", "unknown")}).items(), kind="facts")
    arguments, device = run["arguments"], run["device"]
    rows = {
        "command": command_line(run),
        "model": arguments["model"],
        "data": f"{arguments['data']}, fingerprint {run.get('data_fingerprint', 'unknown')}",
    }
    for role, split in run["splits"].items():
        classes = ", ".join(f"{n:,} {name}" for name, n in split["classes"].items())
        rows[role] = f"{split['reviews']:,} reviews: {classes}"
    peak = run["results"].get("peak_bytes")
    rows |= {
        "division": "; ".join(run["notes"]),
        "device": f"{device['type']} ({device['name']}, {device['threads']} threads)",
        "precision": f"{device['precision']} in training, {test['precision']} in testing",
        "training": f"{found['minutes']:.1f} minutes",
        **({"peak memory": f"{peak / 2**30:.2f} GiB"} if peak else {}),
        "versions": ", ".join(f"{name} {number}" for name, number in run["versions"].items()),
    }
    return table(rows.items(), kind="facts")


def show_test(found, floor):
    """The figures of the test split, as HTML tables."""
    figures, names = found["figures"], found["run"]["labels"]
    rows = [["accuracy", share(figures["correct"], figures["n"])]]
    rows += [["macro F1", f"{figures['macro_f1']:.2%}"], ["loss", f"{figures['loss']:.4f}"]]
    rows += [["baseline", share(*floor)]] if floor else []
    confusion, columns = confused(figures), ["is", "called", "reviews"]
    if len(names) <= FEW:
        columns = ["", *(f"called {name}" for name in names)]
        confusion = [
            [f"is {name}", *(f"{cell:,}" for cell in row)]
            for name, row in zip(names, figures["confusion"])
        ]
    per_class = [
        [name, *(f"{one[key]:.2%}" for key in ("precision", "recall", "f1"))]
        for name, one in shown_classes(figures)
    ]
    few = f", of the lowest {len(per_class)}" * (len(per_class) < len(names))
    return (
        table(rows)
        + table(confusion, columns)
        + table(per_class, [f"class{few}", "precision", "recall", "F1"])
    )


def section(found, floor, mistakes):
    """The cards about one model, as HTML. floor: (right, n) of the baseline, or None."""
    run, test, right = found["run"], found["test"], found["right"]
    history, max_length, trained = run["history"], run["arguments"]["max_length"], []
    if history:
        ends = [record["optimizer_steps"] for record in history]
        epochs = charts.draw_epochs(history, run["results"]["best_epoch"])
        kept = "With 95 % intervals. The epoch that is kept is the one in a circle."
        trained = [card("Loss", charts.draw_loss(found["steps"], ends))]
        trained += [card("Validation by epoch", epochs, note=kept)]
    windows = "Long reviews were read whole, in windows." if test["windows"] else ""
    sure = charts.draw_reliability(found["before"], found["after"])
    error = f"Expected calibration error {calibration_error(found['before']):.4f}"
    if found["after"]:
        error += (
            f"; {calibration_error(found['after']):.4f} when the logits are divided by "
            f"{found['temperature']:.3f}, a temperature that was fitted on validation"
        )
    error += ". On the line a probability keeps its promise; below, it promises more."
    points = coverage(test["logits"], test["labels"])
    half = min(points, key=lambda point: abs(point[0] - 0.5))
    surest = f"Of the surest {half[0]:.0%}, {half[1]:.2%} are right."
    covered = charts.draw_coverage(points, floor)
    lengths, cut = test["lengths"], test["lengths"] > max_length  # [N], [N]
    by_cut = [
        [title, share(int(right[rows].sum()), int(rows.sum()))]
        for title, rows in ((f"up to {max_length} tokens", ~cut), ("longer", cut))
        if rows.any()
    ]
    wrong = len(right) - int(right.sum())
    colors = (
        f"{min(mistakes, wrong)} of {wrong:,}. Green speaks for the answer that was given, red and "
        "underlined against it (integrated gradients, of the part that the model reads). Often the "
        "label is what is odd."
    ) * bool(wrong)
    return cards(
        *trained,
        card("Test", show_test(found, floor), note=windows),
        card("How sure, and how often right", sure, note=error),
        card("If only the surest answers counted", covered, note=surest),
        card("By length", charts.draw_lengths(lengths, right, max_length, floor), table(by_cut)),
        card("The surest mistakes", show_mistakes(found, mistakes), note=colors, wide=True),
        card("Facts", show_facts(found), wide=True),
    )


# ------------------------------------------------------------------------------ several models
def overview(all_found):
    """A row for each model, and how the first compares with each of the others."""
    rows = []
    for found in all_found:
        figures, test = found["figures"], found["test"]
        read = f"{'in windows' if test['windows'] else 'cut'}, {test['precision']}"
        rows.append([found["folder"], read, share(figures["correct"], figures["n"])])
        rows[-1] += [f"{figures['macro_f1']:.2%}", f"{figures['loss']:.4f}"]
        rows[-1] += [f"{calibration_error(found['before']):.4f}", f"{found['minutes']:.1f}"]
    header = ["model", "read", "test accuracy", "macro F1", "loss", "calibration error", "minutes"]
    note = " ".join(which_is_better(all_found[0], other) for other in all_found[1:])
    return cards(card("Side by side", table(rows, header), note=note, wide=True))


def which_is_better(a, b):
    """Which of two models has more right answers, in words; both of read_all()."""
    if a["test"]["reviews"] != b["test"]["reviews"]:
        return f"{a['folder']}, {b['folder']}: tested on different reviews."
    only_a, only_b = int((a["right"] & ~b["right"]).sum()), int((b["right"] & ~a["right"]).sum())
    if only_a < only_b:
        return which_is_better(b, a)  # so that the difference is never negative
    n = len(a["right"])
    difference, low, high = (100 * one for one in difference_interval(only_a, only_b, n))
    interval = f"95 % interval {low:+.2f} to {high:+.2f} points"
    interval += f", McNemar's exact p = {(p := mcnemar(only_a, only_b)):.3g}"
    if only_a == only_b:
        return f"{a['folder']} and {b['folder']} have equally many right answers ({interval})."
    more = f"{only_a - only_b:,} more of {n:,} reviews right"
    how = "is better than" if p < 0.05 else "is above, perhaps by luck,"
    better = f"{a['folder']} {how} {b['folder']} by {difference:.2f} points"
    return f"{better}: {more} ({interval})."


def read_floor(path, run):
    """(right, n) out of a file of extras.baseline --results. UserError if it is about other data.

    The baseline may have answered more test reviews than the model: the page shows both numbers.
    """
    floor = read_figures(path, "test")
    fingerprint = read_json(path).get("data_fingerprint")
    if not fingerprint or fingerprint != run.get("data_fingerprint"):
        raise UserError(f"--baseline {path}: is about other data than the model, or another seed")
    return floor


def make_page(all_found, args):
    """All that the page shows, as a list of pieces of HTML. all_found: of read_all()."""
    parts = [overview(all_found)] if len(all_found) > 1 else []
    if any(found["run"]["arguments"]["demo"] for found in all_found):
        parts.insert(0, "<p>A rehearsal: a tiny model. This says nothing about real ones.</p>")
    for found in all_found:
        floor = None if args.baseline is None else read_floor(args.baseline, found["run"])
        parts += [f"<h2>{text(found['folder'])}</h2>", section(found, floor, args.mistakes)]
    return parts


def main():
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("folders", nargs="*", default=["model"], metavar="MODEL", help="saved by finetune.py")
    add("--baseline", metavar="FILE.json", help="of extras.baseline --results: to compare with")
    add("--mistakes", type=int, default=5, help="how many to show (default: 5, at most 20)")
    add("--out", default="report.html", metavar="FILE.html", help="(default: report.html)")
    args = parser.parse_args()
    if not 0 <= args.mistakes <= 20:
        raise UserError(f"--mistakes {args.mistakes}: has to be from 0 to 20")
    check_target(args.out, *args.folders, *filter(None, [args.baseline]))
    charts.new_picture()  # if matplotlib is missing, it says so before the work
    try:
        parts = make_page([read_all(folder) for folder in args.folders], args)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(
            f"{', '.join(args.folders)}: run.json does not hold what it should "
            f"({type(error).__name__}: {error}); train again"
        ) from error
    older = " (in place of an older one)" if os.path.exists(args.out) else ""
    write_whole(args.out, document("What the model learned", *parts))
    print(f"{args.out}: open it in a browser{older}")


if __name__ == "__main__":
    run_command(main)
