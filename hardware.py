"""Chapter 3, part 1 of 3: which hardware, and in which number format.

Teaches   to ask the machine what it has, and to say aloud what was chosen and why: a run that falls
          back to the CPU in silence costs a day before anybody notices.
Order     after splits.py; next is model.py.
Run       python hardware.py
          python hardware.py --device cpu --precision fp32
Expect    what finetune.py would use here, and the reasons.
Shows     $ python hardware.py --device cpu --precision fp32
          device     cpu: as asked with --device
          precision  fp32: as asked with --precision
"""

import os
import platform

# First: once errors.py is in, Ctrl-C ends in one line, also while torch is imported (seconds).
from errors import UserError, make_parser, run_command

import torch


# ------------------------------------------------------------------------------ 1. device
def choose_device(wanted=None):
    """Return (torch.device, reason). wanted: None for the best there is, or "cpu", "cuda:1", ...

    Raises UserError when the device that was asked for is not there: silently training on the CPU
    instead would cost the user a day before they notice.
    """
    present = {
        "cuda": torch.cuda.is_available(),  # NVIDIA, and AMD under ROCm
        "mps": torch.backends.mps.is_available(),  # the GPU of a Mac
        "xpu": torch.xpu.is_available(),  # Intel
        "cpu": True,
    }
    reason = "as asked with --device"
    if wanted is None:
        wanted = next(name for name, there in present.items() if there)
        absent = ", ".join(name for name in present if not present[name]) or "none"
        reason = f"the best here; not present: {absent}"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    if device is None or device.type not in present:
        raise UserError(f"--device {wanted}: has to be one of {', '.join(present)}")
    if device.type in ("cuda", "xpu"):  # of these there can be several
        if "LOCAL_RANK" not in os.environ:
            device = torch.device(device.type, device.index or 0)
        elif device.index is None:  # torchrun: a GPU for each process of this machine
            device = torch.device(device.type, int(os.environ["LOCAL_RANK"]))
        else:
            raise UserError(f"--device {wanted}: torchrun deals out GPUs, so say {device.type}")
    count = torch.get_device_module(device).device_count() if present[device.type] else 0
    if (device.index or 0) >= count:
        there = ", ".join(name for name in present if present[name])
        if count and "LOCAL_RANK" in os.environ:
            raise UserError(f"more processes than GPUs: --nproc_per_node={count}, or --device cpu")
        raise UserError(f"--device {wanted}: not present on this machine; there is {there}")
    if device.type in ("cuda", "xpu"):
        # Random numbers, clocks and kernels are asked of "the current one", which would be the 0th.
        torch.get_device_module(device).set_device(device)
    return device, reason


# ------------------------------------------------------------------------------ 2. precision
def choose_precision(wanted, device):
    """Return (precision, reason) with precision one of "fp32", "bf16", "fp16". wanted: also "auto".

    fp32 is the reference: 32 bits a number. Both 16-bit formats halve the memory traffic and, on
    hardware that multiplies them natively, more than double the speed.
        bf16  keeps fp32's range and drops digits: nothing over- or underflows, so no further care.
        fp16  keeps more digits but ends at 65,504, and small gradients round to 0: the loss has to
              be scaled up before backward and the gradients down after it (finetune.py's
              GradScaler).
    Where bf16 is emulated it is slower than fp32, so the hardware is asked.
    """
    if wanted != "auto":
        return wanted, "as asked with --precision"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU multiplies bf16 natively"
        return "fp16", "this GPU has no native bf16, so fp16 with a gradient scaler"
    if device.type == "xpu":
        return "bf16", "Intel GPUs multiply bf16 natively"
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        found = [name for name in ("amx_bf16", "avx512_bf16") if has.get(name)]
        if found:
            return "bf16", f"this CPU multiplies bf16 natively ({found[0]})"
        return "fp32", "this CPU has neither AVX512-BF16 nor AMX"
    return "fp32", f"the safe choice on {device.type}"


def choose_hardware(device=None, precision="auto"):
    """Both choices. Returns (torch.device, precision, {"device": reason, "precision": reason})."""
    device, device_reason = choose_device(device)
    precision, precision_reason = choose_precision(precision, device)
    return device, precision, {"device": device_reason, "precision": precision_reason}


def hardware_name(device):
    """What the device calls itself."""
    if device.type in ("cuda", "xpu"):
        return torch.get_device_module(device).get_device_name(device)
    return (torch.cpu.get_capabilities().get("cpu_name") or platform.machine()).strip()


def to_device(batch, device):
    """A batch's tensors on the device. batch: {name: tensor}.

    To a CUDA GPU they go from pinned memory (which the system may not move meanwhile), and nobody
    waits for them: the copy joins the GPU's queue. A usual copy would first let the GPU finish all
    that it has been given, and then leave it idle until Python has more.
    """
    if device.type == "cuda":
        return {key: x.pin_memory().to(device, non_blocking=True) for key, x in batch.items()}
    return {key: x.to(device) for key, x in batch.items()}


def autocast(device, precision):
    """The context in which matrix products run in 16 bits, while the weights themselves stay fp32.

    What else is rounded differs by device: a GPU keeps softmax, layer norm and losses in fp32, a
    CPU only losses. To depend on none of these lists, finetune.py computes its loss outside.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


# ------------------------------------------------------------------------------ by itself
def main():
    parser = make_parser(__doc__)
    parser.add_argument("--device", help="cpu, cuda, mps or xpu (default: the best there is)")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16", "auto"),
        default="auto",
        help="number format",
    )
    args = parser.parse_args()
    device, precision, reasons = choose_hardware(args.device, args.precision)
    print(f"{hardware_name(device)}")
    print(f"device     {device}: {reasons['device']}")
    print(f"precision  {precision}: {reasons['precision']}")


if __name__ == "__main__":
    run_command(main)
