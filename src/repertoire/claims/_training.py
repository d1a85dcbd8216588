"""What the claims share: training in memory, and reading a representation out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from repertoire import registry
from repertoire.data import ImageSet, Splits
from repertoire.methods import Method
from repertoire.recipe import TrainConfig, build, make_config, resolve
from repertoire.train import in_memory, outputs

__all__ = [
    "accuracy",
    "embeddings",
    "fit_tensors",
    "new_method",
    "optimise",
    "perceptron",
    "pixels",
    "probe",
    "probe_accuracy",
    "resolved",
    "train",
]

OF_VECTORS = ("mlp", "identity")
"""Backbones that read vectors as well as images."""


def resolved(splits: Splits, *, device: str = "cpu", **fields: Any) -> TrainConfig:
    """The configuration that `repertoire.train.fit` would use with these fields.

    Data of the user's own may be features, which no network of images reads: a head alone then takes its place.
    """
    if splits.train.noun == "vector" and registry.parse(fields.get("backbone", "auto")).name not in OF_VECTORS:
        fields |= {"backbone": "auto", "augment": "auto"}
    return resolve(make_config(data=splits.source, device=device, **fields), splits)


def new_method(splits: Splits, config: TrainConfig) -> Method:
    """A method with fresh weights, which are a function of the seed."""
    method = build(config, splits, device=config.device).method
    return method.to(device=config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def optimise(method: Method, splits: Splits, config: TrainConfig) -> Method:
    """Trains a method of one's own with the loop of `repertoire.train.fit`, in memory and without validation."""
    built = replace(build(config, splits, device=config.device, weights=False), method=method)
    return in_memory(built, validate=False).method.eval()


def train(splits: Splits, **fields: Any) -> Method:
    """A method trained on the training images; `fields` are those of the training configuration."""
    config = resolved(splits, **fields)
    return in_memory(build(config, splits, device=config.device), validate=False).method.eval()


def accuracy(method: Method, images: ImageSet) -> float:
    """Share of images that the method's own classifier gets right."""
    result = outputs(method.model, images, device=_device(method))
    return float((result.logits.argmax(1) == result.labels).mean())


def embeddings(method: Method, images: ImageSet) -> np.ndarray:
    """Features of the backbone, float32 `[N, d]`."""
    return outputs(method.model, images, device=_device(method)).embeddings


def probe(features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, test_labels: np.ndarray) -> float:
    """Test accuracy of logistic regression on standardised frozen features: a linear probe."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    return float(classifier.fit(features, labels).score(test_features, test_labels))


def probe_accuracy(method: Method, splits: Splits) -> float:
    """Test accuracy of a linear probe of the backbone's features, fitted to the training images."""
    seen, held_out = splits.train, splits.test
    return probe(embeddings(method, seen), seen.labels, embeddings(method, held_out), held_out.labels)


def _device(method: Method) -> torch.device:
    return next(method.parameters()).device


def pixels(images: ImageSet) -> tuple[Tensor, Tensor]:
    """Images as float rows in [0, 1] `[N, pixels]`, and their labels."""
    values = images.pixels(np.arange(len(images))).reshape(len(images), -1)
    return torch.from_numpy(values.astype(np.float32) / 255), torch.from_numpy(np.asarray(images.labels)).long()


def perceptron(inputs: int, outputs: int, width: int = 128) -> nn.Module:
    """A network with two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


def fit_tensors(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    epochs: int,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    optimizer: torch.optim.Optimizer | None = None,
) -> nn.Module:
    """Trains a network on tensors that fit into memory; the order is a function of torch's random state.

    The optimizer is Adam, unless one is given that goes on from an earlier call.
    """
    optimizer = optimizer or torch.optim.Adam(network.parameters(), lr=learning_rate)
    network.train()
    for _ in range(epochs):
        for index in torch.randperm(len(inputs), device=inputs.device).split(batch_size):
            optimizer.zero_grad()
            loss(network(inputs[index]), targets[index]).backward()
            optimizer.step()
    return network.eval()
