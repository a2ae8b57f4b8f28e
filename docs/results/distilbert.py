"""DistilBERT itself: the main job and the full run, beside the accuracies that others quote.

Run       python -m docs.results.distilbert
          on a machine that reaches the hub; a GPU helps
Expect    docs/results/run-distilbert-2000-42.json and run-distilbert-all-42.json, what they say
          beside the quoted figures, and docs/results.md with their rows. Stopped, it goes on when
          it is typed again. Where the hub is out of reach, a line says so, and nothing is written.
"""

from docs.results.learned import beside_others, runs
from docs.results.record import LIKE_OTHERS, module
from support.errors import run_command


def main():
    for name in LIKE_OTHERS:
        module("-m", "docs.results.record", "--test", name)
    print()
    for name in LIKE_OTHERS:
        print(f"{name}: {beside_others(runs(name))}")
    module("-m", "docs.pages")


if __name__ == "__main__":
    run_command(main)
