"""Appendix T: how sure it is, and how often it is right.

Teaches   that a probability is a promise: of all answers given with 0.8, eight in ten should be
          right. To measure how far it is kept, to mend most of that by one number, and to use it:
          whoever may leave the least sure answers to a person gets the others with fewer mistakes.
Order     after evaluate.py or finetune.py, whose answers it reads; report.py draws what it finds.
Run       python calibration.py model
Expect    for answers of like probability: how many, how sure, how many right. The expected
          calibration error, before and after dividing the logits by a temperature that was fitted
          on validation; and the accuracy of the surest answers.
Shows     $ python calibration.py demo
           probability  answers    sure   right
          ...
             0.93-1.00      388   99.8%   98.2%
          expected calibration error 0.0258
          with temperature           0.0175
          ...
          the surest 100%: 97.25% right
"""

import shlex

from torch.nn import functional

from answers import read_answers
from errors import UserError, make_parser, run_command


# ------------------------------------------------------------------------------ is it kept?
def reliability(logits, labels, bins=15):
    """Sort answers by how sure they are into bins of equal width. logits: [N, C]; labels: [N].

    Returns a dict for each bin that is not empty: "low", "high", "n", "sure" (the mean probability
    of its answers) and "right" (the share of them that is right).
    """
    scores, predicted = logits.double().softmax(dim=-1).max(dim=-1)  # [N], [N]
    right = (predicted == labels).double()  # [N]
    # Bins are closed above: a probability of exactly 1 belongs to the last.
    numbers = (scores * bins).ceil().clamp(1, bins).long() - 1  # [N], from 0
    found = []
    for number in range(bins):
        rows = numbers == number
        if n := int(rows.sum()):
            found.append(
                {
                    "low": number / bins,
                    "high": (number + 1) / bins,
                    "n": n,
                    "sure": scores[rows].mean().item(),
                    "right": right[rows].mean().item(),
                }
            )
    return found


def calibration_error(found):
    """Expected calibration error: how far sure and right are apart, a mean over all answers.

    In each bin the gap between mean probability and share right, weighted by the bin's answers. 0:
    every promise is kept; 0.03: off by 3 points on average. Naeini et al. 2015, with the 15 bins of
    Guo et al. 2017. found: of reliability().
    """
    n = sum(one["n"] for one in found)
    return sum(one["n"] * abs(one["sure"] - one["right"]) for one in found) / n


# ------------------------------------------------------------------------------ mend it
def fit_temperature(logits, labels):
    """The number to divide all logits by, so that the cross-entropy is smallest (Guo et al. 2017).

    It changes how sure the answers are, and no answer. Fit it on validation, never on test. Returns
    None if none from 0.001 to 1,000 is best: every answer is right, so that surer is always better;
    or the true class's logit is no larger than the others on average, and less sure always better.
    logits: [N, C]; labels: [N].
    """
    logits = logits.double()
    truth = functional.one_hot(labels, logits.shape[1]).double()  # [N, C]

    def slope(sharpness):
        """Of the cross-entropy, by 1 / temperature: the logits that the probabilities expect,
        minus those of the true classes."""
        return ((logits * sharpness).softmax(dim=-1) - truth).mul(logits).sum().item()

    # The slope grows with the sharpness, 1 / temperature, so it is 0 at most once: keep the half in
    # which it changes sign. The middle on a logarithmic scale, because the ends are six powers of
    # ten apart; after 60 halvings float64 can hardly tell them apart.
    low, high = 1e-3, 1e3
    if not slope(low) < 0 < slope(high):
        return None
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / middle


def temperature_for(test, held_out):
    """fit_temperature() on validation, for the answers to test; both of read_answers(), or None.

    None without validation, or where one was read in windows and the other was cut: what makes the
    one too sure says nothing about the other.
    """
    if held_out is None or held_out["windows"] != test["windows"]:
        return None
    return fit_temperature(held_out["logits"], held_out["labels"])


# ------------------------------------------------------------------------------ use it
def coverage(logits, labels, points=50):
    """[(share, accuracy), ...]: if only the surest `share` of all answers were given.

    (Risk and coverage: El-Yaniv and Wiener 2010.) logits: [N, C]; labels: [N].
    """
    scores, predicted = logits.softmax(dim=-1).max(dim=-1)  # [N], [N]
    order = scores.argsort(descending=True, stable=True)
    right = (predicted == labels)[order].double().cumsum(dim=0)  # [N], right among the first i + 1
    n = len(labels)
    counts = sorted({max(1, round(n * point / points)) for point in range(1, points + 1)})
    return [(count / n, right[count - 1].item() / count) for count in counts]


def answers_of(folder, split):
    """read_answers(), but without any it says how to get them."""
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
    folder = parser.parse_args().folder
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
