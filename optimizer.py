"""Chapter 4, second half: how large a step is.

Teaches   which weights are pulled toward 0 and which are not; a learning rate that rises and falls;
          and how many steps an epoch has, when batches and windows have short ends.
Order     beside finetune.py, whose loop uses these functions; next is evaluate.py.
Run       python optimizer.py --reviews 2000 --epochs 3 --accumulate 2
Expect    the learning rate of about twenty points of the run, drawn as a bar.
Shows     $ python optimizer.py --reviews 64 --epochs 2 --warmup 0.25
          4 optimizer steps an epoch, 8 in all
          epoch 1, step     0  0.00e+00
          epoch 1, step     1  2.50e-05  #########################
          epoch 1, step     2  5.00e-05  ##################################################
          epoch 1, step     3  4.17e-05  ##########################################
          epoch 2, step     4  3.33e-05  #################################
          epoch 2, step     5  2.50e-05  #########################
          epoch 2, step     6  1.67e-05  #################
          epoch 2, step     7  8.33e-06  ########
"""

import math
from collections import Counter

from errors import make_parser, run_command


def decay_groups(model, weight_decay):
    """AdamW's two parameter groups: decay for matrices, none for vectors.

    Weight decay pulls weights toward 0, which keeps matrices from growing. Layer-norm scales are
    vectors that start at 1: pulled toward 0 they switch their layer off. Biases are vectors too,
    and few. Counting dimensions needs no names; the usual list, "bias" and "LayerNorm.weight",
    misses the scales of 12 of DistilBERT's 13 layer norms, which are called sa_layer_norm and
    output_layer_norm. AdamW: Loshchilov and Hutter 2019.
    """
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    # Every parameter in exactly one group: one that is forgotten would never be trained.
    times = Counter(id(p) for p in decayed + plain)
    wrong = [name for name, p in model.named_parameters() if times[id(p)] != 1]
    assert not wrong, f"not in exactly one group: {wrong}"
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def rate_factor(step, warmup_steps, total_steps):
    """What the learning rate is multiplied by at optimizer step `step` (0, 1, ...).

    It rises to 1 during warm-up, because Adam's running means know nothing at first and full steps
    would spoil pretrained weights; then it falls in a line that would reach 0 after the last step,
    because ever smaller steps settle. The same numbers as transformers'
    get_linear_schedule_with_warmup, where step 0 of a warm-up has rate 0 and only fills the means.
    """
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def phase_of(epoch, args, steps_per_epoch):
    """The optimizer steps [first, last) of an epoch's phase: the head alone, or all that trains.

    Each phase has a warm-up and a decay of its own. When layers thaw, Adam knows nothing of them,
    and a rate near its peak would throw them off what they had learned.
    """
    thaw = min(args.head_epochs, args.epochs)
    first, last = (0, thaw) if epoch < thaw else (thaw, args.epochs)
    return first * steps_per_epoch, last * steps_per_epoch


def count_steps(reviews, batch_size, accumulate):
    """Optimizer steps in an epoch. Round up twice: short batches and short windows count too."""
    return math.ceil(math.ceil(reviews / batch_size) / accumulate)


def main():
    parser = make_parser(__doc__)
    for name, default in (("reviews", 2000), ("batch-size", 16), ("accumulate", 1), ("epochs", 3)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"(default: {default})")
    parser.add_argument("--head-epochs", type=int, default=0, help="the head alone (default: 0)")
    parser.add_argument("--warmup", type=float, default=0.1, help="share (default: 0.1)")
    parser.add_argument("--lr", type=float, default=5e-5, help="peak rate (default: 5e-5)")
    args = parser.parse_args()
    if min(args.reviews, args.batch_size, args.accumulate, args.epochs) < 1:
        parser.error("all of these numbers have to be 1 or more")
    steps = count_steps(args.reviews, args.batch_size, args.accumulate)
    print(f"{steps:,} optimizer steps an epoch, {steps * args.epochs:,} in all")
    for epoch in range(args.epochs):
        first, last = phase_of(epoch, args, steps)
        for step in range(epoch * steps, (epoch + 1) * steps, max(1, steps * args.epochs // 20)):
            warmup_steps = int(args.warmup * (last - first))
            factor = rate_factor(step - first, warmup_steps, last - first)
            bar = "#" * round(50 * factor)
            print(f"epoch {epoch + 1}, step {step:>5}  {args.lr * factor:.2e}  {bar}")


if __name__ == "__main__":
    run_command(main)
