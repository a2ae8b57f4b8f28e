"""Which settings are better? A search that learns from what it has tried, or all of a grid.

Teaches   to tell a difference from luck. Another seed changes a result too, so a difference between
          two settings has to be larger than the differences between seeds. And the best of many
          tries is partly lucky: validation chooses it, and only test, read once, tells its worth.
After     the chapters, when you change things; and extras.baseline.
Run       pip install -r requirements-extra.txt
          python -m extras.search lr=1e-5..2e-4 batch-size=8,16,32 --trials 20 -- --subset 2000
          python -m extras.search truncation=head,tail seed=42,43,44 --grid -- --subset 2000
          python -m extras.search fold=1/5,2/5,3/5,4/5,5/5 --grid -- --data reviews.csv
Expect    in the folder search/ a model for each run, study.db (which Optuna's other tools read) and
          search.html. Then a table and the best command. To go on after a stop, type it again.

Ranges (low..high) and lists are searched: after a few random tries, near the settings that did well
(Tree-structured Parzen Estimator, Bergstra et al. 2011), by Optuna (Akiba et al. 2019). Seeds and
folds are no settings: a trial has a run for each, and the mean of their validation figures counts.
"""

import itertools
import random
import re
import shlex
import shutil
import sys
import time
from pathlib import Path
from statistics import mean

from extras.search_page import conclude, shown
from extras.trial import Failed, folder_of, train
from support.banner import in_words
from support.errors import UserError, check_counts, extra_packages, make_parser, run_command
from support.files import only_writer
from support.options import parse_arguments

REPEATS = ("seed", "fold")
FIGURE = {"accuracy": "accuracy", "f1": "macro_f1", "loss": "loss"}  # by what --select is called


# ------------------------------------------------------------------------------ what to try
def read_space(typed, rest, grid):
    """Returns (knobs, repeats): {option: Optuna's distribution}; [((option, value), ...), ...].

    typed: such as ["lr=1e-5..2e-4", "seed=1,2"]. rest: the words for finetune.py. Each value is
    tried as a word of its command line, before hours are spent on the first. Raises UserError.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    knobs, repeats = {}, {}
    for name, _, values in (word.partition("=") for word in typed):
        ends, some = values.split(".."), values.split(",")
        if "" in some + ends or len(set(some)) < len(some) or name in {*knobs, *repeats}:
            how = "option=value,value or option=low..high, each once: lr=1e-5..2e-4 seed=42,43"
            raise UserError(f"{name}={values}: say what to vary as {how}")
        for value in ends if len(ends) == 2 else some:
            args = parse_arguments("", [*rest, f"--{name}={value}"])
            if args.resume or args.overwrite or args.out != ("demo" if args.demo else "model"):
                raise UserError("leave out --out, --resume and --overwrite; there is --folder")
        if len(ends) == 1:
            knobs[name] = CategoricalDistribution(some)
            if name in REPEATS:
                repeats[name] = [(name, value) for value in some]
                del knobs[name]
        elif grid or name in REPEATS:
            raise UserError(f"{name}={values}: write a list here, such as {name}={','.join(ends)}")
        else:
            try:
                whole = all(re.fullmatch("[0-9]+", value) for value in ends)
                low, high = map(int if whole else float, ends)
                # From 1e-5 to 2e-5 is as far as from 1e-4 to 2e-4: rates count by factors.
                log = low > 0 and (name == "lr" or high / low >= 10)
                knobs[name] = (IntDistribution if whole else FloatDistribution)(low, high, log=log)
            except ValueError as error:
                raise UserError(f"{name}={values} is no range of numbers ({error})") from error
    return knobs, list(itertools.product(*repeats.values()))


def in_words_of(setting):
    """{option: value} as the words of a command."""
    return [f"--{name}={shown(value)}" for name, value in setting.items()]


# ------------------------------------------------------------------------------ the study
def open_study(args, rest, knobs, direction):
    """The Optuna study of this command, new or as it was left. Returns (study, trials in all)."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{args.folder}/study.db",
        study_name=shlex.join([*args.vary, *["--grid"] * args.grid, "--", *rest]),
        direction=direction,
        # Stop a trial that, from its second epoch on, is worse than half of those before. (In the
        # first one most are no better than chance.) A grid compares, so all its runs end. Runs of
        # different length cannot be compared in the middle.
        pruner=optuna.pruners.NopPruner() if args.grid or "epochs" in knobs
        else optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
        load_if_exists=True,
    )
    # A trial that was killed is begun again: its runs go on from their checkpoints.
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.enqueue_trial(trial.params)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    if not args.grid:
        return study, args.trials or 20
    settings = list(itertools.product(*(knobs[name].choices for name in knobs)))
    for setting in settings:
        study.enqueue_trial(dict(zip(knobs, setting)), skip_if_exists=True)
    return study, len(settings)


