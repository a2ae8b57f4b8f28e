"""What a run costs, and what the hardware could do at best.

The work is counted in FLOPs, multiplications and additions of numbers, before it is done. Then the
machine is asked how fast it multiplies. That tells a slow program from a slow machine.
"""

import functools
import time

import torch
from torch import nn


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
