"""A run in fewer bytes: its network compressed, opened again, and measured as it will answer."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from repertoire import registry
from repertoire.compress import multiplications
from repertoire.data import Samples
from repertoire.errors import ConfigError, RunError, option
from repertoire.methods import Classifier
from repertoire.train._derived import batches_of, outputs_of, some, write_derived
from repertoire.train._origin import origin_of, put_back, weights_at
from repertoire.train._resumed import begin, check_free, key_of
from repertoire.train._run import Run
from repertoire.weights import Progress, Stored, refresh_batchnorm

__all__ = ["compress"]

STATISTICS = 2048
"""Training samples that batch statistics are measured on."""

_KEPT = ".compressing"
"""What follows the name of a run in that of the folder beside it, in which is kept what was done so far."""

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
    report: Callable[[str], None] | None = None,
) -> Run:
    """Writes a run whose network takes fewer bytes, or fewer operations, than that of another one.

    Batch normalisation is measured anew on training samples, and stays so where validation samples say that it helps.
    What is measured is the network that comes out of the file, on the samples that the run was judged on.

    What was learned and measured so far lies in a folder `.NAME.compressing` beside `out`. If the process is killed,
    the same call goes on from there, and comes to the same file, bit for bit, on the same machine with as many threads;
    the folder goes when the run is written. What lies there of another compression is discarded.

    Args:
        run: directory of the run to compress; it stays as it was.
        out: directory of the new run, empty or not there yet; the first free `runs/NAME-small-1` if None.
        by: spec of a compressor, such as "half" or "codebook:bits=3".
        base: the run that it started from, for compressors of what was changed since ("ternary"). Found out where it
            started from a pretrained network or with `--start`. The new run can be opened as long as this one is there.
        device: where to compute.
        plugins: modules to import first, as in `Run`.
        report: is told what is gone on with, and what cannot be.

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
    check_free(out)
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
    weights = {} if origin is None else weights_at(origin, opened)
    key = key_of([by, entry.name], [opened], [opened.model.state_dict(), weights])
    directory, progress = begin(out, f"{opened.path.name}-small", _KEPT, key, report)
    splits, best, where = opened.splits, opened.task.best, opened.device
    model = copy.deepcopy(opened.model)
    context: dict[str, Any] = {} if origin is None else {"base": weights}

    def measure(network: nn.Module) -> dict[str, Any]:
        return opened.task.score(outputs_of(opened, cast(Classifier, network), splits.val, where))

    def measured(name: str, network: nn.Module) -> dict[str, Any]:
        """How good a network is on validation samples: the value, and what values are compared by."""

        def found() -> dict[str, Any]:
            score = measure(network)
            return {"value": score[best.key], "rank": list(best.rank(score))}

        return progress.value(name, found)

    def small() -> Stored:
        found: Stored = registry.build(
            "compressors",
            by,
            model=model,
            batches=lambda: batches_of([splits.train], where),
            score=progress.scored(lambda network: best.rank(measure(network))[0]),
            progress=progress,
            **context,
        )
        return found

    with progress.unless_refused():
        stored = _kept(progress, small, where)
    start = copy.deepcopy(opened.model)
    if origin is not None:
        put_back(origin, opened, start)

    def build(stored: Stored) -> Classifier:
        with torch.random.fork_rng(devices=[]):
            return cast(Classifier, stored.build(copy.deepcopy(start)).to(where).eval())

    built = build(stored)
    anew = _with_statistics(stored, copy.deepcopy(built), some(splits.train, STATISTICS), where)
    # Other weights have other statistics; of few samples, those that were there may be better all the same.
    after = measured("as-it-is", built)
    if anew is not None:
        other = build(anew)
        better = measured("statistics-anew", other)
        if better["rank"] > after["rank"]:
            stored, built, after = anew, other, better
    result = outputs_of(opened, built, splits.test, where)
    val = [measured("before", opened.model), after]
    test = [progress.value("test-before", lambda: opened.evaluate(splits.test)[best.key]), opened.task.score(result)]
    seen = some(splits.test, COUNTED)
    operations = [multiplications(each, lambda: batches_of([seen], where)) for each in (opened.model, built)]
    made: dict[str, Any] = {
        "by": by,
        "run": str(opened.path.resolve()),
        "form": stored.form,
        "bytes": [Stored("dense", opened.model.state_dict()).bytes, stored.bytes],
        "multiplications": operations,
        "key": best.key,
        "val": [each["value"] for each in val],
        "test": [test[0], test[1][best.key]],
    }
    if origin is not None:
        made["origin"] = origin
    value = {f"val_{best.key}": after["value"]}
    run_made = write_derived(
        directory,
        opened,
        stored,
        result,
        {**test[1], **value},
        values={"epoch": 0, **value},
        info={"notes": [f"Compressed by {by} from {opened.directory}."], "compressed": made},
    )
    progress.clear()
    return run_made


def _kept(progress: Progress, make: Callable[[], Stored], device: torch.device) -> Stored:
    """The compressed network, which is not compressed again where all that is left is to measure it."""
    if (kept := progress.load("compressed")) is not None:
        tensors = {name: value.to(device) for name, value in kept.tensors.items()}
        return Stored(kept.told["form"], tensors, kept.told["settings"])
    stored = make()
    progress.save("compressed", stored.tensors, {"form": stored.form, "settings": dict(stored.settings)})
    return stored


def _with_statistics(stored: Stored, network: nn.Module, samples: Samples, device: torch.device) -> Stored | None:
    """The stored network with batch statistics measured anew; None where it has none, or keeps them in another form."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    refresh_batchnorm(network, batches_of([samples], device, 256))
    changed = {n: v for n, v in network.state_dict().items() if not torch.equal(v, before[n])}
    if not changed or any(n not in stored.tensors or stored.tensors[n].shape != v.shape for n, v in changed.items()):
        return None
    fresh = {name: value.to(stored.tensors[name].dtype).cpu() for name, value in changed.items()}
    return replace(stored, tensors={**stored.tensors, **fresh})
