"""Early exits of a run of local learning: reading them, and letting images leave by them."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from repertoire import registry
from repertoire.errors import CheckpointError, ConfigError, RunError, Unreadable, option
from repertoire.local import Exits
from repertoire.methods import Classifier
from repertoire.recipe import Facts, TrainConfig
from repertoire.rules import Rule
from repertoire.train import _checkpoint
from repertoire.train._answers import Answers
from repertoire.train._directory import RunDirectory

__all__ = ["leave_early", "read_exits", "said_at_exits"]

Batches = Iterator[tuple[np.ndarray, Tensor, list[Unreadable]]]
"""Positions and images of a batch at a time, and what could not be used."""


def read_exits(directory: RunDirectory, config: TrainConfig, facts: Facts, model: Classifier) -> Exits:
    """A classifier with an exit after each block, in evaluation mode.

    Args:
        directory, config, facts: of the run.
        model: its classifier with the best weights, which is copied.

    Raises:
        RunError: the run was trained by another rule. CheckpointError: its best weights are not whole.
    """
    rule: Rule = registry.build("rules", config.rule)
    with torch.random.fork_rng(devices=[]):
        exits = rule.exits(copy.deepcopy(model), torch.zeros(2, *facts.shape))
    if not isinstance(exits, Exits):
        raise RunError(
            f"{directory} has no early exits: it was trained by the rule {config.rule!r}. Exits are the auxiliary "
            f"networks of local learning: train with {option('rule', 'local:blocks=4')}"
        )
    state = _checkpoint.load(directory.best_file).part("local")
    try:
        exits.classifiers[:-1].load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"the exits in {directory} do not fit its configuration: {reason}") from None
    return exits.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def leave_early(exits: Exits, batches: Batches, confidence: float, device: torch.device) -> Iterator[Answers]:
    """What each image is told by the first exit that is sure enough of it.

    Args:
        exits: on the device.
        batches: the images.
        confidence: probability that lets an image leave, in [0, 1].
        device: where to compute.

    Raises:
        ConfigError: a confidence out of range.
    """
    if not 0 <= confidence <= 1:
        raise ConfigError(f"early_exit is {confidence}; expected a probability, from 0 to 1")
    for index, chunk, failed in batches:
        with torch.inference_mode():
            found, left = exits.predict(chunk.to(device), confidence)
        yield Answers(index, found.double().softmax(1).cpu().numpy(), left.cpu().numpy(), failed)


def said_at_exits(
    exits: Exits, batches: Batches, device: torch.device
) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, ...], list[Unreadable]]]:
    """The probabilities at every exit, of a batch at a time."""
    for index, chunk, failed in batches:
        with torch.inference_mode():
            found = [logits.double().softmax(1).cpu().numpy() for logits in exits(chunk.to(device))]
        yield index, tuple(found), failed
