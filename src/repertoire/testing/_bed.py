"""Small methods and batches, made from what methods and losses declare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from repertoire import registry
from repertoire.data import Batch
from repertoire.losses import LogitsLoss, Loss
from repertoire.methods import Classifier, Method, Needs, Normalize, Teacher, brought_head
from repertoire.testing._check import example_options, options_of, supplied

__all__ = ["CLASSES", "batch_for", "build_loss", "build_method", "followers", "memory_of", "same", "takes_loss"]

CLASSES = 4
SAMPLES = 24
"""In the training set, and in every stream."""


def build_loss(name: str) -> Loss:
    """A loss, by name or spec, told all that a trainer tells it."""
    spec = registry.parse(name)
    known = {"counts": torch.arange(9, 9 + CLASSES), "num_classes": CLASSES, "samples": SAMPLES}
    if not spec.kwargs:
        options = example_options(registry.get("losses", name).factory)
        spec = registry.Spec(name, (), {key: value for key, value in options.items() if key not in known})
    return registry.build("losses", spec, **known)


def takes_loss(method: str | Callable[..., Method]) -> bool:
    """True if a method, by name or class, is given a loss."""
    return "loss" in options_of(_factory(method))


def _factory(method: str | Callable[..., Method]) -> Callable[..., Method]:
    return registry.get("methods", method).factory if isinstance(method, str) else method


def build_method(
    method: str | Callable[..., Method],
    loss: str | Loss | None = None,
    backbone: str | None = None,
    **options: Any,
) -> Method:
    """A method on images of 8 x 8 pixels, with the loss and the head that it declares unless another loss is named.

    Args:
        method: its name, or its class.
        loss: spec of a loss, or a loss; what the method declares if None.
        backbone: spec of the network; what the method needs, or else a small convolutional one, if None.
        options: further options of the method.
    """
    torch.manual_seed(0)
    factory = _factory(method)
    needs: Needs = getattr(factory, "needs", Needs())
    backbone = getattr(factory, "example_backbone", None) or backbone or "convnet:width=4,depth=2"
    net = registry.build("backbones", backbone, in_channels=1, image_size=8)
    made = build_loss(loss or needs.loss or "cross-entropy") if isinstance(loss, str | None) else loss
    width = made.width(1 if made.targets == ("number",) else CLASSES) if isinstance(made, LogitsLoss) else CLASSES
    given_head = brought_head(registry.Spec("", (), options), factory) or "linear"
    head = registry.build("heads", given_head, in_features=net.out_features, num_classes=width)
    given = supplied(
        factory,
        model=Classifier(Normalize([0.5], [0.25]), net, head),
        loss=made,
        image_size=8,
        samples=SAMPLES,
        unlabelled=SAMPLES,
        # A multiple of many numbers: losses divide the dimensions among their parts.
        **({"dimensions": 12} if takes_loss(factory) else {}),
    )
    return factory(**{**given, **example_options(factory), **options})


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
    if "transformation" in needs.fields:
        fields["transformation"] = torch.rand(count, 4, generator=generator)
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
