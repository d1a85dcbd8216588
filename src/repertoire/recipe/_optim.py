"""Optimisers, the learning rate over a run, and the moving average of the weights."""

from __future__ import annotations

import copy
import math
from itertools import compress

import torch
from torch import Tensor, nn

from repertoire.backbones import Backbone
from repertoire.methods import Method
from repertoire.recipe._config import TrainConfig
from repertoire.recipe._parts import is_pretrained, only_head

__all__ = ["WeightAverage", "learning_rate", "make_optimizer", "schedule", "weight_decay"]


def learning_rate(config: TrainConfig) -> float:
    """The peak learning rate: the one given, or a default that knows the optimiser, the batch, and what learns.

    In proportion to the batch (SGD), or to its root (AdamW): 0.1 and 0.001 for 128 images from random weights; a tenth
    of that (half, AdamW) where all of a pretrained network learns, and more where only a head does. What an adapter
    adds begins at nothing, and learns at the full rate.
    """
    if config.lr is not None:
        return config.lr
    ratio = config.batch_size / 128
    share = 1.0
    if only_head(config):
        share = 10.0
    elif config.tune.startswith("last:"):
        share = 0.5
    elif is_pretrained(config) and config.adapter is None:
        share = 0.1 if config.optimizer == "sgd" else 0.5
    return share * (0.1 * ratio if config.optimizer == "sgd" else 0.001 * math.sqrt(ratio))


def weight_decay(config: TrainConfig) -> float:
    """The weight decay: the one given, or the usual one of the optimiser."""
    if config.weight_decay is not None:
        return config.weight_decay
    if config.optimizer == "sgd":
        return 5e-4
    # A head on frozen features has little to learn from, and nothing else to hold it back.
    return 0.5 if only_head(config) else 0.05


def make_optimizer(config: TrainConfig, module: nn.Module, whole: nn.Module | None = None) -> torch.optim.Optimizer:
    """The optimiser of a module.

    Parameters of one dimension (biases, norms) and of none are not decayed. Where weights are pretrained, the learning
    rate of each stage of the backbone is `layer_decay` times that of the next one, and what comes after the backbone
    learns at the full rate: Clark et al., *ELECTRA* (2020).

    Args:
        config: of the run.
        module: what is to learn.
        whole: what the module is a piece of, where a rule trains pieces: a few blocks do not tell how far from the
            images they are. The module itself if None.
    """
    decay, lr = weight_decay(config), learning_rate(config)
    rates = _rates(config, module if whole is None else whole)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            key = (rates.get(id(parameter), 1.0), decay if parameter.ndim > 1 else 0.0)
            groups.setdefault(key, []).append(parameter)
    # Decayed before not decayed, and the full rate first, so that the order depends on nothing else.
    ordered = [
        {"params": groups[key], "weight_decay": key[1], "lr": lr * key[0]}
        for key in sorted(groups, key=lambda key: (-key[0], -key[1]))
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(ordered, lr=lr, betas=(config.momentum, 0.999))
    return torch.optim.SGD(ordered, lr=lr, momentum=config.momentum, nesterov=config.momentum > 0)


def _rates(config: TrainConfig, module: nn.Module) -> dict[int, float]:
    """The share of the learning rate that each parameter of a pretrained backbone gets, by its identity."""
    if (
        config.layer_decay == 1
        or config.adapter is not None
        or config.tune not in ("all", "auto")
        or not is_pretrained(config)
    ):
        return {}
    rates: dict[int, float] = {}
    for backbone in (found for found in module.modules() if isinstance(found, Backbone)):
        parameters = dict(backbone.named_parameters())
        groups = backbone.groups()
        for depth, names in enumerate(reversed(groups), start=1):
            rates.update({id(parameters[name]): config.layer_decay**depth for name in names})
    return rates


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
        # Of a network of which only a head learns, the average of the rest is the rest.
        self._moving = [
            parameter.requires_grad or not name.startswith("model.") for name, parameter in method.named_parameters()
        ]

    @torch.no_grad()
    def update(self, method: Method, step: int) -> None:
        """Follows the weights after step number `step`, counted from 0."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._parameters(self.method), self._parameters(method), weight)
        for mine, theirs in zip(self.method.buffers(), method.buffers(), strict=True):
            mine.copy_(theirs)

    def _parameters(self, method: Method) -> list[Tensor]:
        return list(compress(method.parameters(), self._moving))
