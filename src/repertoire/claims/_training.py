"""What the claims share: training in memory, and reading a representation out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from repertoire import registry
from repertoire.data import ImageSet, Loader, Splits
from repertoire.methods import Method
from repertoire.train import TrainConfig, make_config, outputs
from repertoire.train._build import build_classifier, build_loss, build_method, channel_statistics, resolve
from repertoire.train._optim import learning_rate, make_optimizer, schedule

__all__ = ["accuracy", "embeddings", "new_method", "optimise", "probe", "probe_accuracy", "resolved", "train"]


def resolved(splits: Splits, *, device: str = "cpu", **fields: Any) -> TrainConfig:
    """The configuration that `repertoire.train.fit` would use with these fields."""
    return resolve(make_config(data=splits.source, device=device, **fields), splits)


def new_method(splits: Splits, config: TrainConfig) -> Method:
    """A method with fresh weights, which are a function of the seed."""
    torch.manual_seed(config.seed)
    mean, std = channel_statistics(splits)
    model = build_classifier(
        config,
        num_classes=len(splits.classes),
        channels=splits.train.channels,
        size=max(splits.train.size),
        mean=mean,
        std=std,
    )
    method = build_method(config, model, build_loss(config, splits.train.counts()))
    return method.to(device=config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def optimise(method: Method, images: ImageSet, config: TrainConfig) -> Method:
    """Trains a method as `repertoire.train.fit` does, but without a directory, validation or checkpoints."""
    rule = registry.build("rules", config.rule)
    rule.setup(method, lambda module: make_optimizer(config, module), clip=config.clip)
    loader = Loader(
        images,
        config.batch_size,
        augmentation=registry.build("augmentations", config.augment),
        views=method.views,
        seed=config.seed,
        device=config.device,
        balanced=config.balanced,
    )
    method.train()
    step = 0
    for epoch in range(config.epochs):
        for batch in loader.epoch(epoch):
            rate = learning_rate(config) * schedule(config, step, loader.steps_per_epoch)
            for optimizer in rule.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
            rule.step(method, batch)
            step += 1
    return method.eval()


def train(splits: Splits, **fields: Any) -> Method:
    """A method trained on the training images; `fields` are those of the training configuration."""
    config = resolved(splits, **fields)
    return optimise(new_method(splits, config), splits.train, config)


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
