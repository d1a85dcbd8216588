"""Weights of a backbone from wherever they are, ours or published ones, and what became of them."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repertoire.backbones._base import Backbone
from repertoire.backbones._hub import hub_file, is_hub_name
from repertoire.backbones._preset import Preset
from repertoire.backbones._read import WEIGHT_FILES, find_file, read_tensors, sha256_of
from repertoire.errors import CheckpointError, ConfigError, RepertoireWarning, RunError, ascii_path

__all__ = ["WeightsReport", "apply_weights", "load_weights"]

#: What networks are called inside of larger ones, and of the files that programs write. Any of these may precede a
#: backbone's own names, one after the other.
_WRAPPERS = frozenset(
    (
        *("module", "_orig_mod", "state_dict", "model_state_dict", "model_state", "weights"),
        *("model", "net", "network", "method", "backbone", "encoder", "trunk"),
        *("student", "teacher", "base_encoder", "encoder_q", "online_encoder"),
        *("average", "ema", "model_ema", "state_dict_ema"),
    )
)
#: Where a file has the same network twice: the one that is an average over the training, which is what is evaluated.
_AVERAGES = frozenset(["average", "ema", "model_ema", "state_dict_ema", "teacher"])
#: Beginnings of what a checkpoint has besides networks.
_OTHER = re.compile(r"(optim|sched|lr_sched|scaler|rng|loader)", re.IGNORECASE)
#: The newest layout of run directories that this version reads.
RUN_FORMAT = 1


@dataclass(frozen=True)
class WeightsReport:
    """Account of the tensors of a file of weights: matched, missing and differing ones, without batch counters.

    Attributes:
        source: the file, or the name that was asked for.
        sha256: of the file.
        matched: the backbone's tensors that were found, under its own names.
        adapted: those among them that were made to fit: positions for another size, a first layer for grey images.
        missing: the backbone's tensors that were not found, under the names they would have had; they stay as they are.
        differing: tensors of another shape, with the shape found and the one expected; they stay as they are.
        left_over: the file's tensors that are not the backbone's, under their names in the file: those of a head, say.

    Example:
        >>> from repertoire.backbones import WeightsReport
        >>> WeightsReport("a.pth", "9f86d0", matched=("conv", "norm"), missing=("fc.bias",)).summary()
        'a.pth: 2 of 3 tensors matched; 1 missing (fc.bias)'
    """

    source: str
    sha256: str
    matched: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    differing: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    left_over: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def total(self) -> int:
        """Number of tensors of the backbone."""
        return len(self.matched) + len(self.missing) + len(self.differing)

    def summary(self) -> str:
        """One line for people: counts, and the first names of each kind."""
        parts = [f"{self.source}: {len(self.matched)} of {self.total} tensors matched"]
        if self.adapted:
            parts.append(f"{len(self.adapted)} of them made to fit ({_few(self.adapted)})")
        if self.missing:
            parts.append(f"{len(self.missing)} missing ({_few(self.missing)})")
        if self.differing:
            parts.append(f"{len(self.differing)} of another shape ({_shapes(self.differing)})")
        if self.left_over:
            parts.append(f"{len(self.left_over)} left over ({_few(self.left_over)})")
        return "; ".join(parts)

    def record(self) -> dict[str, Any]:
        """The report as JSON, for the record of a run: names and shapes, without the tensors that were left over."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "matched": len(self.matched),
            "total": self.total,
            "adapted": list(self.adapted),
            "missing": list(self.missing),
            "differing": [
                {"name": name, "found": list(found), "expected": list(expected)}
                for name, found, expected in self.differing
            ],
            "left_over": list(self.left_over),
        }


def load_weights(backbone: Backbone, source: str | os.PathLike[str], *, download: bool = False) -> WeightsReport:
    """Loads weights into a backbone, from a file, a run, or the Hugging Face cache, and says what became of them.

    The tensors may have the backbone's own names or those under which such networks are published (`conv1`,
    `layer1.0.conv1`, ... for a `ResNet`, timm's own for a timm network), and may be part of something larger: names
    like `module.`, `model.`, `backbone.`, `encoder.`, `student.`, `teacher.backbone.` or `_orig_mod.` before them are
    taken off, and of two copies of a network the averaged one is taken. Nothing changes unless at least half of the
    backbone's tensors are there, in the right shape; positions are interpolated to the size of the images, and a first
    layer is made to fit grey images.

    The backbone's `preset` becomes that of its published weights, or of the run.

    Args:
        backbone: changed in place.
        source: a .safetensors file; a .pth, .pt or .bin file, of which tensors are read and nothing else; the directory
            of a run, whose best weights are taken; or `owner/name` of the Hugging Face cache.
        download: whether what is not in that cache may be fetched; false by default.

    Returns:
        What matched, what was made to fit, what is missing or left over.

    Warns:
        RepertoireWarning: some of the backbone's tensors were missing or of another shape, and stayed as they were.

    Raises:
        ConfigError: there is no such file, less than half of the backbone's tensors match, or the weights are for
            images with other channels.
        CheckpointError: the file is damaged, takes more than tensors to read, is of a deeper network, or holds numbers
            that are not finite.
        RunError: the run is of a newer version, or has no weights yet.

    Example:
        >>> import os, tempfile
        >>> import torch
        >>> from safetensors.torch import save_file
        >>> from repertoire.backbones import load_weights, resnet20
        >>> net = resnet20()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "weights.safetensors")
        ...     save_file({**net.state_dict(), "linear.weight": torch.zeros(10, 64)}, path)
        ...     report = load_weights(net, path)
        >>> len(report.matched), list(report.left_over)
        (95, ['linear.weight'])
    """
    path, run = _find(source, download)
    shown = ascii_path(str(source))
    report = apply_weights(backbone, read_tensors(path), shown=shown, sha256=sha256_of(path))
    if run is not None:
        backbone.preset = _preset(run, f"Trained by the run {shown}.").for_channels(backbone.in_channels)
    return report


