"""Training through the stages of a protocol in memory, for claims about learning one thing after another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from repertoire import registry
from repertoire.claims._claim import Budget
from repertoire.claims._training import resolved
from repertoire.data import Samples, Splits
from repertoire.methods import Classifier, Method, Stage
from repertoire.protocols import Protocol, StageData, joined, measure, memory_of
from repertoire.recipe import StageStart, build, needs_of
from repertoire.tasks import Outputs
from repertoire.train import in_memory, outputs, probe_outputs

__all__ = ["before_forgetting", "class_means", "staged", "through"]

NEIGHBOURS_AMONG = 2000
"""Training samples that neighbours are searched among, evenly spaced over those of all stages so far."""


def staged(
    budget: Budget,
    seed: int,
    *,
    splits: Splits,
    method: str,
    protocol: str = "classes:step=2,memory=0",
    until: int | None = None,
    neighbours: bool | None = None,
    draws: bool = True,
    **fields: Any,
) -> dict[str, float]:
    """A method that goes through the stages of a protocol in memory, and what is left of them at the end.

    It is what :func:`repertoire.protocols.follow` does, without a directory and without validation. The order of the
    classes, the weights and the order of samples are those of the seed.

    Args:
        splits: the data.
        method: spec.
        protocol: spec; with the memory for methods that have a stream "replay".
        until: how many stages; all if None. Strengths are tuned on the first two.
        neighbours: whether the features are measured by their 20 nearest neighbours among the training samples of all
            stages so far; if None, where the method needs no labels. Otherwise the network's own answers count.
        draws: whether the method draws what is missing of images that are kept as patches; if not, the mean of what is
            known stands for it.
        fields: of the training configuration.

    Returns:
        What :func:`repertoire.protocols.measure` says of the matrix ("accuracy", "forgetting", "learning" and others);
        "within", the accuracy at the end where the stage of each sample is known; "chance" and "chance within", of a
        guess; "memory_bytes", of kept samples, and "state_bytes", of what the method keeps beside its network.
    """
    rows, inside, bytes_kept, kept = [], [], 0, 0
    for stage, trained, memory, seen in through(
        budget, seed, splits=splits, method=method, protocol=protocol, until=until, draws=draws, **fields
    ):
        found = [outputs(trained.model, samples) for samples in stage.evaluate.values()]
        by_features = trained.needs.labels != "required" if neighbours is None else neighbours
        pairs = [_right(trained, each, seen if by_features else None, len(stage.classes)) for each in found]
        rows.append([pair[0] for pair in pairs])
        inside = [pair[1] for pair in pairs]
        bytes_kept = 0 if memory is None else memory.nbytes
        own = {name: value for name, value in trained.state_dict().items() if not name.startswith("model.")}
        kept = sum(value.numel() * value.element_size() for value in own.values())
    matrix = np.full((len(rows), len(rows)), np.nan)
    for t, row in enumerate(rows):
        matrix[t, : t + 1] = row[: t + 1]
    last = list(stage.evaluate.values())
    return {
        **measure(matrix),
        "within": float(np.mean(inside)),
        "chance": 1 / len(stage.classes),
        "chance within": float(np.mean([1 / len(np.unique(samples.labels)) for samples in last])),
        "memory_bytes": float(bytes_kept),
        "state_bytes": float(kept),
    }


def through(
    budget: Budget,
    seed: int,
    *,
    splits: Splits,
    method: str,
    protocol: str | Protocol,
    until: int | None = None,
    draws: bool = True,
    **fields: Any,
) -> Any:
    """After each stage: its data, the trained method, the memory, which has not looked at the stage yet (None where
    the method asks for none), and the training samples of all stages so far."""
    made = registry.build("protocols", protocol) if isinstance(protocol, str) else protocol
    stages: Sequence[StageData] = list(made.stages(splits, seed))[:until]
    config = resolved(stages[0].splits(splits), method=method, seed=seed, device=budget.device, **fields)
    if config.tune == "auto":
        config = config.model_copy(update={"tune": "all"})
    memory, state, known, trained = None, None, 0, None
    if "replay" in needs_of(config).streams:
        memory = memory_of(config, made.memory, made.keep, made.store, made.share, lambda: stages[0].splits(splits))
    for t, stage in enumerate(stages):
        about = Stage(t, len(stages), stage.classes, stage.new, len(stage.train), config.epochs)
        data = stage.splits(
            splits, None if memory is None else memory.recall(partial(_given, trained) if draws else None)
        )
        built = build(config, data, device=config.device, stage_start=StageStart(about, state, known))
        trained = in_memory(built, validate=False).method.eval()
        state = {name: value.detach().clone() for name, value in trained.state_dict().items()}
        known = len(stage.classes)
        yield stage, trained, memory, joined([replace(each.train, classes=stage.classes) for each in stages[: t + 1]])
        if memory is not None:
            memory.update(stage.train, partial(_embedded, trained.model), partial(_given, trained))


def class_means(splits: Splits, seed: int, protocol: str, until: int | None = None) -> dict[str, float]:
    """What the nearest class mean of the inputs scores in the stages of a protocol: it trains nothing and forgets
    nothing, which makes it the least that a method with a memory, or on frozen features, must beat.

    Inputs are rows of unit length: images by their pixels. Means are gathered stage by stage.

    Args:
        splits: the data.
        seed, protocol, until: as of :func:`staged`.

    Returns:
        What :func:`repertoire.protocols.measure` says of the matrix, and "within", the accuracy at the end where the
        stage of each sample is known.
    """
    made: Protocol = registry.build("protocols", protocol)
    stages: Sequence[StageData] = list(made.stages(splits, seed))[:until]
    classes = len(stages[-1].classes)
    sums = np.zeros((classes, _unit(stages[0].train.subset(np.arange(1))).shape[1]))
    counts = np.zeros(classes)
    matrix = np.full((len(stages), len(stages)), np.nan)
    inside: list[float] = []
    for t, stage in enumerate(stages):
        np.add.at(sums, stage.train.labels, _unit(stage.train))
        counts += np.bincount(stage.train.labels, minlength=classes)
        known = np.flatnonzero(counts)
        means = sums[known] / counts[known, None]
        inside = []
        for i, samples in enumerate(stage.evaluate.values()):
            near = 2 * _unit(samples) @ means.T - np.square(means).sum(1)
            own = np.isin(known, samples.labels)
            matrix[t, i] = (known[near.argmax(1)] == samples.labels).mean()
            inside.append((known[own][near[:, own].argmax(1)] == samples.labels).mean())
    return {**measure(matrix), "within": float(np.mean(inside))}


def before_forgetting(
    arms: Iterable[Mapping[str, float]], means: Mapping[str, float], least: float, figure: str = "learning"
) -> float:
    """The trivial answer of a claim about forgetting, where methods may well end below what nothing can forget.

    Args:
        arms: what :func:`staged` gave for each arm that must have learned.
        means: what :func:`class_means` gave.
        least: what the arms must beat in the end.
        figure: by which they must have learned: "learning", how well each stage is known when it has just come, or
            "within", how well in the end where the stage is known.

    Returns:
        `least`; or 1, which nothing beats, where an arm knew less by that figure than class means of the inputs do:
        what was never learned cannot be forgotten.
    """
    return least if all(found[figure] > means[figure] for found in arms) else 1.0


def _unit(samples: Samples) -> np.ndarray:
    rows = samples.inputs(np.arange(len(samples))).reshape(len(samples), -1).astype(np.float64)
    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def _given(method: Method | None) -> Method:
    assert method is not None
    return method


def _embedded(model: Classifier, samples: Samples) -> np.ndarray:
    return outputs(model, samples).embeddings


def _right(method: Method, found: Outputs, seen: Samples | None, classes: int) -> tuple[float, float]:
    """Accuracy on samples of a stage among all classes, and among those of the stage."""
    own = np.unique(found.labels)
    scores, inside = found.logits, found.logits[:, own]
    if seen is not None:
        kept = np.unique(np.linspace(0, len(seen) - 1, min(NEIGHBOURS_AMONG, len(seen))).astype(int))
        bank = outputs(method.model, seen.subset(kept))
        part = np.isin(bank.labels, own)
        voters = Outputs(bank.logits[part], bank.embeddings[part], bank.labels[part])
        scores = probe_outputs("knn", bank, found, classes)[0].logits
        inside = probe_outputs("knn", voters, found, classes)[0].logits[:, own]
    right = (scores.argmax(1) == found.labels).mean(), (own[inside.argmax(1)] == found.labels).mean()
    return float(right[0]), float(right[1])
