"""A run in fewer bytes: its network compressed, opened again, and measured as it will answer."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from repertoire import registry
from repertoire.compress import multiplications
from repertoire.data import Samples
from repertoire.errors import ConfigError, RunError, option
from repertoire.methods import Classifier
from repertoire.train._derived import batches_of, outputs_of, some, write_derived
from repertoire.train._directory import RunDirectory, next_free
from repertoire.train._origin import origin_of, put_back, weights_at
from repertoire.train._run import Run
from repertoire.weights import Stored, refresh_batchnorm

__all__ = ["compress"]

STATISTICS = 2048
"""Training samples that batch statistics are measured on."""

COUNTED = 256
"""Test samples that multiplications are counted on, where they differ from one to the next."""


def compress(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    by: str = "half",
    base: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    plugins: Sequence[str] = (),
) -> Run:
    """Writes a run whose network takes fewer bytes, or fewer operations, than that of another one.

    Batch normalisation is measured anew on training samples, and stays so where validation samples say that it helps.
    What is measured is the network that comes out of the file, on the samples that the run was judged on.

    Args:
        run: directory of the run to compress; it stays as it was.
        out: directory of the new run, empty or not there yet; the first free `runs/NAME-small-1` if None.
        by: spec of a compressor, such as "half" or "codebook:bits=3".
        base: the run that it started from, for compressors of what was changed since ("ternary"). Found out where it
            started from a pretrained network or with `--start`. The new run can be opened as long as this one is there.
        device: where to compute.
        plugins: modules to import first, as in `Run`.

    Returns:
        The run. Its `info["compressed"]` says what became of it: `by`, `run`, the `form` it is stored in, `bytes`
        before and after (of the weights, with all that is needed to read them), `multiplications` for an image before
        and after, and the metric `key` before and after, on validation (`val`) and test samples (`test`). Where the
        compressor needs a base, `origin` says which it is.

    Raises:
        RunError: the run is not finished, or was compressed already.
        ConfigError: `out` is taken, or the compressor cannot do this network; the message says why.

    Example:
        >>> import tempfile
        >>> from repertoire import train
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = train.fit("digits", backbone="convnet:width=8,depth=2", epochs=2, out=f"{folder}/a", quiet=True)
        ...     small = train.compress(run.path, f"{folder}/b", by="half")
        >>> before, after = small.info["compressed"]["bytes"]
        >>> after < 0.7 * before
        True
    """
    if out is not None:
        RunDirectory(Path(out)).check_free()
    entry = registry.get("compressors", registry.parse(by).name)
    opened = Run(run, device=device, plugins=plugins)
    if opened.info["status"] != "finished":
        raise RunError(f"{opened.directory} is {opened.info['status']}; finish it before it is compressed")
    if opened.task.kind == "none":
        raise RunError(f"{opened.directory} was trained without targets, so nothing says what compression costs")
    form = opened.stored().form
    if form != "dense":
        raise RunError(
            f"{opened.directory} is stored in the form {form!r} already; compress the run that it was made of"
        )
    origin = origin_of([opened], base) if "base" in registry.options(entry.factory) else None
    if base is not None and origin is None:
        raise ConfigError(f"compressor {entry.name!r} does not look at where a run started; leave {option('base')} out")
    directory = RunDirectory(Path(out) if out is not None else next_free(f"{opened.path.name}-small"))
    splits, best, where = opened.splits, opened.task.best, opened.device
    model = copy.deepcopy(opened.model)
    context: dict[str, Any] = {} if origin is None else {"base": weights_at(origin, opened)}

    def measure(network: nn.Module) -> dict[str, Any]:
        return opened.task.score(outputs_of(opened, cast(Classifier, network), splits.val, where))

    stored: Stored = registry.build(
        "compressors",
        by,
        model=model,
        batches=lambda: batches_of([splits.train], where),
        score=lambda network: best.rank(measure(network))[0],
        **context,
    )
    start = copy.deepcopy(opened.model)
    if origin is not None:
        put_back(origin, opened, start)

    def build(stored: Stored) -> Classifier:
        with torch.random.fork_rng(devices=[]):
            return cast(Classifier, stored.build(copy.deepcopy(start)).to(where).eval())

    built = build(stored)
    anew = _with_statistics(stored, copy.deepcopy(built), some(splits.train, STATISTICS), where)
    # Other weights have other statistics; of few samples, those that were there may be better all the same.
    if anew is not None and best.rank(measure(other := build(anew))) > best.rank(measure(built)):
        stored, built = anew, other
    result = outputs_of(opened, built, splits.test, where)
    val = [measure(opened.model), measure(built)]
    test = [opened.evaluate(splits.test), opened.task.score(result)]
    key = best.key
    seen = some(splits.test, COUNTED)
    operations = [multiplications(each, lambda: batches_of([seen], where)) for each in (opened.model, built)]
    made: dict[str, Any] = {
        "by": by,
        "run": str(opened.path.resolve()),
        "form": stored.form,
        "bytes": [Stored("dense", opened.model.state_dict()).bytes, stored.bytes],
        "multiplications": operations,
        "key": key,
        "val": [each[key] for each in val],
        "test": [each[key] for each in test],
    }
    if origin is not None:
        made["origin"] = origin
    return write_derived(
        directory,
        opened,
        stored,
        result,
        {**test[1], f"val_{key}": val[1][key]},
        values={"epoch": 0, f"val_{key}": val[1][key]},
        info={"notes": [f"Compressed by {by} from {opened.directory}."], "compressed": made},
    )


def _with_statistics(stored: Stored, network: nn.Module, samples: Samples, device: torch.device) -> Stored | None:
    """The stored network with batch statistics measured anew; None where it has none, or keeps them in another form."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    refresh_batchnorm(network, batches_of([samples], device, 256))
    changed = {n: v for n, v in network.state_dict().items() if not torch.equal(v, before[n])}
    if not changed or any(n not in stored.tensors or stored.tensors[n].shape != v.shape for n, v in changed.items()):
        return None
    fresh = {name: value.to(stored.tensors[name].dtype).cpu() for name, value in changed.items()}
    return replace(stored, tensors={**stored.tensors, **fresh})
