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
import shlex
import shutil
import sys
import time
from pathlib import Path
from statistics import mean

from extras.search_page import conclude
from extras.trial import FIGURE, as_words, folder_of, mark_of, read_space, train
from support.banner import in_words
from support.errors import Hopeless, UserError, check_counts, extra_packages, make_parser
from support.errors import run_command
from support.files import only_writer
from support.options import parse_arguments


# ------------------------------------------------------------------------------ the study
def open_study(args, rest, knobs, select):
    """The Optuna study of this command, new or as it was left. Returns (study, trials in all)."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Stop a trial whose best epoch so far is worse than half of those before, but not at its first,
    # which tells little. Not in a grid, which compares, nor where epochs differ, without --epochs.
    differ = "epochs" in knobs or parse_arguments("", rest).epochs is None
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    path = f"{args.folder}/study.db"
    words = [args.mark, *args.vary, *["--grid"] * args.grid, "--", *rest]
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{path}",
            study_name=shlex.join(words),
            direction="minimize" if select == "loss" else "maximize",
            pruner=optuna.pruners.NopPruner() if args.grid or differ else pruner,
            load_if_exists=True,
        )
    except Exception as error:  # of sqlite, sqlalchemy or optuna: a damaged file has many names
        what = f"{path} cannot be read ({type(error).__name__})"
        raise UserError(f"{what}: delete it; runs that are done are taken over") from error
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


def run_trial(study, trial, commands, args, key):
    """All runs of a trial, one for each seed and fold. What comes out is told to the study."""
    import optuna

    found = []
    for number, words in enumerate(commands):
        folder = folder_of(words, args)

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
        except UserError as error:
            # Of an option that is varied, or of a loss that is no number: another setting may do.
            own = any(f"--{name} " in str(error) for name in trial.params)
            if not (own or isinstance(error, Hopeless)):
                raise
            print(f"this setting failed: {error}")
            trial.set_user_attr("error", str(error))
            return study.tell(trial, state=optuna.trial.TrialState.FAIL)
    trial.set_user_attr("values", [one[key] for one in found])
    folds = any(word.startswith("--fold=") for word in commands[0])  # seeds may share some rows
    trial.set_user_attr("reviews", sum(one["n"] for one in found) if folds else found[0]["n"])
    return study.tell(trial, mean(one[key] for one in found))


def new_sampler(seed):
    """What proposes the next setting, by all that is known so far."""
    from optuna.samplers import TPESampler

    return TPESampler(n_startup_trials=5, seed=seed)


def try_all(study, most, knobs, commands_of, args, key):
    """Run trials until `most` are over. commands_of: gives finetune.py's words for a setting."""
    began, done_before = time.perf_counter(), sum(map(is_over, study.trials))
    while (done := sum(map(is_over, study.trials))) < most:
        # Random numbers by the trial's number: a search that goes on draws none of them twice.
        study.sampler = new_sampler(random.Random(f"trial {done}").randrange(2**32))
        trial, left = study.ask(knobs), ""
        if done > done_before:
            each = (time.perf_counter() - began) / (done - done_before)
            left = f", {in_words(each * (most - done))} are left"
        print(f"\ntrial {done + 1} of {most}{left}: {' '.join(as_words(trial.params))}")
        run_trial(study, trial, commands_of(trial.params), args, key)


def is_over(trial):
    """Whether a trial counts: not if it waits, or was begun again under another number."""
    return trial.state.is_finished() and (trial.state.name != "FAIL" or "error" in trial.user_attrs)


def main():
    at = [*sys.argv, "--"].index("--")  # what comes after it is for finetune.py
    parser = make_parser(__doc__)
    parser.add_argument("vary", nargs="+", metavar="OPTION=VALUES", help="a,b,c or low..high")
    parser.add_argument("--trials", type=int, help="to try (default: 20; a grid tries all)")
    parser.add_argument("--grid", action="store_true", help="try all settings of the lists")
    what = "then read test, all of it or so many reviews: the best setting's, all of a grid"
    parser.add_argument("--test", type=int, nargs="?", const=0, metavar="REVIEWS", help=what)
    parser.add_argument("--folder", default="search", help="where it all goes (default: search)")
    args, rest = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    check_counts(args, "trials", *["test"] * bool(args.test))
    with extra_packages():
        knobs, repeats = read_space(args.vary, rest, args.grid)
    args.grid = args.grid or not knobs
    usual = parse_arguments("", rest)
    select, args.mark = usual.select, mark_of(usual)
    if not args.folder.strip() or {*"?%"} & {*args.folder} or Path(args.folder).is_file():
        raise UserError(f"--folder {args.folder!r}: name a folder, without ? and %")
    Path(args.folder).mkdir(parents=True, exist_ok=True)

    def commands_of(setting):
        return [[*rest, *as_words(setting), *as_words(dict(one))] for one in repeats]

    try:
        with only_writer(Path(args.folder, ".lock"), f"--folder {args.folder}"):
            study, most = open_study(args, rest, knobs, select)
            try_all(study, most, knobs, commands_of, args, FIGURE[select])
            conclude(study, args, commands_of, select)
    except KeyboardInterrupt:
        again = shlex.join(["-m", "extras.search", *sys.argv[1:]])
        print(f"\nstopped. To go on: python {again}", file=sys.stderr)
        return 130
    return None


if __name__ == "__main__":
    run_command(main)
