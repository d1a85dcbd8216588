"""Early exits of a run of local learning: reading them, and letting images leave by them."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repertoire import registry
from repertoire.data import Samples
from repertoire.errors import CheckpointError, ConfigError, RunError, Unreadable, option
from repertoire.local import Exits
from repertoire.methods import Classifier
from repertoire.recipe import Facts, TrainConfig
from repertoire.rules import Rule
from repertoire.tasks import exit_table
from repertoire.train import _checkpoint
from repertoire.train._answers import Answers
from repertoire.train._directory import RunDirectory
from repertoire.train._images import Images
from repertoire.train._labelled import Labelled
from repertoire.train._opened import Opened

__all__ = ["EarlyExits", "leave_early", "read_exits", "said_at_exits"]

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


class EarlyExits(Opened):
    """A run that images may leave early, where it has exits."""

    @functools.cached_property
    def _exits(self) -> dict[str, Exits]:
        """The classifier with its exits, by device."""
        return {}

    @property
    def exits(self) -> Exits:
        """The classifier with an exit after each block, in evaluation mode; for runs of local learning.

        Raises:
            RunError: the run was trained by another rule. CheckpointError: its best weights are not whole.
        """
        return self._exits_on(self._device)

    def _exits_on(self, device: torch.device) -> Exits:
        with self._lock:
            if str(device) not in self._exits:
                model = self._model_on(torch.device("cpu"))
                self._exits[str(device)] = read_exits(self.directory, self.config, self.facts, model).to(device)
            return self._exits[str(device)]

    def _leave_early(
        self, images: Images, confidence: float, device: str | torch.device | None, batch_size: int
    ) -> Iterator[Answers]:
        where = self._find(device)
        return leave_early(self._exits_on(where), self._batches(images, batch_size), confidence, where)

    def predict_early(
        self,
        images: Images,
        confidence: float,
        *,
        device: str | None = None,
        batch_size: int = 256,
        skip_unreadable: bool | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities, float64 `[N, K]`, and the exit that each image left by, int64 `[N]` from 0.

        Args:
            images, device, batch_size, skip_unreadable: as in `predict`; a skipped image has exit -1.
            confidence: probability that lets an image leave, in [0, 1].

        Raises:
            ConfigError: a confidence out of range. RunError: the run has no exits. And the errors of `predict`.
        """
        found = self._leave_early(images, confidence, device, batch_size)
        batches = ((a.index, (a.values, np.asarray(a.exits)), a.failed) for a in found)
        rows, _ = self._collect(batches, skip_unreadable)
        if not rows:
            return np.zeros((0, len(self.classes))), np.zeros(0, np.int64)
        return rows[0], rows[1]

    def exit_curve(
        self,
        images: Samples | str | os.PathLike[str] | None = None,
        *,
        device: str | None = None,
        batch_size: int = 256,
        skip_unreadable: bool | None = None,
    ) -> dict[str, Any]:
        """Accuracy of each exit, and accuracy against work over a range of confidences.

        Args:
            images, device, batch_size, skip_unreadable: as in `evaluate`.

        Returns:
            `exits`: for each exit its block from 1, the block's last unit, accuracy, and work relative to the network
            without exits. `early_exit`: for each confidence the accuracy, the mean work, and the share of images that
            leave by each exit.
        """
        samples = self.samples(images, skip_unreadable)
        where = self._find(device)
        exits = self._exits_on(where)
        source: Any = samples.paths if isinstance(samples, Labelled) else samples
        said = said_at_exits(exits, self._batches(source, batch_size), where)
        rows, usable = self._collect(said, skip_unreadable)
        labels = np.asarray(samples.labels)[usable]
        return exit_table(np.stack([row[usable] for row in rows]), labels, exits.names, exits.work)
