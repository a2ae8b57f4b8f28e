"""Appendix G: what a run costs, and what the hardware could do at best.

Teaches   to count the work (FLOPs: multiplications and additions of numbers) before doing it, to
          ask the machine how fast it multiplies, and so to tell a slow program from a slow machine.
Order     before benchmark.py, which asks where the time goes.
Run       python cost.py --model distilbert-base-uncased --batch-size 16 --max-length 256
Expect    FLOPs to a review, the FLOP/s of the matrix products alone, and the reviews/s they allow.
"""

import functools
import platform
import time

import torch
from torch import nn

import parallel
from dataset import make_batches
from errors import make_parser, run_command
from hardware import choose_hardware
from model import load_pretrained, set_trainable


def layers_of(model):
    """The encoder's layers, lowest first: a list of (reached, [(in, out, trained), ...]).

    The pairs are the matrices that each token's vector is multiplied by. reached: whether backward
    gets this far down; it stops at the lowest part that trains. Left out are the embeddings, whose
    rows are only looked up, and the head, which sees one vector of each review.
    """
    matrices = [
        (module.in_features, module.out_features, module.weight.requires_grad)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(part.isdigit() for part in name.split("."))
    ]
    depth = model.config.num_hidden_layers
    # ALBERT has few layers, often one, and uses each of them again and again.
    matrices = matrices * (depth // getattr(model.config, "num_hidden_groups", depth))
    each = max(1, len(matrices) // depth)
    reached = any(p.requires_grad for p in model.base_model.get_input_embeddings().parameters())
    layers = []
    for number in range(depth):
        here = matrices[number * each : (number + 1) * each]
        reached = reached or any(trained for _, _, trained in here)
        layers.append((reached, here))
    return layers


def count_flops(model, shapes, training=True):
    """The FLOPs of all matrix products for micro-batches of the given shapes.

    shapes: a list of (B, T). A product of [B*T, in] and [in, out] takes 2 * B*T * in * out: a
    multiplication and an addition for each. Training computes each product three times: forward,
    backward for the gradient of its input (where something below it trains), and backward for that
    of its matrix (where that is trained). Attention: Q K^T and weights V, 2 * 2 * B * T*T * width
    in each layer. Everything else (norms, GELU, softmax) is a few operations a number. The same
    count as Kaplan et al. 2020, appendix B of Chowdhery et al. 2022 with attention.
    """
    tokens = sum(b * t for b, t in shapes)
    attention = 4 * sum(b * t * t for b, t in shapes) * model.config.hidden_size  # of one layer
    total = 0
    for reached, matrices in layers_of(model):
        for inputs, outputs, trained in matrices:
            times = 1 + reached + trained if training else 1
            total += times * 2 * tokens * inputs * outputs
        # Both factors of both products are computed numbers, so backward is twice the forward.
        total += (3 if training and reached else 1) * attention
    return total


def time_products(model, shapes, device, precision, training=True):
    """Seconds for the matrix products of these micro-batches alone: no fine-tuning can be faster.

    The products that count_flops() counts, of random numbers of the right shapes in the right
    format, with nothing between them: no copies, no optimizer.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    width, heads = model.config.hidden_size, model.config.num_attention_heads
    generator = torch.Generator(device).manual_seed(0)  # its own, or dropout would change
    draw = functools.partial(torch.randn, device=device, dtype=dtype, generator=generator)
    layers = [
        (reached, [(draw(outputs, inputs), trained) for inputs, outputs, trained in matrices])
        for reached, matrices in layers_of(model)
    ]
    sizes = {size for _, weights in layers for weight, _ in weights for size in weight.shape}
    sizes.add(width)  # also where no layer has a Linear of it
    vectors = {size: draw(max(b * t for b, t in shapes), size) for size in sizes}
    scores = draw(max(b * t * t for b, t in shapes) * heads)

    def run(b, t):
        heads_apart = vectors[width][: b * t].view(b, t, heads, width // heads).transpose(1, 2)
        attention = scores[: b * heads * t * t].view(b, heads, t, t)  # [B, H, T, T]
        for reached, weights in layers:
            for weight, trained in weights:
                outputs, inputs = weight.shape
                x, gradient = vectors[inputs][: b * t], vectors[outputs][: b * t]
                x @ weight.T  # [B*T, out]
                if training and reached:
                    gradient @ weight  # [B*T, in]
                if training and trained:
                    gradient.T @ x  # [out, in]
            for _ in range(3 if training and reached else 1):
                heads_apart @ heads_apart.mT  # [B, H, T, T]
                attention @ heads_apart  # [B, H, T, D]

    run(*shapes[0])  # the first time, memory is set aside and kernels are chosen
    finish(device)
    started = time.perf_counter()
    for b, t in shapes:
        run(b, t)
    finish(device)
    return time.perf_counter() - started


def finish(device):
    """Wait until the device has done what it was told; a GPU works on while Python goes ahead."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def shapes_of(lengths, batches):
    """The (B, T) of each micro-batch. lengths: tokens of each review; batches: lists of rows."""
    return [(len(rows), max(lengths[i] for i in rows)) for rows in batches]


def count_run(model, args, lengths):
    """The FLOPs of a whole run of finetune.py: its epochs, their validation, and the test.

    lengths: {"train": ..., "validation": ..., "test": ...}, the tokens of each review, uncut.
    """
    cut = {role: [min(n, args.max_length) for n in found] for role, found in lengths.items()}
    one_by_one = {role: [(1, n) for n in cut[role]] for role in ("validation", "test")}
    total = count_flops(model, one_by_one["test"], training=False)
    for epoch in range(args.epochs):
        set_trainable(model, 0 if epoch < args.head_epochs else args.train_layers)
        batches = make_batches(cut["train"], args.batch_size, args.seed, epoch)
        total += count_flops(model, shapes_of(cut["train"], batches))
        total += count_flops(model, one_by_one["validation"], training=False)
    return total


def make_foretell(model, run_flops, device, precision, between=(2, 10)):
    """Return `foretell`, which is told the shapes of every window, and answers once.

    run_flops: of the run, or of what is left of it.
    It reads the clock after two windows: the first ones are slow, because memory is set aside and
    kernels are chosen. After ten it returns a sentence: how fast it goes, how much faster the
    hardware could, and how long the rest will take at this speed. Before and after that, None.
    """
    windows, clock = [], 0.0

    def foretell(shapes):
        nonlocal clock
        windows.append(shapes)
        if len(windows) not in between:
            return None
        finish(device)
        if len(windows) == between[0]:
            clock = time.perf_counter()
            return None
        seconds = time.perf_counter() - clock
        timed = [shape for window in windows[between[0] :] for shape in window]
        middle = sorted(timed, key=lambda shape: shape[0] * shape[1])[len(timed) // 2 :][:1]
        speed = count_flops(model, timed) / seconds
        limit = count_flops(model, middle) / time_products(model, middle, device, precision)
        limit *= parallel.world()  # of one process each, and a window is shared among them
        return (
            f"speed      {in_words(speed)}/s, {speed / limit:.0%} of what matrix products alone "
            f"reach here: what is left will take about {duration(run_flops / speed)}"
        )

    return foretell


def in_words(flops):
    """A number of FLOPs as people say it."""
    for name, size in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if flops >= size:
            return f"{flops / size:.3g} {name}"
    return f"{flops / 1e6:.3g} MFLOP"


def duration(seconds):
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


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


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--model", default="distilbert-base-uncased", help="hub name or folder")
    parser.add_argument("--batch-size", type=int, default=16, help="reviews at once")
    parser.add_argument("--max-length", type=int, default=256, help="tokens of each review")
    args = parser.parse_args()
    device, precision, _ = choose_hardware()
    model, _ = load_pretrained(args.model, None, seed=42)
    shapes = [(args.batch_size, args.max_length)] * 3
    for training in (False, True):
        flops = count_flops(model, shapes, training)
        seconds = time_products(model, shapes, device, precision, training)
        reviews = sum(b for b, _ in shapes)
        print(
            f"{'training' if training else 'scoring':8}  {in_words(flops / reviews)} a review; the "
            f"products alone, on {device} in {precision}: {in_words(flops / seconds)}/s, so at "
            f"most {reviews / seconds:.1f} reviews/s"
        )


if __name__ == "__main__":
    run_command(main)
