"""What a run costs, and what the hardware could do at best.

The work is counted in FLOPs, multiplications and additions of numbers, before it is done. Then the
machine is asked how fast it multiplies. That tells a slow program from a slow machine.
"""

import math
import time
from itertools import chain

import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

MULTIPLY = [getattr(torch.ops.aten, name) for name in ("mm", "addmm", "bmm", "baddbmm")]


class Products(TorchDispatchMode):
    """Inside this `with`, every matrix product leaves the forms of its two factors in `found`.

    A form is (sizes, strides): how large, and in which order the numbers lie in memory.
    """

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in MULTIPLY:
            self.found.append([(tuple(x.shape), x.stride()) for x in args[-2:]])
        return function(*args, **kwargs or {})


def products_of(model, shapes, training=True):
    """The matrix products of micro-batches, a list of pairs of forms for each. shapes: (B, T) each.

    Nothing is computed: on the device "meta" a tensor has a shape and no numbers. So backward and
    frozen layers need no rules of ours, nor does a model that uses a layer again and again. Norms,
    GELU and softmax are left out: a few operations a number.
    """
    weights = {
        name: torch.empty_like(x, device="meta", requires_grad=x.requires_grad)
        for name, x in chain(model.named_parameters(), model.named_buffers())
    }
    found = {}
    for shape in set(shapes):
        batch = {"input_ids": torch.empty(shape, dtype=torch.long, device="meta")}
        # MATH: attention as the two products that it is, Q K^T and weights V.
        with Products() as seen, sdpa_kernel(SDPBackend.MATH):
            logits = functional_call(model, weights, kwargs=batch).logits
            if training:
                logits.backward(torch.ones_like(logits))
        found[shape] = seen.found
    return [found[shape] for shape in shapes]


def count_flops(products):
    """A product of [M, K] and [K, N] takes 2 M K N: a multiplication and an addition for each."""
    return sum(2 * math.prod(a) * b[-1] for pairs in products for (a, _), (b, _) in pairs)


def time_products(products, device, precision):
    """Seconds for these products alone: no fine-tuning can be faster. products: of products_of().

    Random numbers of the right shapes, in the right format and order in memory, are multiplied with
    nothing between the products: no copies, no optimizer.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    seconds = []
    for pairs in [products[0], *products]:  # the first time, kernels are chosen
        numbers = {}
        for sizes, strides in {form for pair in pairs for form in pair}:
            most = 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides))
            line = torch.randn(most, dtype=dtype, device=device)  # in memory all lie in one line
            numbers[sizes, strides] = line.as_strided(sizes, strides)
        finish(device)
        started = time.perf_counter()
        for one, other in pairs:
            numbers[one] @ numbers[other]
        finish(device)
        seconds.append(time.perf_counter() - started)
    return sum(seconds[1:])


def finish(device):
    """Wait until the device has done what it was told; a GPU works on while Python goes ahead."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()
