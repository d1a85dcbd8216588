"""The bridge to timm: its networks, cut into blocks."""

from __future__ import annotations

import difflib
import math
import warnings
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from repertoire.backbones._base import Backbone, resize_positions
from repertoire.backbones._cut import Uncuttable, cut, head, module_names
from repertoire.backbones._hub import check_reachable, hub_file
from repertoire.backbones._preset import Preset
from repertoire.errors import ConfigError, MissingExtra, UnknownName
from repertoire.registry import register

__all__ = ["Timm", "import_timm", "import_torchvision"]

#: Largest difference between the blocks' composition and the network itself, relative to the largest feature.
TOLERANCE = 1e-4


@register("backbones", "timm")
class Timm(Backbone):
    """A network of timm whose features can be cut into an ordered list of blocks.

    Wightman, *PyTorch Image Models* (https://github.com/huggingface/pytorch-image-models). The top level of the network
    is traced, and cut wherever a single tensor carries all that is needed; residual and transformer blocks stay whole.
    The composition of the blocks is compared with the network when it is built, on random images, and a network that
    cannot be cut, or does not agree to 1e-4, is refused. Modules that would work in place no longer do, so that what a
    block gave out stays as it was.

    A network that reads the size of the image outside its modules, as most transformers do, takes no other than
    `image_size`; but weights for another size are made to fit, by interpolating positions. `published` has timm's
    constants for the network's weights: mean, standard deviation, size, interpolation and crop. Stages are those of
    timm's `feature_info`; the stem alone is none.

    Args:
        name: as `timm.list_models()` has it, with or without the tag of its weights: "resnet50", "resnet50.a1_in1k".
        in_channels: channels of the images, 3 by default.
        image_size: side of the images in pixels, 32 by default.
        pretrained: whether timm is to load published weights, from the Hugging Face cache if they are there, otherwise
            from the network; False by default, and then nothing is downloaded.
        out_indices: keeps these stages (counted from 0) and drops the blocks after the last of them; all if None. A
            network that is cut short pools by the global average instead of its own head.

    Shapes:
        images float `[N, C, image_size, image_size]` to features `[N, d]`, what timm calls `pre_logits`.

    Raises:
        MissingExtra: timm is not installed.
        UnknownName: timm has no such model.
        ConfigError: the network cannot be cut, cannot take such images, or has no such stage; or its weights cannot be
            fetched.

    Example:
        >>> from repertoire.backbones import Timm
        >>> net = Timm("resnet18", image_size=64)  # doctest: +SKIP
        >>> len(net.blocks), net.stage_ends, net.out_features  # doctest: +SKIP
        (9, [2, 4, 6, 8], 512)
    """

    cut_short = False

    @classmethod
    def example_options(cls) -> dict[str, Any]:
        """Options for an example, where the defaults do not do."""
        return {"name": "resnet18"}

    def __init__(
        self,
        name: str,
        in_channels: int = 3,
        image_size: int = 32,
        pretrained: bool = False,
        out_indices: list[int] | None = None,
    ) -> None:
        super().__init__()
        for option, value in (("in_channels", in_channels), ("image_size", image_size)):
            if value < 1:
                raise ConfigError(f"{option} is {value}; expected 1 or more")
        model = _create(import_timm(name), name, in_channels, image_size, pretrained).eval()
        for module in model.modules():
            if getattr(module, "inplace", False) is True:
                module.inplace = False  # type: ignore[assignment]
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(3, in_channels, image_size, image_size, generator=generator)
        with torch.no_grad():
            features, expected = _reference(model, name, images)
            try:
                # Traced with another batch size than it is checked with: a batch size that got baked in does not pass.
                blocks: list[nn.Module] = [*cut(model, images[:2])]
                self.head: nn.Module | None = head(model, features[:2])
                maps = _outputs(blocks, images)
                found = self.head(maps[-1])
            except Uncuttable as error:
                raise ConfigError(f"timm model {name!r} cannot be cut into blocks: {error}") from error
            except Exception as error:
                raise ConfigError(f"timm model {name!r} cannot be cut into blocks: cut, it fails ({error})") from error
        if _differ(found, expected):
            raise ConfigError(f"timm model {name!r} cannot be cut into blocks: cut, it computes something else")
        self.published = _preset(model, name, in_channels)
        self.preset = self.published if pretrained else None
        self._prefix_tokens = int(getattr(model, "num_prefix_tokens", 0))
        declared = getattr(model, "output_fmt", None) == "NHWC"
        grids = [x.shape for x in maps if x.dim() == 4 and x.shape[1] == x.shape[2]]
        self._channels_last = frozenset(shape[3] for shape in grids if declared or shape[2] != shape[3])
        self.name = name
        self.in_channels = in_channels
        self.out_features = expected.shape[1]
        self.stage_ends = _stage_ends(model, blocks, [self.grid(x).shape for x in maps])
        if out_indices is not None:
            self.stage_ends = _select(name, self.stage_ends, out_indices)
            if self.stage_ends[-1] < len(blocks) - 1:
                blocks = blocks[: self.stage_ends[-1] + 1]
                self.head = None
                self.out_features = self.grid(maps[len(blocks) - 1]).shape[1]
                self.cut_short = True
        self.blocks = nn.ModuleList(blocks)
        self.stem = int(self.stage_ends[0] > 0)
        self.train()

    def grid(self, x: Tensor) -> Tensor:
        """A block's output as maps `[N, C, h, w]`.

        Tokens become a square, without the class and register tokens that stand before them; tokens that do not fill a
        square, a column `[N, C, T, 1]`; features `[N, C]`, a single pixel.
        """
        if x.dim() == 4:
            last = x.shape[3] in self._channels_last and x.shape[1] == x.shape[2]
            return x.permute(0, 3, 1, 2) if last else x
        if x.dim() == 3:
            count = x.shape[1]
            # Some networks add the class token half-way.
            for extra in (self._prefix_tokens, 0, 1):
                side = math.isqrt(max(count - extra, 0))
                if side and side * side == count - extra:
                    return x[:, extra:].transpose(1, 2).unflatten(2, (side, side))
            return x.transpose(1, 2)[..., None]
        return x.flatten(1)[:, :, None, None]

    def pool(self, x: Tensor) -> Tensor:
        """Pooling of timm's head before its classifier; the global average, where the network was cut short."""
        return super().pool(x) if self.head is None else self.head(x)

    def public_names(self) -> dict[str, str]:
        """Our name of each tensor to timm's."""
        return {
            ours: ours.removeprefix("head.") if ours.startswith("head.") else ours.split(".", 2)[2]
            for ours in self.state_dict()
        }

    def adapt_weight(self, name: str, tensor: Tensor, like: Tensor) -> Tensor | None:
        """Positions, and biases by relative position, for images of another size are interpolated."""
        part = name.rsplit(".", 1)[-1]
        if part == "pos_embed" and tensor.dim() == like.dim() == 3 and tensor.shape[2] == like.shape[2]:
            return resize_positions(tensor, like.shape[1], (self._prefix_tokens, 0, 1))
        if part == "relative_position_bias_table" and tensor.shape[1:] == like.shape[1:]:
            return _relative(tensor, like)
        return super().adapt_weight(name, tensor, like)


