"""What a run costs, and what the hardware could do at best.

The work is counted in FLOPs, multiplications and additions of numbers, before it is done. Then the
machine is asked how fast it multiplies. That tells a slow program from a slow machine.
"""

import functools
import time

import torch
from torch import nn


def layers_of(model):
    """The encoder's layers, lowest first: [(reached, alone, [(in, out, trained, all), ...]), ...].

    The pairs are the matrices that vectors are multiplied by: those of all tokens, or of the first
    alone (see model.speed_up(), which makes the last layer alone). reached: whether backward gets
    this far down; it stops at the lowest part that trains. Left out are the embeddings, whose rows
    are only looked up, and the head, which sees one vector of each review.
    """
    kept = [getattr(module, "keys_and_values", None) or () for module in model.modules()]
    needed = {id(one) for some in kept for one in some}  # by the last layer, of all tokens
    matrices = [
        (module.in_features, module.out_features, module.weight.requires_grad, id(module) in needed)
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
        reached = reached or any(trained for _, _, trained, _ in here)
        alone = any(everywhere for *_, everywhere in here)
        here = [(*sizes, everywhere or not alone) for *sizes, everywhere in here]
        layers.append((reached, alone, here))
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
    tokens, reviews = sum(b * t for b, t in shapes), sum(b for b, _ in shapes)
    total = 0
    for reached, alone, matrices in layers_of(model):
        for inputs, outputs, trained, everywhere in matrices:
            times = 1 + reached + trained if training else 1
            total += times * 2 * (tokens if everywhere else reviews) * inputs * outputs
        # Both factors of both products are computed numbers, so backward is twice the forward.
        scores = sum(b * t * (1 if alone else t) for b, t in shapes)
        total += (3 if training and reached else 1) * 4 * scores * model.config.hidden_size
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
        (reached, alone, [(draw(outputs, inputs), *how) for inputs, outputs, *how in matrices])
        for reached, alone, matrices in layers_of(model)
    ]
    sizes = {size for *_, weights in layers for weight, *_ in weights for size in weight.shape}
    sizes.add(width)  # also where no layer has a Linear of it
    vectors = {size: draw(max(b * t for b, t in shapes), size) for size in sizes}
    scores = draw(max(b * t * t for b, t in shapes) * heads)

    def run(b, t):
        heads_apart = vectors[width][: b * t].view(b, t, heads, width // heads).transpose(1, 2)
        for reached, alone, weights in layers:
            for weight, trained, everywhere in weights:
                outputs, inputs = weight.shape
                rows = b * t if everywhere else b
                x, gradient = vectors[inputs][:rows], vectors[outputs][:rows]
                x @ weight.T  # [B*T, out]
                if training and reached:
                    gradient @ weight  # [B*T, in]
                if training and trained:
                    gradient.T @ x  # [out, in]
            queries = 1 if alone else t
            attention = scores[: b * heads * queries * t].view(b, heads, queries, t)
            for _ in range(3 if training and reached else 1):
                heads_apart[:, :, :queries] @ heads_apart.mT  # [B, H, T, T]
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