def run_trial(study, trial, commands, root, key):
    """All runs of a trial, one for each seed and fold. What comes out is told to the study."""
    import optuna

    found = []
    for number, words in enumerate(commands):
        folder = folder_of(words, root)

        def watch(epoch, figures, number=number):
            trial.report(figures[key], 1000 * number + epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            found.append(train(words, folder, watch))
        except optuna.TrialPruned:
            print("stopped: at this epoch half of the others were better")
            shutil.rmtree(folder)  # it was not the best, and would take hundreds of MB
            return study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        except Failed as error:
            print(f"this setting failed: {error}")
            trial.set_user_attr("error", str(error))
            return study.tell(trial, state=optuna.trial.TrialState.FAIL)
    trial.set_user_attr("values", [one[key] for one in found])
    trial.set_user_attr("reviews", found[0]["n"])
    return study.tell(trial, mean(one[key] for one in found))


def new_sampler(seed):
    """What proposes the next setting, by all that is known so far."""
    from optuna.samplers import TPESampler

    return TPESampler(n_startup_trials=5, seed=seed)


def is_over(trial):
    """Whether a trial counts: not if it waits, or was begun again under another number."""
    return trial.state.is_finished() and (trial.state.name != "FAIL" or "error" in trial.user_attrs)


def main():
    at = [*sys.argv, "--"].index("--")  # what comes after it is for finetune.py
    parser = make_parser(__doc__)
    parser.add_argument("vary", nargs="+", metavar="OPTION=VALUES", help="a,b,c or low..high")
    parser.add_argument("--trials", type=int, help="settings to try (default: 20)")
    parser.add_argument("--grid", action="store_true", help="try all settings of the lists")
    what = "then read test, all of it or so many reviews: the best setting's, all of a grid"
    parser.add_argument("--test", type=int, nargs="?", const=0, metavar="REVIEWS", help=what)
    parser.add_argument("--folder", default="search", help="where it all goes (default: search)")
    args, rest = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    check_counts(args, "trials", *["test"] * bool(args.test))
    with extra_packages():
        knobs, repeats = read_space(args.vary, rest, args.grid)
    args.grid = args.grid or not knobs
    select = parse_arguments("", rest).select
    Path(args.folder).mkdir(parents=True, exist_ok=True)
    with only_writer(Path(args.folder, ".lock"), f"--folder {args.folder}"):
        direction = "minimize" if select == "loss" else "maximize"
        study, most = open_study(args, rest, knobs, direction)
        began, done_before = time.perf_counter(), sum(map(is_over, study.trials))

        def commands_of(setting):
            return [[*rest, *in_words_of(setting), *in_words_of(dict(one))] for one in repeats]

        while (done := sum(map(is_over, study.trials))) < most:
            # Random numbers by the trial's number: a search that goes on draws none of them twice.
            study.sampler = new_sampler(random.Random(f"trial {done}").randrange(2**32))
            trial, left = study.ask(knobs), ""
            if done > done_before:
                each = (time.perf_counter() - began) / (done - done_before)
                left = f", {in_words(each * (most - done))} are left"
            print(f"\ntrial {done + 1} of {most}{left}: {' '.join(in_words_of(trial.params))}")
            try:
                run_trial(study, trial, commands_of(trial.params), args.folder, FIGURE[select])
            except KeyboardInterrupt:
                again = shlex.join(["-m", "extras.search", *sys.argv[1:]])
                print(f"\nstopped. To go on: python {again}", file=sys.stderr)
                return 130
        conclude(study, args, commands_of, select)
    return None


if __name__ == "__main__":
    run_command(main)
