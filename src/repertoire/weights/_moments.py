"""Second moments of what enters the layers of a network, summed up batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.ops import evaluating
from repertoire.weights._batchnorm import images_of
from repertoire.weights._progress import Kept, Progress

__all__ = ["input_moments", "layer_rows", "watched"]

LARGEST = 1 << 22
"""Numbers that the patches of one piece of a batch may have."""


@torch.no_grad()
def input_moments(
    model: nn.Module,
    batches: Iterable[Tensor | Batch | tuple[Tensor, ...]],
    layers: Iterable[str] | None = None,
    *,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    r"""Second moments of the inputs of the linear and convolution layers of a network.

    .. math::
        G = \frac{1}{n} \sum_{i=1}^{n} x_i x_i^\top

    where x is what a row of the layer's weights is multiplied with: a row of the input of a linear layer, or the patch
    of a convolution at one place, flattened as its weights are, with its padding. The sum is over samples and places,
    in float64, so that any number of batches is held in the same memory. The mean is not subtracted.

    Args:
        model: in evaluation mode for it, and left as it was.
        batches: inputs as evaluation sees them; tensors, `Batch`, or tuples whose first element is the inputs. Moved to
            the model's device.
        layers: names of the layers; all linear layers and convolutions of one or two dimensions by default.
        progress: where the sums so far are kept; by default nowhere.

    Returns:
        Name of the layer to its moments, float64 `[d, d]`; `[groups, d, d]` for a convolution of several groups. Layers
        that no batch passes through are left out.

    Raises:
        ConfigError: there are no batches, or a named layer is not there or of another kind.

    Example:
        >>> import torch
        >>> from repertoire.weights import input_moments
        >>> input_moments(torch.nn.Linear(2, 5), [torch.tensor([[1.0, 2.0], [3.0, 0.0]])])
        {'': tensor([[5., 1.],
                [1., 2.]], dtype=torch.float64)}
    """
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    modules = dict(model.named_modules())
    chosen = [name for name, module in modules.items() if isinstance(module, kinds)] if layers is None else list(layers)
    wrong = [name for name in chosen if not isinstance(modules.get(name), kinds)]
    if wrong:
        raise ConfigError(f"layers must name linear layers or convolutions of the network, found {', '.join(wrong)}")
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(chosen, 0)

    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    inputs: dict[str, list[Tensor]] = {}
    seen = 0

    def state() -> tuple[dict[str, Tensor], dict[str, Any]]:
        return sums, {"counts": counts, "seen": seen}

    def put_back(kept: Kept) -> None:
        nonlocal seen
        sums.update({name: value.to(device) for name, value in kept.tensors.items()})
        counts.update(kept.told["counts"])
        seen = kept.told["seen"]

    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        for name in chosen:
            stack.enter_context(watched(modules[name], inputs, name))
        for batch in (progress or Progress()).through("moments", batches, state, put_back):
            model(images_of(batch).to(device))
            for name in list(inputs):
                for given in inputs.pop(name):
                    for rows in layer_rows(modules[name], given):
                        product = rows.mT @ rows
                        sums[name] = sums[name] + product if name in sums else product
                        counts[name] += rows.shape[-2]
            seen += 1
    if seen == 0:
        raise ConfigError("batches is empty; give some training samples to measure the inputs of layers on")
    found = {name: sums[name] / counts[name] for name in chosen if name in sums}
    return {name: moments.squeeze(0) if _groups(modules[name]) == 1 else moments for name, moments in found.items()}


@contextmanager
def watched(module: nn.Module, kept: dict[str, list[Tensor]], name: str) -> Iterator[None]:
    """Keeps what a linear layer or convolution multiplies with its weights, call by call, while the context lasts."""
    if isinstance(module, nn.Linear):
        handle = module.register_forward_pre_hook(lambda _, given: kept.setdefault(name, []).append(given[0]))
        try:
            yield
        finally:
            handle.remove()
        return
    convolve = module._conv_forward

    def watching(x: Tensor, *rest: Tensor) -> Tensor:
        kept.setdefault(name, []).append(x)
        return convolve(x, *rest)  # type: ignore[operator]

    # Here and not where the module is called: some pad their input before they convolve it.
    module._conv_forward = watching  # type: ignore[assignment]
    try:
        yield
    finally:
        del module._conv_forward


def layer_rows(module: nn.Module, inputs: Tensor) -> Iterable[Tensor]:
    """What a layer's rows of weights are multiplied with, float64 `[groups, n, d]`, a piece of the batch at a time."""
    wide = torch.float32 if inputs.device.type == "mps" else torch.float64
    if isinstance(module, nn.Linear):
        yield inputs.reshape(1, -1, inputs.shape[-1]).to(wide)
        return
    assert isinstance(module, nn.Conv1d | nn.Conv2d)
    if inputs.dim() == len(module.kernel_size) + 1:  # without a dimension of samples
        inputs = inputs[None]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    per_sample = inputs[0].numel() * _area(module)
    for part in inputs.split(max(1, LARGEST // max(per_sample, 1))):
        padded = F.pad(part, module._reversed_padding_repeated_twice, mode=mode)
        sizes = (module.kernel_size, module.dilation, module.stride)
        if padded.dim() == 3:  # unfold knows images only
            padded, sizes = padded[:, :, None], tuple((1, *size) for size in sizes)  # type: ignore[assignment]
        patches = F.unfold(padded, sizes[0], dilation=sizes[1], stride=sizes[2])
        grouped = patches.reshape(len(part), module.groups, -1, patches.shape[-1])
        yield grouped.permute(1, 0, 3, 2).reshape(module.groups, -1, grouped.shape[2]).to(wide)


def _area(module: nn.Conv1d | nn.Conv2d) -> int:
    area = 1
    for size in module.kernel_size:
        area *= size
    return area


def _groups(module: nn.Module) -> int:
    return module.groups if isinstance(module, nn.Conv1d | nn.Conv2d) else 1
