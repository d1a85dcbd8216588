"""Runs of several sizes in one run, whose network costs as much as one likes."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from repertoire.data import Batch, digest
from repertoire.errors import ConfigError, RunError, option
from repertoire.recipe import build
from repertoire.train._derived import batches_of, outputs_of, some, write_derived
from repertoire.train._resumed import begin, check_free, key_of
from repertoire.train._run import Run
from repertoire.weights import Stitched, stitch, train_stitched

__all__ = ["stitch_runs"]

_FITTED = 512
"""Training samples that stitching layers are fitted on."""
_STATISTICS = 2048
"""Training samples that batch statistics are measured on."""
_KEPT = ".stitching"
"""What follows the name of a run in that of the folder beside it, in which is kept what was done so far."""


def stitch_runs(
    runs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    epochs: int = 5,
    lr: float = 1e-3,
    distil: float = 0.5,
    device: str = "cpu",
    plugins: Sequence[str] = (),
    report: Callable[[str], None] | None = None,
) -> Run:
    """Joins runs of several sizes into one, whose network can be as cheap as the smallest and as good as the largest.

    See :func:`repertoire.weights.stitch` for the paper. All routes are trained together, on the training images and
    with the augmentation of the largest run, and then measured on the validation images.

    What was trained and measured so far lies in a folder `.NAME.stitching` beside `out`. If the process is killed, the
    same call goes on from there, and comes to the same weights, bit for bit, on the same machine with as many threads;
    the folder goes when the run is written. What lies there of other runs or options is discarded.

    Args:
        runs: directories of two runs or more, on the same data and of any backbones.
        out: directory of the new run, empty or not there yet; the first free `runs/NAME-stitched-1` if None.
        epochs: over the training images; each step trains one route.
        lr: learning rate at the beginning.
        distil: how much the largest network counts as a teacher beside the classes, from 0 to 1.
        device: where to compute.
        plugins: modules to import first, as in `Run`.
        report: is told what is gone on with, and what cannot be.

    Returns:
        The run; by itself it answers by the largest network. Its `info["stitched"]` has the `runs`, smallest first, the
        validation metric `key`, and the `routes` by rising cost: each with its `share` of the operations of the
        largest, the runs that it goes `from` and `into`, and its `value` of the metric.

    Raises:
        RunError: a run is not finished, has no classes, was compressed, or has other data or inputs than the others.
        ConfigError: fewer than two runs, `out` is taken, or the networks cannot be stitched; the message says why.

    Example:
        >>> import tempfile
        >>> from repertoire import train
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     options = {"epochs": 2, "quiet": True}
        ...     small = train.fit("digits", backbone="convnet:width=4,depth=3", out=f"{folder}/a", **options)
        ...     large = train.fit("digits", backbone="convnet:width=8,depth=3", out=f"{folder}/b", **options)
        ...     net = train.stitch_runs([small.path, large.path], f"{folder}/net", epochs=1)
        >>> [(route["from"], route["into"]) for route in net.info["stitched"]["routes"]]
        [(0, 0), (0, 1), (0, 1), (1, 1)]
    """
    if len(runs) < 2:
        raise ConfigError(f"stitching takes two runs or more, {len(runs)} given")
    check_free(out)
    opened = [Run(path, device=device, plugins=plugins) for path in runs]
    _check(opened)
    key = key_of(
        [epochs, lr, distil, *(run.config for run in opened)], opened, [run.model.state_dict() for run in opened]
    )
    directory, progress = begin(out, f"{opened[-1].path.name}-stitched", _KEPT, key, report)
    models = [copy.deepcopy(run.model) for run in opened]
    owners = {id(model): run for model, run in zip(models, opened, strict=True)}
    first = opened[0]
    splits, where, best = first.splits, first.device, first.task.best
    with progress.unless_refused():
        net = stitch(models, batches_of([some(splits.train, _FITTED)], where), progress=progress)
    ordered = [owners[id(model)] for model in net.anchors]
    largest = ordered[-1]
    loader = build(largest.config, splits, device=str(where), weights=False).loader(device=where)
    epoch = iter(range(2 * epochs + 2))

    def batches() -> Iterator[Batch]:
        return iter(loader.epoch(next(epoch)))

    statistics = some(splits.train, _STATISTICS)
    train_stitched(
        net,
        batches,
        epochs=epochs,
        lr=lr,
        distil=distil,
        seed=largest.config.seed,
        statistics=lambda: batches_of([statistics], where),
        progress=progress,
    )
    kept, values = net.route, []
    for number in range(len(net.routes)):

        def measured(number: int = number) -> list[float]:
            score = first.task.score(outputs_of(largest, net.use(number), splits.val, where))  # type: ignore[arg-type]
            return [best.rank(score)[0], score[best.key]]

        rank, value = progress.value(f"route-{number}", measured)
        net.scores.append(rank)
        values.append(value)
    net.use(kept)
    told = {"epochs": epochs, "lr": lr, "distil": distil}
    places = [str(run.path.resolve()) for run in ordered]
    made = {"runs": places, "key": best.key, "routes": _routes(net, values), **told}
    result = outputs_of(largest, net, splits.test, where)  # type: ignore[arg-type]
    of_largest = {f"val_{best.key}": values[kept]}
    made_run = write_derived(
        directory,
        largest,
        net.stored(networks=[_told(run) for run in ordered[:-1]]),
        result,
        {**largest.task.score(result), **of_largest},
        values={"epoch": 0, **of_largest},
        info={
            "notes": [f"Stitched of {len(ordered)} runs; all routes were trained together for {epochs} epochs."],
            "parameters": sum(parameter.numel() for parameter in net.parameters()),
            "stitched": made,
        },
    )
    progress.clear()
    return made_run


def _told(run: Run) -> dict[str, Any]:
    """What the network of a run is built from."""
    size = {"in_channels": run.facts.channels, "image_size": run.facts.size}
    return {"backbone": run.config.backbone, "head": run.config.head, "num_classes": run.model.head.num_classes, **size}


def _routes(net: Stitched, values: Sequence[float]) -> list[dict[str, Any]]:
    whole = net.routes[net.route].flops
    return [
        {"share": route.flops / whole, "from": route.front, "into": route.back, "value": value}
        for route, value in zip(net.routes, values, strict=True)
    ]


def _deeper(run: Run) -> str:
    """A network with several blocks for such inputs."""
    return "convnet:depth=3" if run.facts.modality == "images" else "mlp:depth=3"


def _check(runs: Sequence[Run]) -> None:
    """Refuses runs that cannot be stitched, with the reason."""
    first, *others = runs
    for run in runs:
        if run.info["status"] != "finished":
            raise RunError(f"{run.directory} is {run.info['status']}; finish it before it is stitched")
        if run.task.kind != "classes":
            raise RunError(f"{run.directory} predicts no classes, which stitched networks are trained by")
        if run.stored().form != "dense":
            raise RunError(f"{run.directory} was compressed or merged into another form; stitch what it was made of")
        if run.model.head.takes_maps:
            raise RunError(f"{run.directory} has the head {run.config.head}, which looks at maps")
        if len(run.model.backbone.blocks) < 2:
            raise RunError(
                f"{run.directory} has the backbone {run.config.backbone}, of one block or none, and networks are "
                f"stitched between blocks; train a deeper one, such as {option('backbone', _deeper(run))}"
            )
    for run in others:
        if run.classes != first.classes or run.facts.shape != first.facts.shape:
            raise RunError(f"{first.directory} and {run.directory} have other classes or images of another shape")
        if digest(run.splits) != digest(first.splits):
            raise RunError(
                f"{first.directory} and {run.directory} were trained on other parts of the data; train them on the "
                f"same (the same {option('seed')}, {option('val')} and {option('test')}, or folders train/, val/ and "
                "test/)"
            )
