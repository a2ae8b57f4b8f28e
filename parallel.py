"""Appendix F: one run on many devices, or on many machines.

Teaches   data-parallel training: every process holds the whole model, reads its own share of each
          batch, and before every step all of them add up their gradients. So all take the same
          step, the one that a single process would take with the whole batch.
Order     after the chapters. A run that torchrun did not start notices nothing of this file:
          rank() is 0, world() is 1, a share is the whole, and adding up changes nothing.
Run       torchrun --nproc_per_node=2 finetune.py --demo
          torchrun --nproc_per_node=2 parallel.py            what each process would read
Expect    what `python finetune.py --demo` prints, from one of the processes.
Shows     $ python parallel.py
          1 process(es); the shares of a batch of the rows [0, 1, 2, 3, 4, 5, 6]:
              rank 0: [0, 1, 2, 3, 4, 5, 6]
"""

import atexit
import datetime
import os
import signal
import sys

import torch
from torch import distributed

from errors import UserError, make_parser, run_command


def rank():
    """This process's number, from 0; before it has joined the others, and alone, 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world():
    """How many processes have joined."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def share(items):
    """The items that are this process's work: of [0 1 2 3 4] for two, [0 2 4] and [1 3]."""
    return items[rank() :: world()]


def join(device):
    """Meet the other processes, of which torchrun tells through the environment: their number, the
    number of this one, and where to meet. From here on only the first one prints.

    device: this process's.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return
    if int(os.environ.get("RANK", 0)) > 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # errors.py still prints what goes wrong
    signal.signal(signal.SIGTERM, another_ended)
    distributed.init_process_group(
        # Who carries numbers between the processes.
        {"cuda": "nccl", "xpu": "xccl"}.get(device.type, "gloo"),
        # A process that dies is noticed at once; this is for a machine that falls silent. Nobody
        # may be kept waiting longer than this, for instance while the first one saves.
        timeout=datetime.timedelta(minutes=10),
    )
    atexit.register(distributed.destroy_process_group)  # or its threads may outlive us, and abort


def leave(code):
    """End this process, at once. A thread that still listens to the others would abort it later."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without taking Python apart, in which such a thread can be caught


def another_ended(number, frame):
    """torchrun sends SIGTERM to all that are left when one process has ended too early."""
    raise UserError(
        "another process of this run has ended (torchrun says below which one, and why), so this "
        "one ends too: start it again, finetune.py and predict.py --file with --resume"
    )


def wrap(model):
    """The model as the loop calls it: each backward pass then ends with the mean of all gradients.

    The wrapper takes the mean where we want the sum, so the loop multiplies its loss by world().
    It sends the gradients of upper layers while lower ones are still computed (Li et al. 2020).
    """
    if world() == 1:
        return model
    return torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)


def add_up(tensor):
    """Replace the tensor, in place, by its sum over all processes. Returns it."""
    if distributed.is_initialized():
        device = {"nccl": "cuda", "xccl": "xpu"}.get(distributed.get_backend(), "cpu")
        total = tensor.to(device)
        distributed.all_reduce(total)
        tensor.copy_(total)
    return tensor


def copy_from_first(model):
    """Give every process the weights that the first one has."""
    if distributed.is_initialized():
        for tensor in [*model.parameters(), *model.buffers()]:
            distributed.broadcast(tensor.data, src=0)


def wait():
    """Go on when all processes have come this far. (barrier() may guess a GPU that is not ours.)"""
    add_up(torch.zeros(1))


def main():
    make_parser(__doc__).parse_args()
    join(torch.device("cpu"))
    rows = list(range(7))
    print(f"{world()} process(es); the shares of a batch of the rows {rows}:")
    for number in range(world()):
        mine = torch.zeros(len(rows), dtype=torch.long)
        if number == rank():
            mine[share(rows)] = 1
        print(f"    rank {number}: {add_up(mine).nonzero().flatten().tolist()}")


if __name__ == "__main__":
    run_command(main)
