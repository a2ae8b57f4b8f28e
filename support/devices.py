"""Which device computes; and one run on many devices, or on many machines, with torchrun.

torchrun starts a process for each device. Every process holds the whole model and reads its own
share of each batch. Before a step all of them add up their gradients, so all take the same step,
the one that a single process would take with the whole batch. Where torchrun did not start it, a
process has rank 0 of 1, a share is the whole, and adding up changes nothing.
"""

import atexit
import datetime
import os
import platform
import signal
import sys

import torch
from torch import distributed

from support.errors import LOST, UserError


# ------------------------------------------------------------------------------ 1. one device
def exact_device(wanted, present):
    """The torch.device for a name such as "cpu", "cuda", "cuda:1". present: {type: is it there}.

    Raises UserError where that device is not there; why: see model.choose_device().
    """
    try:
        device = torch.device(wanted)
        count = torch.get_device_module(device).device_count() if present[device.type] else 0
    except (RuntimeError, KeyError) as error:
        raise UserError(f"--device {wanted}: has to be one of {', '.join(present)}") from error
    several, torchrun = device.type in ("cuda", "xpu"), "LOCAL_RANK" in os.environ
    if several and torchrun and device.index is not None:
        raise UserError(f"--device {wanted}: torchrun deals out GPUs, so say {device.type}")
    if several and device.index is None:  # torchrun: a GPU for each process of this machine
        device = torch.device(device.type, int(os.environ.get("LOCAL_RANK", 0)))
    if (device.index or 0) >= count:
        if count and torchrun:
            raise UserError(f"more processes than GPUs: --nproc_per_node={count}, or --device cpu")
        there = ", ".join(name for name in present if present[name])
        raise UserError(f"--device {wanted}: not present on this machine; there is {there}")
    if several:
        # Random numbers, clocks and kernels are asked of "the current one", which would be the 0th.
        torch.get_device_module(device).set_device(device)
    return device


def hardware_name(device):
    """What the device calls itself."""
    if device.type in ("cuda", "xpu"):
        return torch.get_device_module(device).get_device_name(device)
    return (torch.cpu.get_capabilities().get("cpu_name") or platform.machine()).strip()


def peak_bytes(device):
    """The most memory that was in use: the GPU's, or all of this process's. None: nobody knows."""
    if device.type in ("cuda", "xpu"):
        return torch.get_device_module(device).max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows has no such thing
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024  # Linux counts in KiB


# ------------------------------------------------------------------------------ 2. many
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
    """Meet the other processes; from here on only the first one prints. device: this process's.

    Of the others torchrun tells through the environment: how many, and where to meet.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return
    if int(os.environ.get("RANK", 0)) > 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # errors.py still prints what goes wrong

    def another_ended(number, frame):
        raise UserError(LOST)

    # torchrun sends SIGTERM to all that are left when one process has ended too early.
    signal.signal(signal.SIGTERM, another_ended)
    distributed.init_process_group(
        # Who carries numbers between the processes.
        {"cuda": "nccl", "xpu": "xccl"}.get(device.type, "gloo"),
        # A process that dies is noticed at once; this is for a machine that falls silent. Nobody
        # may be kept waiting longer than this, for instance while the first one saves.
        timeout=datetime.timedelta(minutes=10),
    )
    atexit.register(distributed.destroy_process_group)  # or its threads may outlive us, and abort


def add_up_gradients(model):
    """Give every process the sum of all processes' gradients, weight by weight.

    A process that had no review of this window has no gradients; it adds zeros.
    """
    trained = [p for p in model.parameters() if p.requires_grad] if world() > 1 else []
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        add_up(parameter.grad)


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


# ------------------------------------------------------------------------------ 3. random numbers
def generators(device):
    """Where random numbers come from: the CPU's, and the device's own if it is another."""
    return [torch] if device.type == "cpu" else [torch, torch.get_device_module(device)]


def random_states(device):
    """Where the random numbers have come to: for each generator [processes, bytes]."""
    found = []
    for generator in generators(device):
        mine = generator.get_rng_state()  # uint8 [bytes]
        states = mine.new_zeros(world(), len(mine))
        states[rank()] = mine
        found.append(add_up(states))  # the rows of the others were 0
    return found


def put_back_random(device, found):
    """The reverse of random_states()."""
    for generator, states in zip(generators(device), found, strict=True):
        generator.set_rng_state(states[rank()].clone())  # torch crashes on a view here
