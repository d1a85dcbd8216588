"""Several runs into one: their weights merged, batch statistics measured anew, the result a run like any other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repertoire import registry
from repertoire.data import Loader, Samples, digest
from repertoire.errors import CheckpointError, ConfigError, RunError, option
from repertoire.files import atomic_path, write_json
from repertoire.tasks import Best
from repertoire.train import _checkpoint
from repertoire.train._directory import RunDirectory
from repertoire.train._run import Run
from repertoire.weights import Soup, refresh_batchnorm

__all__ = ["merge"]

_STARTS = ("zero", "pretrained")
"""Options of components that decide about their first weights and about nothing else."""

_STATISTICS = 2048
"""Training samples that batch statistics are measured on."""


def merge(
    runs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    operator: str = "greedy-soup",
    device: str = "cpu",
    plugins: Sequence[str] = (),
) -> Run:
    """Merges the weights of several runs into one run.

    The runs must be of one network on the same data, and are meant to have started from the same weights: from one
    pretrained network, or with `--start` or `--weights`. Batch normalisation is measured anew, on training samples.

    Args:
        runs: two directories of runs, or more.
        out: directory of the new run, empty or not there yet.
        operator: spec of a weight operator, such as "greedy-soup" or "uniform-soup".
        device: where to compute.
        plugins: modules to import first, as in `Run`.

    Returns:
        The run. Its `info["merged"]` says what it was made of: `operator`, `runs`, the validation metric `key` of each
        of them (`before`) and of the result (`after`), and the `ingredients` where the operator chose some.

    Raises:
        RunError: the runs have other classes, inputs or data, or samples of one's test are another's training.
        CheckpointError: their networks differ.
        ConfigError: fewer than two runs; or the result is worse than each of them, as it is when they did not start
            from the same weights.
    """
    if len(runs) < 2:
        raise ConfigError(f"merging takes two runs or more, {len(runs)} given")
    opened = [Run(path, device=device, plugins=plugins) for path in runs]
    first = opened[0]
    _check(opened)
    samples = first.splits
    best = first.task.best
    statistics = _some(samples.train)
    states = [{name: value.detach().clone() for name, value in run.model.state_dict().items()} for run in opened]
    model = first.model

    def measure(state: Mapping[str, Tensor]) -> dict[str, Any]:
        model.load_state_dict(dict(state))
        # A run by itself keeps the statistics that it was trained with.
        if not any(_same(state, one) for one in states):
            refresh_batchnorm(model, Loader(statistics, 256, shuffle=False, device=first.device).epoch(0))
        return first.evaluate(samples.val)

    def score(state: Mapping[str, Tensor]) -> float:
        return best.rank(measure(state))[0]

    try:
        merged = registry.build("weight-operators", operator, states=states, score=score)
    except CheckpointError as error:
        shown = ", ".join(f"state {number} is {run.directory}" for number, run in enumerate(opened))
        raise CheckpointError(f"{error} ({shown})") from None
    before = [measure(state)[best.key] for state in states]
    result = measure(merged)
    after, worst = result[best.key], min(before) if best.higher else max(before)
    if _worse(result, worst, best):
        raise ConfigError(
            f"the weights of {' and '.join(str(run.directory) for run in opened)} cannot be merged by {operator}: the "
            f"{best.says} of the result is {after:.3g}, and that of the worst of them {worst:.3g}. Merge runs that "
            f"started from the same weights ({option('start')}, {option('weights')}, or one pretrained network)"
        )
    made = {
        "operator": operator,
        "runs": [str(run.path.resolve()) for run in opened],
        "key": best.key,
        "before": before,
        "after": after,
        "ingredients": list(merged.ingredients) if isinstance(merged, Soup) else list(range(len(opened))),
    }
    return _write(RunDirectory(Path(out)), first, made)


def _same(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in state.items())


def _worse(result: Mapping[str, Any], worst: float, best: Best) -> bool:
    """Whether the result is worse than the worst of its ingredients, beyond what so few samples may say by chance."""
    interval = result.get(f"{best.key}_interval")
    if interval is not None:
        return bool(interval[1] < worst if best.higher else interval[0] > worst)
    after = result[best.key]
    return bool(after < worst - 0.1 * abs(worst) if best.higher else after > worst + 0.1 * abs(worst))


def _write(directory: RunDirectory, first: Run, made: dict[str, Any]) -> Run:
    """The run of the weights that `first.model` holds now."""
    directory.check_free()
    result = first.outputs(first.splits.test)
    metrics = {**first.task.score(result), f"val_{made['key']}": made["after"]}
    note = f"Merged from {len(made['runs'])} runs by {made['operator']}; nothing was trained."
    with directory.hold():
        directory.clear()
        # Exits belong to auxiliary networks, which are not merged.
        directory.write_config(first.config.model_copy(update={"rule": "backprop"}))
        weights = {f"model.{name}": value for name, value in first.model.state_dict().items()}
        _checkpoint.save(directory.best_file, weights, {"epoch": 0, f"val_{made['key']}": made["after"]})
        more: dict[str, Any] = {} if result.answers is None else {"answers": first.task.decode(result.answers)}
        features = result.embeddings.astype(np.float16)
        with atomic_path(directory.predictions_file) as temporary, open(temporary, "wb") as file:
            np.savez(file, logits=result.logits, embeddings=features, labels=result.labels, **more)
        write_json(directory.metrics_file, metrics)
        kept = {key: value for key, value in first.info.items() if key not in ("format", "reason", "head_only")}
        told = {"status": "finished", "notes": [note], "epochs": 0, "steps": 0, "seconds": 0.0, "merged": made}
        directory.write_info({**kept, **told})
    return Run(directory.path, device=str(first.device), plugins=first.config.plugins)


def _check(runs: Sequence[Run]) -> None:
    """Refuses runs that cannot be merged, with the reason."""
    first, *others = runs
    if first.task.kind == "none":
        raise RunError(f"{first.directory} was trained without targets, so nothing says whether merging it helps")
    held_out = [first.splits.val.keys, first.splits.test.keys]
    for run in others:
        _compare(first, run, ("predicts", "takes inputs of shape", "has the backbone", "has the head"))
        if digest(run.splits) != digest(first.splits):
            seen = int(sum(np.isin(keys, run.splits.train.keys).sum() for keys in held_out))
            if seen:
                raise RunError(
                    f"{run.directory} was trained on {seen} of the samples that {first.directory} holds out, so "
                    f"nothing could say how good the result is; train them on the same parts (the same "
                    f"{option('seed')}, "
                    f"{option('val')} and {option('test')}, or folders train/, val/ and test/)"
                )
        _compare(first, run, ("subtracts the mean", "divides by"))


def _compare(first: Run, other: Run, what: Sequence[str]) -> None:
    ours, theirs = (_described(run) for run in (first, other))
    for name in what:
        if ours[name] != theirs[name]:
            raise RunError(
                f"{first.directory} and {other.directory} differ: one {name} {ours[name]}, the other {theirs[name]}"
            )


def _described(run: Run) -> dict[str, Any]:
    return {
        "predicts": _task(run),
        "takes inputs of shape": run.facts.shape,
        "has the backbone": _network(run.config.backbone),
        "has the head": _network(run.config.head),
        "subtracts the mean": [round(float(value), 4) for value in run.facts.mean],
        "divides by": [round(float(value), 4) for value in run.facts.std],
    }


def _network(spec: str) -> str:
    """A spec without what only says where the weights start."""
    parsed = registry.parse(spec)
    kept = [*map(str, parsed.args), *(f"{k}={v}" for k, v in parsed.kwargs.items() if k not in _STARTS)]
    return parsed.name + (":" if kept else "") + ",".join(kept)


def _task(run: Run) -> str:
    names = run.classes
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''} ({len(names)} {run.task.kind})"


def _some(samples: Samples) -> Samples:
    """As many as batch statistics need, from all over the set."""
    if len(samples) <= _STATISTICS:
        return samples
    return samples.subset(np.random.default_rng(0).permutation(len(samples))[:_STATISTICS])