def _relative(tensor: Tensor, like: Tensor) -> Tensor | None:
    """Biases by relative position for windows of another size; some have three entries more, for the class token."""
    from timm.layers import resize_rel_pos_bias_table

    for extra in (0, 3):
        sides = [math.isqrt(max(len(table) - extra, 0)) for table in (tensor, like)]
        if all(side % 2 and side**2 + extra == len(t) for side, t in zip(sides, (tensor, like), strict=True)):
            window = (sides[1] + 1) // 2
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about how timm's code indexes
                return resize_rel_pos_bias_table(tensor, (window, window), tuple(like.shape))
    return None


def _preset(model: nn.Module, name: str, in_channels: int) -> Preset | None:
    """What timm says that the network's weights expect."""
    settings = getattr(model, "pretrained_cfg", None) or {}
    if not {"mean", "std", "input_size"} <= settings.keys():
        return None
    tag = settings.get("tag")
    weights = f"{name.split('.', 1)[0]}{f'.{tag}' if tag else ''}"
    preset = Preset(
        tuple(settings["mean"]),
        tuple(settings["std"]),
        int(max(settings["input_size"][1:])),
        settings.get("interpolation") or "bicubic",
        float(settings.get("crop_pct") or 0.875),
        f"timm's weights {weights}.",
    )
    return preset.for_channels(in_channels)


def import_timm(name: str) -> ModuleType:
    """The package timm, also beside a torchvision whose compiled operators do not fit this torch.

    Args:
        name: the network it is wanted for, which the error names.

    Raises:
        MissingExtra: timm is not installed.
    """
    what = f"backbone 'timm:{name}'"
    try:
        import_torchvision()
        import timm
    except ImportError as error:
        raise MissingExtra("timm", what) from error
    return timm


