"""Weights of a backbone from a safetensors file, ours or a published one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from repertoire.backbones._base import Backbone
from repertoire.errors import CheckpointError, ConfigError, ascii_path

__all__ = ["load_weights"]

#: What a backbone's own tensors are preceded by, when it was saved as a part of something larger. Of a run's checkpoint
#: that has both, the averaged weights are taken: they are what the run evaluates.
_PREFIXES = (
    "",
    "backbone.",
    "model.backbone.",
    "average.model.backbone.",
    "method.model.backbone.",
    "module.",
    "model.",
)


def load_weights(backbone: Backbone, path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Loads weights into a backbone from a safetensors file.

    The file may have the backbone's own names (also as part of a classifier, as a run leaves it), or the names under
    which such networks are published: `conv1`, `layer1.0.conv1`, ... for a `ResNet`, timm's own for a timm network.
    Every tensor of the backbone has to be there, in the right shape, before any of them is changed; only the batch
    counters of batch normalisation may be missing.

    Args:
        backbone: changed in place.
        path: a .safetensors file.

    Returns:
        The tensors of the file that are not the backbone's, under their names in the file: those of the head, say.

    Raises:
        ConfigError: there is no such file.
        CheckpointError: it is no safetensors file, or its tensors are those of another network.

    Example:
        >>> import os, tempfile
        >>> import torch
        >>> from safetensors.torch import save_file
        >>> from repertoire.backbones import load_weights, resnet20
        >>> net = resnet20()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "weights.safetensors")
        ...     save_file({**net.state_dict(), "linear.weight": torch.zeros(10, 64)}, path)
        ...     list(load_weights(net, path))
        ['linear.weight']
    """
    from safetensors import SafetensorError, safe_open

    shown = ascii_path(str(path))
    if not Path(path).is_file():
        raise ConfigError(f"weights: there is no file {shown}")
    target = {name: tensor for name, tensor in backbone.state_dict().items() if isinstance(tensor, Tensor)}
    try:
        with safe_open(str(path), framework="pt") as file:
            stored = set(file.keys())
            names = _match(backbone, target, stored, shown)
            found = {ours: file.get_tensor(theirs) for ours, theirs in names.items()}
            rest = {name: file.get_tensor(name) for name in sorted(stored - set(names.values()))}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{shown} cannot be read as safetensors: {error}") from error
    wrong = [
        f"{names[ours]} is {list(tensor.shape)}, expected {list(target[ours].shape)}"
        for ours, tensor in found.items()
        if tensor.shape != target[ours].shape
    ]
    if wrong:
        raise CheckpointError(f"{shown} does not fit this {type(backbone).__name__}: {_few(wrong)}")
    with torch.no_grad():
        for ours, tensor in found.items():
            target[ours].copy_(tensor)
    return rest


def _match(backbone: Backbone, target: dict[str, Tensor], stored: set[str], shown: str) -> dict[str, str]:
    """Our name of each tensor to the name it has in the file: the layout under which most of them are found."""
    layouts = [{ours: ours for ours in target}]
    public = getattr(backbone, "public_names", None)
    if public is not None:
        layouts.append(public())
    candidates = [
        {ours: prefix + theirs for ours, theirs in layout.items()} for layout in layouts for prefix in _PREFIXES
    ]
    names = max(candidates, key=lambda candidate: len(stored.intersection(candidate.values())))
    present = {ours: theirs for ours, theirs in names.items() if theirs in stored}
    missing = [theirs for ours, theirs in names.items() if theirs not in stored and not _is_counter(ours)]
    if missing:
        kind = type(backbone).__name__
        raise CheckpointError(f"{shown} is not of this {kind}: {len(missing)} tensors missing: {_few(missing)}")
    # `layer1.3` in the file of a network that should end at `layer1.2`: a deeper network, not a head.
    trunks = {_trunk(theirs) for ours, theirs in present.items() if ours.startswith("blocks.")}
    foreign = sorted(name for name in stored.difference(present.values()) if _trunk(name) in trunks)
    if foreign:
        kind = type(backbone).__name__
        raise CheckpointError(f"{shown} is of a larger network than this {kind}; it also has {_few(foreign)}")
    return present


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _trunk(name: str) -> str:
    """The part of a name that says which module of the network it belongs to, such as `layer1` or `backbone.blocks`."""
    for prefix in sorted(_PREFIXES, key=len, reverse=True):
        if name.startswith(prefix):
            return prefix + name.removeprefix(prefix).split(".", 1)[0]
    return name


def _few(items: Iterable[str]) -> str:
    listed = list(items)
    more = f", and {len(listed) - 4} more" if len(listed) > 4 else ""
    return ", ".join(listed[:4]) + more
