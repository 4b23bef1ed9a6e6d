"""How the network is built: the shape of what each stage gives, and what skip connections do."""

import torch
from torch import nn

from flowers_utils.predictions import eval_mode


def output_shapes(model: nn.Module, size: int) -> list[tuple[str, tuple[int, ...]]]:
    """Name and output shape (without the batch) of each stage, for a `(3, size, size)` image."""
    stages = {"image": None}
    for name, child in model.named_children():
        inside = child.named_children() if name == "features" else []
        stages |= {f"features.{i}": block for i, block in inside} or {name: child}
    shapes = [("image", (3, size, size))]
    hooks = [
        stage.register_forward_hook(
            lambda _, __, output, name=name: shapes.append((name, tuple(output.shape[1:])))
        )
        for name, stage in stages.items()
        if stage is not None
    ]
    try:
        with eval_mode(model), torch.no_grad():
            model(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def shape_in_words(shape: tuple[int, ...]) -> str:
    """`(64, 56, 56)` -> `56x56x64`, `(102,)` -> `102`."""
    return f"{shape[1]}x{shape[2]}x{shape[0]}" if len(shape) == 3 else str(shape[0])


def gradient_at_each_block(*, skip: bool, blocks: int = 16, seed: int = 0) -> list[float]:
    """How much of the gradient reaches each block of an untrained stack, first block first.

    Mean absolute gradient at the input of the block, as a share of that behind the last block.
    The blocks are the same with and without `skip`: convolution, ReLU, convolution, with weights
    as wide as PyTorch's default for a convolution, and no BatchNorm.
    """
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(4, 8, 16, 16, generator=generator, requires_grad=True)
    inputs, width = [], (1 / (3 * 8 * 3 * 3)) ** 0.5
    for _ in range(blocks):
        value.retain_grad()
        inputs.append(value)
        kernels = [torch.randn(8, 8, 3, 3, generator=generator) * width for _ in range(2)]
        change = nn.functional.conv2d(value, kernels[0], padding=1).relu()
        change = nn.functional.conv2d(change, kernels[1], padding=1)
        value = value + change if skip else change
    value.retain_grad()
    value.square().mean().backward()
    behind = value.grad.abs().mean()
    return [float(block.grad.abs().mean() / behind) for block in inputs]