def import_torchvision() -> None:
    """Imports torchvision, and mends one that does not fit torch as far as packages that only look for it need.

    Raises:
        ImportError: it is not installed.
        RuntimeError: it does not import for another reason.

    Example:
        >>> from repertoire.backbones import import_torchvision
        >>> import_torchvision()  # doctest: +SKIP
    """
    try:
        import torchvision
    except RuntimeError as error:
        # A torchvision whose compiled operators do not fit this torch stops at the first one that it looks up. timm
        # uses none of them; with their schemas in place the rest of the package imports.
        if "torchvision::" not in str(error):
            raise
        for operator in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)
        import torchvision  # noqa: F401


def _create(timm: ModuleType, name: str, in_channels: int, image_size: int, pretrained: bool) -> nn.Module:
    # Asked before timm is: it would look for some kinds of unknown name on the network.
    if not timm.is_model(name.split(".", 1)[0]):
        raise UnknownName("timm model", name, difflib.get_close_matches(name, timm.list_models(), n=8, cutoff=0.3))
    options: dict[str, Any] = {"pretrained": pretrained, "in_chans": in_channels, "num_classes": 0}
    if pretrained:
        settings = timm.get_pretrained_cfg(name)
        repository = getattr(settings, "hf_hub_id", None)
        if repository:
            try:
                # A file that is there needs no network, and none is asked whether there is a newer one.
                options["pretrained_cfg_overlay"] = {"file": str(hub_file(repository, download=False))}
            except ConfigError:
                check_reachable(f"the weights of timm model {name!r}")
    try:
        try:
            return timm.create_model(name, img_size=image_size, **options)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            return timm.create_model(name, **options)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        doing = "fetched or built" if pretrained else "built"
        raise ConfigError(
            f"timm model {name!r} cannot be {doing} for {in_channels}x{image_size}x{image_size} images: {reason}"
        ) from error


def _reference(model: Any, name: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the network itself makes of the images: its features before and after pooling."""
    if not hasattr(model, "forward_features") or not hasattr(model, "forward_head"):
        raise ConfigError(f"timm model {name!r} cannot be cut into blocks: it has no forward_features and forward_head")
    try:
        features = model.forward_features(images)
        pooled = model.forward_head(features, pre_logits=True)
    except Exception as error:
        size = "x".join(map(str, images.shape[1:]))
        reason = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        raise ConfigError(
            f"timm model {name!r} cannot take {size} images ({reason}); try another image size"
        ) from error
    if not isinstance(features, Tensor) or not isinstance(pooled, Tensor) or pooled.dim() != 2:
        raise ConfigError(f"timm model {name!r} cannot be cut into blocks: its features are not one tensor")
    return features, pooled


def _differ(found: Tensor, expected: Tensor) -> bool:
    scale = max(1.0, float(expected.abs().max()))
    return found.shape != expected.shape or not float((found - expected).abs().max()) <= TOLERANCE * scale


def _outputs(blocks: list[nn.Module], x: Tensor) -> list[Tensor]:
    outputs = []
    for block in blocks:
        x = block(x)
        outputs.append(x)
    return outputs


def _stage_ends(model: nn.Module, blocks: list[nn.Module], shapes: list[torch.Size]) -> list[int]:
    """The last block of each of timm's stages; without such information, of each resolution."""
    last = len(blocks) - 1
    info = getattr(model, "feature_info", None) or []
    stages = [entry.get("module", "") for entry in (info.get_dicts() if hasattr(info, "get_dicts") else info)]
    owners = [module_names(block) for block in blocks]
    ends = set()
    for stage in filter(None, stages):
        # A stage may hold several blocks, or lie inside of one.
        inside = [i for i, names in enumerate(owners) if any(_related(stage, name) for name in names)]
        ends.update(inside[-1:])
    if ends:
        ends.discard(max(ends))  # what follows the last stage (a norm, a convolution) belongs to it
    else:
        ends = {i for i in range(last) if shapes[i][2:] != shapes[i + 1][2:]}
    return sorted((ends - {0, last}) | {last})


def _related(stage: str, name: str) -> bool:
    return f"{name}.".startswith(f"{stage}.") or f"{stage}.".startswith(f"{name}.")


def _select(name: str, stage_ends: list[int], indices: list[int]) -> list[int]:
    unknown = [index for index in indices if not 0 <= index < len(stage_ends)]
    if unknown or not indices:
        found = ", ".join(map(str, unknown)) or "none"
        raise ConfigError(f"out_indices has {found}; timm model {name!r} has the stages 0 to {len(stage_ends) - 1}")
    return [stage_ends[index] for index in sorted(set(indices))]