def apply_weights(backbone: Backbone, stored: Mapping[str, Tensor], *, shown: str, sha256: str) -> WeightsReport:
    """Loads tensors that were read; see `load_weights`.

    Args:
        backbone: changed in place.
        stored: tensors by name.
        shown: what to call their source.
        sha256: of their file.
    """
    target = {name: tensor for name, tensor in backbone.state_dict().items() if isinstance(tensor, Tensor)}
    found = _match(backbone, target, stored)
    kind = type(backbone).__name__
    values: dict[str, Tensor] = {}
    adapted, missing, differing = [], [], []
    for ours, theirs in found.names.items():
        tensor = stored.get(theirs)
        if tensor is None:
            missing.append(theirs)
        elif tensor.shape == target[ours].shape:
            values[ours] = tensor
        elif (fitted := _fitted(backbone, ours, tensor, target[ours])) is not None:
            values[ours] = fitted
            adapted.append(theirs)
        elif _other_channels(backbone, ours, tensor, target[ours]):
            raise ConfigError(
                f"{shown} has weights for images with {tensor.shape[1]} channels, and these have "
                f"{backbone.in_channels}; of other numbers of channels, only 1 and 3 can be made to fit each other"
            )
        else:
            differing.append((theirs, tuple(tensor.shape), tuple(target[ours].shape)))
    counted = [name for name in values if not _is_counter(name)]
    missing = [name for name in missing if not _is_counter(name)]
    report = WeightsReport(
        source=shown,
        sha256=sha256,
        matched=tuple(counted),
        adapted=tuple(adapted),
        missing=tuple(missing),
        differing=tuple(differing),
        # Copies: what was read may be a window onto a file that somebody writes anew.
        left_over={name: stored[name].clone() for name in sorted(found.left_over)},
    )
    if 2 * len(counted) < report.total or not counted:
        raise ConfigError(f"{_refusal(report, stored)}; these are not the weights of this {kind}")
    # `layer1.3` in the file of a network that should end at `layer1.2`: a deeper network, not a head.
    deeper = [name for name in report.left_over if found.is_deeper(name)]
    if deeper and not getattr(backbone, "cut_short", False):
        raise CheckpointError(f"{shown} is of a larger network than this {kind}; it also has {_few(deeper)}")
    wrong = [found.names[n] for n in counted if target[n].is_floating_point() and not _is_finite(values[n])]
    if wrong:
        raise CheckpointError(f"{shown} has numbers that are not finite, or no numbers of this kind: {_few(wrong)}")
    with torch.no_grad():
        for ours, tensor in values.items():
            target[ours].copy_(tensor)
    if missing or differing:
        warnings.warn(f"{report.summary()}; what was not found stays as it was", RepertoireWarning, stacklevel=3)
    backbone.preset = backbone.published
    return report


