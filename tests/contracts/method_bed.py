"""Small methods and batches for the contract tests, made from what methods and losses declare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from repertoire import registry
from repertoire.data import Batch
from repertoire.losses import Loss
from repertoire.methods import Classifier, Method, Needs, Normalize, Teacher

CLASSES = 4
SAMPLES = 24
"""In the training set, and in every stream."""


def build_loss(name: str) -> Loss:
    """A loss, by name or spec, told all that a trainer tells it."""
    spec = registry.parse(name)
    known = {"counts": torch.arange(9, 9 + CLASSES), "num_classes": CLASSES, "samples": SAMPLES}
    if not spec.kwargs:
        options = registry.get("losses", name).factory.example_options()
        spec = registry.Spec(name, (), {key: value for key, value in options.items() if key not in known})
    return registry.build("losses", spec, **known)


def takes_loss(name: str) -> bool:
    return "loss" in registry.options(registry.get("methods", name).factory)


def build_method(name: str, loss: str | Loss | None = None, backbone: str = "convnet:width=4,depth=2") -> Method:
    """A method on images of 8 x 8 pixels, with the loss and the head that it declares unless another loss is named."""
    torch.manual_seed(0)
    needs: Needs = registry.get("methods", name).factory.needs
    net = registry.build("backbones", backbone, in_channels=1, image_size=8)
    made = build_loss(loss or needs.loss or "cross-entropy") if isinstance(loss, str | None) else loss
    width = made.width(1 if made.targets == ("number",) else CLASSES) if made.contract == "logits" else CLASSES
    head = registry.build("heads", needs.head or "linear", in_features=net.out_features, num_classes=width)
    given: dict[str, Any] = {
        "model": Classifier(Normalize([0.5], [0.25]), net, head),
        "image_size": 8,
        "samples": SAMPLES,
        "unlabelled": SAMPLES,
    }
    if takes_loss(name):
        given["loss"] = made
    # A multiple of many numbers: losses divide the dimensions among their parts.
    narrow = takes_loss(name) and "dimensions" in registry.options(registry.get("methods", name).factory)
    return registry.build("methods", registry.Spec(name, (), {"dimensions": 12} if narrow else {}), **given)


def batch_for(method: Method, count: int = 12, seed: int = 1, labelled: bool = True) -> Batch:
    """A batch with all that the method declares."""
    generator = torch.Generator().manual_seed(seed)
    needs = method.needs
    kinds = needs.targets or {"classes"}
    main = _samples(needs.views, count, generator)
    targets = torch.arange(count) % CLASSES if labelled else torch.full((count,), -1)
    if "classes" not in kinds:
        targets = (torch.rand(count, CLASSES, generator=generator) < 0.5).float()
        if "number" in kinds:
            targets = torch.rand(count, 1, generator=generator)
    fields: dict[str, Any] = {}
    if "mask" in needs.fields:
        fields["mask"] = tuple((view > 0.5)[:, 0].float() for view in main.views)
    streams = {}
    for name, stream in needs.streams.items():
        streams[name] = _samples(stream.views, round(stream.per_sample * count), generator)
        if stream.labels:
            streams[name].targets = torch.arange(len(streams[name])) % CLASSES
    return Batch(main.views, targets, main.index, fields, streams, main.names)


def _samples(views: int | Mapping[str, str], count: int, generator: torch.Generator) -> Batch:
    number, names = (views, ()) if isinstance(views, int) else (len(views), tuple(views))
    images = tuple(torch.rand(count, 1, 8, 8, generator=generator) for _ in range(number))
    index = torch.cat([torch.randperm(SAMPLES, generator=generator) for _ in range(-(-count // SAMPLES))])[:count]
    return Batch(images, torch.full((count,), -1), index, names=names)


def memory_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all buffers but those that a forward pass may change: statistics of batch normalisation."""
    statistics = {id(b) for m in module.modules() if isinstance(m, _BatchNorm) for b in m.buffers(recurse=False)}
    return {name: buffer.clone() for name, buffer in module.named_buffers() if id(buffer) not in statistics}


def followers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the parameters of teachers."""
    return {
        f"{prefix}.{name}": parameter.detach().clone()
        for prefix, found in module.named_modules()
        if isinstance(found, Teacher)
        for name, parameter in found.named_parameters()
    }


def same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor], **tolerance: float) -> bool:
    return first.keys() == second.keys() and all(
        torch.allclose(first[name].double(), second[name].double(), equal_nan=True, **tolerance) for name in first
    )
