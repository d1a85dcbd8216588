"""Optimisers, the learning rate over a run, and the moving average of the weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from repertoire.methods import Method
from repertoire.train._config import TrainConfig

__all__ = ["WeightAverage", "learning_rate", "make_optimizer", "schedule", "weight_decay"]


def learning_rate(config: TrainConfig) -> float:
    """The peak learning rate: the one given, or the default in proportion to the batch (SGD) or its root (AdamW)."""
    if config.lr is not None:
        return config.lr
    ratio = config.batch_size / 128
    return 0.1 * ratio if config.optimizer == "sgd" else 0.001 * math.sqrt(ratio)


def weight_decay(config: TrainConfig) -> float:
    """The weight decay: the one given, or the usual one of the optimiser."""
    if config.weight_decay is not None:
        return config.weight_decay
    return 5e-4 if config.optimizer == "sgd" else 0.05


def make_optimizer(config: TrainConfig, module: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a module; parameters of one dimension (biases, norms) and of none are not decayed."""
    decay = weight_decay(config)
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    lr = learning_rate(config)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(config.momentum, 0.999))
    return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=config.momentum > 0)


def schedule(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, as a share of the peak: a function of the position alone, so that it needs no state.

    Linear warm-up over `warmup` epochs, at most a fifth of the run, then a half cosine to zero, or constant.
    """
    total = config.epochs * steps_per_epoch
    warmup = min(round(config.warmup * steps_per_epoch), total // 5)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


class WeightAverage:
    """Exponential moving average of a method's parameters; buffers are those of the last step.

    The decay grows to its final value as min(decay, (1 + t) / (10 + t)), so that short runs are not dominated by the
    random first weights.

    Args:
        method: what is averaged; `self.method` is the averaged copy.
        decay: share of the old average in the new one, in (0, 1).
    """

    def __init__(self, method: Method, decay: float) -> None:
        self.method = copy.deepcopy(method).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, method: Method, step: int) -> None:
        """Follows the weights after step number `step`, counted from 0."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.method.parameters()), list(method.parameters()), weight)
        for mine, theirs in zip(self.method.buffers(), method.buffers(), strict=True):
            mine.copy_(theirs)
