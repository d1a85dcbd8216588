"""What to write instead of a name that is no backbone's: most people type timm's."""

from __future__ import annotations

import re

from repertoire.backbones import _timm
from repertoire.errors import MissingExtra

__all__ = ["hint"]

#: Families of networks that people know by name, for where timm cannot be asked.
_FAMILIES = re.compile(
    r"(beit|caformer|coat|convmixer|convnext|cspresnet|deit|densenet|dino|dpn|eca|edgenext|efficientformer|efficientnet"
    r"|efficientvit|eva|fastvit|ghostnet|hrnet|inception|levit|maxvit|mixer|mobilenet|mobilevit|nfnet|poolformer|pvt"
    r"|regnet|repvgg|res2net|resnest|resnet|resnext|rexnet|seresnet|siglip|swin|tf_|vgg|vit|wide_resnet|xception)\w*"
)


def hint(name: str) -> str | None:
    """A spec to write instead of an unknown name of a backbone, or None where there is nothing better than a guess.

    Args:
        name: what was typed: "resnet18", "efficientnet-b0", "EfficientNetLite0", "vit_small_patch16_224.augreg_in1k".

    Example:
        >>> from repertoire.backbones import hint
        >>> hint("efficientnet_lite0"), hint("no such network")
        ('lite0', None)
    """
    plain = name.strip().lower().replace("-", "_")
    lite = re.fullmatch(r"(?:tf_)?efficientnet_?lite_?([012])(?:\..*)?", plain)
    if lite:
        return f"lite{lite[1]}"
    architecture = plain.split(".", 1)[0]
    try:
        # Only now: it takes seconds to import.
        known = _timm.import_timm(plain).is_model(architecture)
    except MissingExtra:
        known = _FAMILIES.fullmatch(architecture) is not None
    return f"timm:{plain}" if known else None