def _find(source: str | os.PathLike[str], download: bool) -> tuple[Path, dict[str, Any] | None]:
    """The file that a source means, and the record of the run that it is of."""
    path, text = Path(source), os.fspath(source)
    if path.is_dir():
        if (path / "run.json").is_file():
            return _best(path)
        for name in WEIGHT_FILES:
            if (path / name).is_file():
                return path / name, None
        raise ConfigError(
            f"weights: {ascii_path(text)} is a directory without run.json or {' or '.join(WEIGHT_FILES)}; give the "
            "directory of a run, or a file"
        )
    # A path that is not there is a name of the hub only if it cannot have been meant as a path.
    hub = is_hub_name(text) and path.suffix.lower() not in (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")
    if not path.exists() and hub and (text.startswith("hf:") or not path.parent.is_dir()):
        return hub_file(text, download=download), None
    file = find_file(path)
    if file.parent.name == "checkpoints" and (file.parent.parent / "run.json").is_file():
        return file, _record(file.parent.parent)
    return file, None


def _best(run: Path) -> tuple[Path, dict[str, Any]]:
    info = _record(run)
    path = run / "checkpoints" / "best.safetensors"
    if not path.is_file():
        raise RunError(f"{ascii_path(str(run))} has no weights to start from yet: there is no {path.relative_to(run)}")
    return path, info


def _record(run: Path) -> dict[str, Any]:
    shown = ascii_path(str(run))
    try:
        info = json.loads((run / "run.json").read_text(encoding="utf-8"))
        newer = int(info["format"]) > RUN_FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{shown}/run.json is damaged: {error}") from None
    if newer:
        raise RunError(
            f"{shown} was written by a newer version of Repertoire ({info.get('repertoire')}); upgrade to start from it"
        )
    return info


@dataclass(frozen=True)
class _Match:
    """Under which prefix, and which of its two sets of names, a backbone's tensors are found in a file."""

    names: dict[str, str]
    left_over: set[str]
    prefix: str

    def is_deeper(self, name: str) -> bool:
        """Whether a tensor that was left over belongs to a module of the network that has others that were found."""
        trunks = {theirs[len(self.prefix) :].split(".", 1)[0] for ours, theirs in self.names.items() if "." in ours}
        rest = name.removeprefix(self.prefix).split(".", 1)
        return name.startswith(self.prefix) and len(rest) > 1 and rest[0] in trunks and rest[1][:1].isdigit()


def _match(backbone: Backbone, target: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> _Match:
    layouts = [{ours: ours for ours in target}]
    layouts += [getattr(backbone, names)() for names in ("public_names", "converted_names") if hasattr(backbone, names)]
    # Every way to take wrappers off the front of a name, so that a network with a part called `encoder` is found too.
    inside: dict[str, dict[str, str]] = {}
    for name in stored:
        prefix, rest = "", name
        while True:
            inside.setdefault(prefix, {})[_plain(rest)] = name
            first, dot, rest = rest.partition(".")
            if not dot or first not in _WRAPPERS:
                break
            prefix += first + dot
    best: tuple[tuple[int, int, int, int], str, dict[str, str]] | None = None
    for prefix, content in inside.items():
        averaged = not _AVERAGES.isdisjoint(prefix.split("."))
        for layout in layouts:
            there = {ours: content[theirs] for ours, theirs in layout.items() if theirs in content}
            same = sum(stored[theirs].shape == target[ours].shape for ours, theirs in there.items())
            score = (same, len(there), int(averaged), -len(prefix))
            if best is None or score > best[0]:
                best = score, prefix, {ours: content.get(theirs, prefix + theirs) for ours, theirs in layout.items()}
    assert best is not None, "a file without tensors was refused before"
    _, prefix, names = best
    # Other copies of what was found (a student beside its teacher) are no left-overs, nor is an optimiser's state.
    wanted = {_plain(theirs.removeprefix(prefix)) for theirs in names.values()}
    copies = {name for content in inside.values() for rest, name in content.items() if rest in wanted}
    left = {name for name in stored if name not in copies and not _OTHER.match(name)}
    return _Match(names, left - set(names.values()), prefix)


def _plain(name: str) -> str:
    """A name without what compiling a part of a network puts into it."""
    return name.replace("_orig_mod.", "")


def _fitted(backbone: Backbone, name: str, tensor: Tensor, like: Tensor) -> Tensor | None:
    return (
        backbone.adapt_weight(name, tensor, like) if tensor.is_floating_point() and like.is_floating_point() else None
    )


def _other_channels(backbone: Backbone, name: str, tensor: Tensor, like: Tensor) -> bool:
    """Whether a tensor is the network's first layer, for images with another number of channels."""
    first = name.startswith("blocks.0.") and tensor.dim() == like.dim() == 4 and like.shape[1] == backbone.in_channels
    return first and tensor.shape[1] != like.shape[1] and tensor[:, 0].shape == like[:, 0].shape


def _preset(run: Mapping[str, Any], source: str) -> Preset:
    """How a run's images looked."""
    try:
        return Preset(tuple(run["mean"]), tuple(run["std"]), int(run["size"]), "bilinear", 1.0, source)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"run.json is damaged: mean, std or size cannot be used ({error})") from None


def _refusal(report: WeightsReport, stored: Mapping[str, Tensor]) -> str:
    text = f"{report.source} fits {len(report.matched)} of {report.total} tensors"
    if report.differing:
        text += f"; {len(report.differing)} have another shape: {_shapes(report.differing)}"
    if report.missing:
        text += f"; {len(report.missing)} are missing: {_few(report.missing)}; the file has {_few(stored)}"
    return text


def _is_finite(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(tensor.isfinite().all())


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _shapes(differing: Iterable[tuple[str, tuple[int, ...], tuple[int, ...]]]) -> str:
    return _few(f"{name} is {list(found)}, expected {list(expected)}" for name, found, expected in differing)


def _few(items: Iterable[str]) -> str:
    listed = list(items)
    more = f", and {len(listed) - 4} more" if len(listed) > 4 else ""
    return ascii_path(", ".join(listed[:4]) + more)
