"""What came out of a search: a table, and a page with pictures.

Teaches   to look at all tries and not at the best alone: did the search find a slope, or noise?
After     extras.search, which calls it.
"""

import shlex
from pathlib import Path
from statistics import mean, stdev

from evaluate import wilson_interval
from extras import charts
from extras.page import card, cards, document, table, text
from extras.trial import REPEATS, evaluate_on_test, shown
from support.errors import UserError
from support.files import write_whole

ENOUGH = 10  # trials, to say which option matters


# ------------------------------------------------------------------------------ the table
def setting_of(trial):
    """A trial's setting in words."""
    return " ".join(f"{k}={shown(v)}" for k, v in trial.params.items()) or "(as typed)"


def over_runs(values, select):
    """The mean of several runs and their standard deviation, as two cells."""
    how = ".4f" if select == "loss" else ".2%"
    return [f"{mean(values):{how}}", f"{stdev(values):{how}}" if len(values) > 1 else "-"]


def conclude(study, args, commands_of, select):
    """Print the table of settings and the best command, test what is to be tested, write the page.

    commands_of: gives finetune.py's words for each seed and fold of a setting.
    """
    trials = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    if not trials:
        raise UserError(f"no trial came to its end; to begin anew, delete {args.folder}/study.db")
    ranked = sorted(trials, key=lambda one: one.value, reverse=select != "loss")
    ranked = list({setting_of(one): one for one in ranked[::-1]}.values())[::-1]  # each once
    wide = max(22, *(len(setting_of(one)) for one in ranked))
    header = ["setting", "validation", "st. dev.", "runs"]
    header += ["test", "st. dev."] * (args.test is not None)
    rows = []
    for number, trial in enumerate(ranked):
        values = trial.user_attrs["values"]
        rows.append([setting_of(trial), *over_runs(values, select), str(len(values))])
        if args.test is not None and (args.grid or number == 0):
            words = commands_of(trial.params)
            found = [evaluate_on_test(one, args) for one in words]
            rows[-1] += over_runs(found, "accuracy")
    print("\nchosen by validation, not by test")
    for row in [header, *rows]:
        print(f"{row[0]:{wide}}" + "".join(f"{cell:>12}" for cell in row[1:]))
    # Seeds and folds were not chosen; their words come last.
    repeats = sum(word.partition("=")[0] in REPEATS for word in args.vary)
    words = commands_of(ranked[0].params)[0]
    best = shlex.join(["python", "finetune.py", *words[: len(words) - repeats]])
    print(f"\nthe best: {best}")
    parts = [card("The best", f"<p><code>{text(best)}</code></p>", note=luck(ranked, select))]
    if len(study.trials) > 1:
        crosses = any(trial.state.name == "PRUNED" for trial in study.trials)
        note = "Crosses: stopped early." * crosses
        parts.append(card("All trials", draw_trials(study, select), note=note))
    parts += [
        card(name, draw_option(trials, name, select), note=weight) for name, weight in weigh(study)
    ]
    parts.append(card("Settings", table(rows, header), wide=True))
    page = Path(args.folder, "search.html")
    write_whole(page, document("What the search found", cards(*parts)))
    print(f"{page}: open it in a browser")


def luck(ranked, select):
    """How far the best figure can be trusted, in words."""
    best, what = ranked[0], ""
    if len(ranked) > 1:
        what = "Validation chose it as the best of many, so its figure there is partly luck. "
    if select == "accuracy":
        n = best.user_attrs["reviews"]
        low, high = wilson_interval(round(best.value * n), n)
        what += f"{n:,} reviews tell an accuracy within {low:.2%} to {high:.2%} (95 % interval): "
        what += "differences that are small beside this may be luck."
    return what


def weigh(study):
    """[(option, a sentence about its weight), ...], the weightiest first; with few trials none."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    names = list(study.best_trial.params)
    values = [trial.value for trial in study.trials if trial.state.name == "COMPLETE"]
    if len(values) < ENOUGH or len(names) < 2 or len(set(values)) < 2:
        return [(name, "") for name in names]
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    said = "{:.0%} of the variance between settings goes back to it (functional ANOVA, Hutter et "
    said += "al. 2014)."
    return [(name, said.format(share)) for name, share in found.items()]


# ------------------------------------------------------------------------------ the pictures
def draw_trials(study, select):
    """The figure of each trial in its order, and the best so far as a line."""
    figure, axes = charts.new_picture("" if select == "loss" else "y")
    better = min if select == "loss" else max
    ended = [one for one in study.trials if one.state.name in ("COMPLETE", "PRUNED")]
    whole = [(i, one.value) for i, one in enumerate(ended, 1) if one.state.name == "COMPLETE"]
    early = [
        (i, one.intermediate_values[max(one.intermediate_values)])
        for i, one in enumerate(ended, 1) if one.state.name == "PRUNED"
    ]
    so_far = [(i, better(value for _, value in whole[: k + 1])) for k, (i, _) in enumerate(whole)]
    axes.step(*zip(*so_far), where="post", color=charts.COLORS["other"], label="best so far")
    axes.plot(*zip(*whole), "o", color=charts.COLORS["line"], markersize=4, label="a trial")
    if early:
        axes.plot(*zip(*early), "x", color=charts.COLORS["ink"], markersize=4)
    axes.set(xlabel="trial", ylabel=f"validation {select}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="best")
    return charts.to_svg(figure, "Validation figure of each trial")


def draw_option(trials, name, select):
    """The figure of each setting over the values of one option."""
    figure, axes = charts.new_picture("" if select == "loss" else "y")
    values, kind = [trial.params[name] for trial in trials], trials[0].distributions[name]
    if choices := getattr(kind, "choices", ()):  # of a list: in the order in which they were typed
        values = [choices.index(value) for value in values]
        axes.set_xticks(range(len(choices)), choices)
    axes.plot(values, [one.value for one in trials], "o", color=charts.COLORS["line"], markersize=4)
    if getattr(kind, "log", False):
        axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.set(xlabel=name, ylabel=f"validation {select}")
    return charts.to_svg(figure, f"Validation figure by {name}")
