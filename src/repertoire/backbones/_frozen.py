"""A copy of a network that only looks: what training needs is folded away, so that it is several times faster."""

from __future__ import annotations

import copy
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from repertoire.backbones._base import Backbone
from repertoire.errors import ConfigError

__all__ = ["Precision", "fast_bfloat16", "frozen"]

Precision = Literal["float32", "bfloat16"]
B = TypeVar("B", bound=Backbone)

#: Largest difference that folding may make, relative to the largest feature.
_TOLERANCE = 1e-3


def fast_bfloat16(device: str | torch.device = "cpu") -> bool:
    """True if a device has instructions for bfloat16, and so computes faster in it than in float32.

    Example:
        >>> from repertoire.backbones import fast_bfloat16
        >>> isinstance(fast_bfloat16(), bool)
        True
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return torch.device(device).type == "cpu" and any(ask is not None and bool(ask()) for ask in found)


def frozen(backbone: B, size: int, *, precision: Precision = "float32") -> B:
    r"""A copy of a backbone for looking at images only: no gradients, and as fast as it can be had safely.

    Batch normalisation with fixed statistics is an affine map, which the convolution before it can do as well:

    .. math:: w' = \frac{\gamma}{\sqrt{v + \epsilon}} w, \qquad b' = \beta + \frac{\gamma}{\sqrt{v + \epsilon}} (b - m)

    It is folded wherever a trial on random images shows that it directly follows a convolution, and the copy is
    compared with the original on them; where folding would change what the network computes, nothing is folded.
    Activation functions then overwrite what they take, unless that would change it. Weights are laid out channels last.
    In bfloat16, where the processor has instructions for it, the copy is several times faster again, and differs in the
    third digit; its features are float32, the maps between its blocks are not.

    Args:
        backbone: stays as it is, in its mode, on its device.
        size: side of images that the network takes, in pixels, for the trial.
        precision: "float32" (default) or "bfloat16", in which images are converted as they come.

    Returns:
        A copy in eval mode on the same device, all of whose parameters are frozen. It has the same blocks, stages and
        `preset`, but its tensors have other names: it is not for saving.

    Raises:
        ConfigError: an unknown precision.

    Example:
        >>> import torch
        >>> from repertoire.backbones import frozen, resnet20
        >>> net = resnet20().eval()
        >>> x = torch.rand(2, 3, 32, 32)
        >>> torch.allclose(frozen(net, 32)(x), net(x), atol=1e-4)
        True
    """
    if precision not in ("float32", "bfloat16"):
        raise ConfigError(f"precision is {precision!r}; expected 'float32' or 'bfloat16'")
    net = copy.deepcopy(backbone).eval().requires_grad_(False)
    device = next(net.parameters()).device
    images = torch.randn(2, net.in_channels, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        expected = net(images)
        folded = _fold(net, images)
        if folded is not None and _same(folded(images), expected):
            net = folded
        in_place = _in_place(net)
        if in_place is not None and _leaves_all(in_place, net, images):
            net = in_place
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if precision == "bfloat16":
        net.bfloat16()
        net.blocks[0].register_forward_pre_hook(lambda module, inputs: tuple(x.bfloat16() for x in inputs))
        net.register_forward_hook(lambda module, inputs, output: output.float())
    return net


def _fold(net: B, images: Tensor) -> B | None:
    """A copy whose normalisations are folded, or None if there are none to fold."""
    pairs = _pairs(net, images)
    if not pairs:
        return None
    folded = copy.deepcopy(net)
    for convolution, norm in pairs:
        before, after = folded.get_submodule(convolution), folded.get_submodule(norm)
        assert isinstance(before, nn.Conv2d)
        assert isinstance(after, nn.BatchNorm2d)
        # timm's normalisation may end with an activation.
        rest = [getattr(after, name) for name in ("drop", "act") if isinstance(getattr(after, name, None), nn.Module)]
        folded.set_submodule(convolution, fuse_conv_bn_eval(before, after))
        folded.set_submodule(norm, nn.Sequential(*rest) if rest else nn.Identity())
    return folded


def _in_place(net: B) -> B | None:
    """A copy whose activation functions need no memory of their own, or None if there are none: to write a large map
    into memory that is new takes longer than to compute it."""
    changed = copy.deepcopy(net)
    found = [module for module in changed.modules() if getattr(module, "inplace", True) is False]
    for module in found:
        module.inplace = True  # type: ignore[assignment]
    return changed if found else None


def _leaves_all(in_place: B, net: B, images: Tensor) -> bool:
    """Whether nothing is overwritten that is looked at later: features, the maps of the stages, the images."""
    given = images.clone()
    pairs = zip([in_place(given), *in_place.stages(given)], [net(images), *net.stages(images)], strict=True)
    return all(_same(found, expected) for found, expected in pairs) and torch.equal(given, images)


def _pairs(net: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """The names of convolutions, each called once, and of the normalisation that takes what each gives out."""
    names = {module: name for name, module in net.named_modules()}
    outputs: list[tuple[nn.Module, Tensor]] = []
    found: list[tuple[nn.Module, nn.Module]] = []

    def give(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append((module, output))

    def take(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.extend((before, module) for before, output in outputs if output is inputs[0])

    handles = []
    for module in names:
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(give))
        elif isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            handles.append(module.register_forward_pre_hook(take))
    try:
        net(images)
    finally:
        for handle in handles:
            handle.remove()
    calls = [module for module, _ in outputs]
    return [(names[a], names[b]) for a, b in found if calls.count(a) == 1]


def _same(found: Tensor, expected: Tensor) -> bool:
    scale = max(1.0, float(expected.abs().max()))
    return float((found - expected).abs().max()) <= _TOLERANCE * scale
