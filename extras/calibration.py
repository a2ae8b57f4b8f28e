"""How sure a model is, and how often it is right.

Teaches   that a probability is a promise: of all answers that are given with 0.8, eight in ten
          should be right. How to measure how far the promise is kept, and what one number, the
          temperature, can mend of it. And what it is good for: if you may leave the least sure
          answers to a person, the others have fewer mistakes.
After     evaluate.py or finetune.py, whose answers it reads. extras.report draws what it finds.
Run       python -m extras.calibration model
Expect    a row for each range of probabilities: how many answers, how sure, how many right. Then
          the expected calibration error, before and after dividing the logits by a temperature that
          is fitted on validation. Then the accuracy of the surest answers.
Shows     $ python -m extras.calibration demo
           probability  answers    sure   right
          ...
             0.93-1.00      388   99.8%   98.2%
          expected calibration error 0.0258
          with temperature           0.0175
          ...
          the surest 100%: 97.25% right
"""

import shlex
from bisect import bisect_right

from support.errors import UserError, make_parser, run_command
from support.pretrained import find_model
from extras.kept import read_answers


# ------------------------------------------------------------------------------ is it kept?
def reliability(logits, labels, bins=15):
    """Sort answers into bins of equal width, by how sure they are. logits: [N, C]; labels: [N].

    Returns a dict for each bin that is not empty: "low" and "high" (its ends), "n" (its answers),
    "sure" (their mean probability) and "right" (the share of them that is right).
    """
    scores, predicted = logits.double().softmax(dim=-1).max(dim=-1)  # [N], [N]
    right = predicted == labels  # [N]
    # The upper end belongs to a bin: otherwise a probability of exactly 1 would be in none.
    numbers = (scores * bins).ceil().clamp(1, bins).long() - 1  # [N], from 0
    found = []
    for number in numbers.unique().tolist():
        rows = numbers == number
        n, sure = int(rows.sum()), scores[rows].mean().item()
        ends = {"low": number / bins, "high": (number + 1) / bins}
        found.append(ends | {"n": n, "sure": sure, "right": int(right[rows].sum()) / n})
    return found


def calibration_error(found):
    """Expected calibration error: how far "sure" and "right" are apart, on average.

    Each bin counts as much as it has answers. 0: every promise is kept. 0.03: they are 3 points
    apart on average. (Naeini et al. 2015; the 15 bins are those of Guo et al. 2017.)
    found: of reliability().
    """
    n = sum(one["n"] for one in found)
    return sum(one["n"] * abs(one["sure"] - one["right"]) for one in found) / n


# ------------------------------------------------------------------------------ mend it
def fit_temperature(logits, labels):
    """Find the number that makes the cross-entropy smallest if you divide all logits by it.

    It changes how sure the answers are, but no answer. Fit it on validation, never on test.
    Returns None if no number from 0.001 to 1,000 is best. Then every answer is right, and surer is
    always better; or the true class has on average no larger logit than the others, and less sure
    is always better. (Guo et al. 2017.) logits: [N, C]; labels: [N].
    """
    ahead = (logits - logits.gather(1, labels[:, None])).double()  # [N, C], of the true class

    def slope(sharpness):
        """The derivative of the cross-entropy by the sharpness, which is 1 / temperature.

        It says how far ahead of the true class the probabilities expect the answer to be.
        """
        return ((ahead * sharpness).softmax(dim=-1) * ahead).sum().item()

    # The slope grows with the sharpness. So look for the place where it becomes positive as in a
    # dictionary: open it in the middle, again and again. A place is a logarithm, in steps of 1e-7.
    places = range(-30_000_000, 30_000_001)
    at = bisect_right(places, 0, key=lambda place: slope(10 ** (place / 1e7)))
    return 10 ** (-places[at] / 1e7) if 0 < at < len(places) else None


def temperature_for(test, held_out):
    """The temperature for the answers to test, fitted on validation. Both: of read_answers().

    None if there are no answers to validation (held_out is None). Also None if one split was read
    in windows and the other was cut: then the one does not tell how sure the other should be.
    """
    if held_out is None or held_out["windows"] != test["windows"]:
        return None
    return fit_temperature(held_out["logits"], held_out["labels"])


# ------------------------------------------------------------------------------ use it
def coverage(logits, labels, points=50):
    """[(share, accuracy), ...]: the accuracy if you use only the surest `share` of all answers.

    (Risk and coverage: El-Yaniv and Wiener 2010.) logits: [N, C]; labels: [N].
    """
    scores, predicted = logits.softmax(dim=-1).max(dim=-1)  # [N], [N]
    order = scores.argsort(descending=True, stable=True)
    right = (predicted == labels)[order].double().cumsum(dim=0)  # [N], right among the first i + 1
    n = len(labels)
    counts = sorted({max(1, round(n * point / points)) for point in range(1, points + 1)})
    return [(count / n, right[count - 1].item() / count) for count in counts]


def answers_of(folder, split):
    """What read_answers() finds. If it finds nothing, the UserError says how to get answers."""
    found = read_answers(folder, split)
    if found is None:
        raise UserError(
            f"{folder}: its model has not answered the {split} split yet: "
            f"python evaluate.py --model {shlex.quote(str(folder))} --split {split}"
        )
    return found


def main():
    parser = make_parser(__doc__)
    parser.add_argument("folder", nargs="?", default="model", help="of a model (default: model)")
    folder = find_model(parser.parse_args().folder)
    held_out, test = answers_of(folder, "validation"), answers_of(folder, "test")
    found = reliability(test["logits"], test["labels"])
    print(f"{'probability':>12} {'answers':>8} {'sure':>7} {'right':>7}")
    for one in found:
        span = f"{one['low']:.2f}-{one['high']:.2f}"
        print(f"{span:>12} {one['n']:>8,} {one['sure']:>7.1%} {one['right']:>7.1%}")
    print(f"\nexpected calibration error {calibration_error(found):.4f}")
    temperature = temperature_for(test, held_out)
    if temperature is not None:
        found = reliability(test["logits"] / temperature, test["labels"])
        print(f"with temperature           {calibration_error(found):.4f}")
        print(f"(logits divided by {temperature:.3f}, as fitted on validation)")
    print()
    for share, accuracy in coverage(test["logits"], test["labels"], 10)[::-1]:
        print(f"the surest {share:4.0%}: {accuracy:.2%} right")


if __name__ == "__main__":
    run_command(main)
