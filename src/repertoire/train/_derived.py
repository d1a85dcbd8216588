"""Runs that were made of other runs and not trained: what is written of them, and how a stored network is read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repertoire.data import Batch, Loader, Samples
from repertoire.files import atomic_path, write_json
from repertoire.methods import Classifier
from repertoire.tasks import Outputs
from repertoire.train import _checkpoint
from repertoire.train._directory import RunDirectory
from repertoire.train._outputs import outputs
from repertoire.train._run import Run
from repertoire.weights import Stored

__all__ = ["batches_of", "mixed", "outputs_of", "some", "write_derived"]

_TRAINED = ("format", "reason", "head_only", "merged", "compressed", "stitched", "peak_memory", "images_per_second")
"""What run.json says of a run and not of those that are made of it."""


def some(samples: Samples, most: int) -> Samples:
    """At most so many, from all over the set; the same at every call."""
    if len(samples) <= most:
        return samples
    return samples.subset(np.random.default_rng(0).permutation(len(samples))[:most])


def mixed(samples: Samples) -> Samples:
    """All samples in an order that does not depend on their classes; the same at every call."""
    return samples.subset(np.random.default_rng(0).permutation(len(samples)))


def batches_of(samples: Sequence[Samples], device: torch.device, batch_size: int = 128) -> Iterator[Batch]:
    """All samples of several sets, one set after the other, as evaluation sees them."""
    for each in samples:
        yield from Loader(each, batch_size, shuffle=False, device=device).epoch(0)


def outputs_of(run: Run, model: Classifier, samples: Samples, device: torch.device) -> Outputs:
    """What a network says of samples, read as the run's are."""
    return outputs(model, samples, device=device, answer=run.reads_numbers)


@contextlib.contextmanager
def _all_or_nothing(directory: RunDirectory) -> Iterator[None]:
    """Takes back what was written of a run where it could not be written whole, so that its place is free again."""
    try:
        yield
    except BaseException:
        written = (directory.best_file, directory.predictions_file, directory.metrics_file, directory.config_file)
        for file in (*written, directory.info_file):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # there is none, or it holds something that is not ours
            directory.checkpoints.rmdir()
        raise


def write_derived(
    directory: RunDirectory,
    source: Run,
    weights: Mapping[str, Tensor] | Stored,
    result: Outputs,
    metrics: Mapping[str, Any],
    *,
    values: Mapping[str, Any],
    info: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
) -> Run:
    """Writes a run that was made of others.

    Args:
        directory: of the new run.
        source: the run whose configuration, facts and record it takes over.
        weights: of the network: a state, or a network in a form of its own.
        result: what it says of the test samples.
        metrics: of that.
        values: what the file of the best weights says beside them: epoch, and the validation metric.
        info: what run.json says that the source's does not.
        config: what is different in the configuration.
    """
    directory.check_free()
    with directory.hold(), _all_or_nothing(directory):
        directory.clear()
        # Exits belong to auxiliary networks, which are neither merged nor compressed.
        directory.write_config(source.config.model_copy(update={"rule": "backprop", **(config or {})}))
        told = dict(values)
        if isinstance(weights, Stored):
            told["stored"] = {"form": weights.form, "settings": dict(weights.settings)}
            tensors = {f"stored.{name}": value for name, value in weights.tensors.items()}
        else:
            tensors = {f"model.{name}": value for name, value in weights.items()}
        _checkpoint.save(directory.best_file, tensors, told)
        more: dict[str, Any] = {} if result.answers is None else {"answers": source.task.decode(result.answers)}
        features = result.embeddings.astype(np.float16)
        with atomic_path(directory.predictions_file) as temporary, open(temporary, "wb") as file:
            np.savez(file, logits=result.logits, embeddings=features, labels=result.labels, **more)
        write_json(directory.metrics_file, metrics)
        kept = {key: value for key, value in source.info.items() if key not in _TRAINED}
        directory.write_info({**kept, "status": "finished", "epochs": 0, "steps": 0, "seconds": 0.0, **info})
    return Run(directory.path, device=str(source.device), plugins=source.config.plugins)
