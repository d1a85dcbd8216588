"""A run in fewer bytes: its network compressed, opened again, and measured as it will answer."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from repertoire import registry
from repertoire.errors import RunError
from repertoire.methods import Classifier
from repertoire.train._derived import batches_of, outputs_of, write_derived
from repertoire.train._directory import RunDirectory
from repertoire.train._run import Run
from repertoire.weights import Stored

__all__ = ["compress"]


def compress(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    by: str = "half",
    device: str = "cpu",
    plugins: Sequence[str] = (),
) -> Run:
    """Writes a run whose network takes fewer bytes, or fewer operations, than that of another one.

    What is measured is the network that comes out of the file, on the samples that the run was judged on.

    Args:
        run: directory of the run to compress; it stays as it was.
        out: directory of the new run, empty or not there yet.
        by: spec of a compressor, such as "half" or "codebook:bits=3".
        device: where to compute.
        plugins: modules to import first, as in `Run`.

    Returns:
        The run. Its `info["compressed"]` says what became of it: `by`, `run`, the `form` it is stored in, `bytes`
        before and after (of the weights, with all that is needed to read them), and the metric `key` before and after,
        on validation (`val`) and test samples (`test`).

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
    directory = RunDirectory(Path(out))
    directory.check_free()
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
    splits, best, where = opened.splits, opened.task.best, opened.device
    model = copy.deepcopy(opened.model)

    def measure(network: nn.Module) -> dict[str, Any]:
        return opened.task.score(outputs_of(opened, cast(Classifier, network), splits.val, where))

    stored: Stored = registry.build(
        "compressors",
        by,
        model=model,
        batches=lambda: batches_of([splits.train], where),
        score=lambda network: best.rank(measure(network))[0],
    )
    with torch.random.fork_rng(devices=[]):
        built = cast(Classifier, stored.build(copy.deepcopy(opened.model)).to(where).eval())
    result = outputs_of(opened, built, splits.test, where)
    val = [measure(opened.model), measure(built)]
    test = [opened.evaluate(splits.test), opened.task.score(result)]
    key = best.key
    made = {
        "by": by,
        "run": str(opened.path.resolve()),
        "form": stored.form,
        "bytes": [Stored("dense", opened.model.state_dict()).bytes, stored.bytes],
        "key": key,
        "val": [each[key] for each in val],
        "test": [each[key] for each in test],
    }
    return write_derived(
        directory,
        opened,
        stored,
        result,
        {**test[1], f"val_{key}": val[1][key]},
        values={"epoch": 0, f"val_{key}": val[1][key]},
        info={"notes": [f"Compressed by {by} from {opened.directory}."], "compressed": made},
    )
