"""Several runs into one: their weights merged, batch statistics measured anew, the result a run like any other."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from repertoire import registry
from repertoire.data import Batch, Loader, Samples, Splits, digest
from repertoire.errors import CheckpointError, ConfigError, option
from repertoire.losses import LogitsLoss
from repertoire.methods import Classifier
from repertoire.recipe import Facts, build_classifier, load_splits
from repertoire.tasks import Best, Outputs
from repertoire.train._derived import batches_of, mixed, outputs_of, some, write_derived
from repertoire.train._directory import RunDirectory
from repertoire.train._mergeable import check_data, check_heads, check_runs
from repertoire.train._origin import origin_of, weights_at
from repertoire.train._resumed import begin, check_free, key_of
from repertoire.train._run import Run
from repertoire.weights import Soup, Stored, loss_barrier, refresh_batchnorm

__all__ = ["merge"]

_STATISTICS = 2048
"""Training samples that batch statistics are measured on."""

_KEPT = ".merging"
"""What follows the name of a run in that of the folder beside it, in which a merge keeps what it has done so far."""

_NEVER = -1e4
"""Logit of a class that a run does not know."""

State = Mapping[str, Tensor]


def merge(
    runs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    operator: str = "greedy-soup",
    base: str | os.PathLike[str] | None = None,
    data: str | None = None,
    device: str = "cpu",
    plugins: Sequence[str] = (),
    report: Callable[[str], None] | None = None,
) -> Run:
    """Merges the weights of several runs into one run.

    The runs must be of one network, and most operators want them to have started from the same weights: from one
    pretrained network, or with `--start` or `--weights`. Batch normalisation is measured anew, on training samples.

    Runs may have been trained on other classes: the result then knows the classes of all. Their backbones are merged,
    and the rows of their heads are put together; a class that several know has the mean of its rows. What the result
    is worth is measured on `data`, which holds all of the classes.

    What a merge has learned or measured so far lies in a folder `.NAME.merging` beside `out`. If it is killed, the same
    call goes on from there, and comes to the same weights, bit for bit, on the same machine with as many threads; the
    folder goes when the run is written. What lies there of another merge is discarded.

    Args:
        runs: two directories of runs, or more.
        out: directory of the new run, empty or not there yet; the first free `runs/NAME-merged-1` if None.
        operator: spec of a weight operator, such as "greedy-soup" or "uniform-soup".
        base: the run that all of them started from, for operators on what was changed since; found out where they
            started from one pretrained network or with `--start`. Where the first of three runs or more is the one that
            all others started from, it is the base, and not merged with them.
        data: images to measure the result on, and to merge by where the operator looks at any; those of the runs if
            None. Needed where the runs have other classes.
        device: where to compute.
        plugins: modules to import first, as in `Run`.
        report: is told how long it will take, by operators that may take minutes, and what is gone on with.

    Returns:
        The run. Its `info["merged"]` says what it was made of: `operator`, `runs`, the validation metric `key` of each
        of them (`before`) and of the result (`after`), and the `ingredients` where the operator chose some. Of runs of
        other classes, `parts` has a row for each: accuracy on the test samples of its classes, of the run `alone` and
        `merged`, where only these classes are asked for.

    Raises:
        RunError: the runs have other inputs or data, or samples of one's test are another's training.
        CheckpointError: their networks differ.
        ConfigError: fewer than two runs; `out` is taken; or the result is worse than each of them, as it is when they
            did not start from the same weights.
    """
    if len(runs) < 2:
        raise ConfigError(f"merging takes two runs or more, {len(runs)} given")
    check_free(out)
    entry = registry.get("weight-operators", registry.parse(operator).name)
    based = "base" in registry.options(entry.factory)
    if base is not None and not based:
        raise ConfigError(f"{entry.name!r} does not look at where the runs started; leave {option('base')} out")
    opened = [Run(path, device=device, plugins=plugins) for path in runs]
    if based and base is None and _begin_in_first(opened):
        base, opened = runs[0], opened[1:]
    merging = _Merging(opened, base, data)
    context: dict[str, Any] = {
        "network": merging.network,
        "batches": merging.batches,
        "report": report,
    }
    if based:
        context["base"] = merging.base()
    key = merging.key(operator, context.get("base", {}))
    directory, progress = begin(out, f"{opened[0].path.name}-merged", _KEPT, key, report)
    context |= {"progress": progress, "score": progress.scored(merging.score)}
    try:
        with progress.unless_refused():
            merged = registry.build("weight-operators", operator, states=merging.states, **context)
    except CheckpointError as error:
        shown = ", ".join(f"state {number} is {run.directory}" for number, run in enumerate(opened))
        raise CheckpointError(f"{error} ({shown})") from None
    best = merging.task.best
    before = [
        progress.value(f"alone-{number}", partial(merging.alone_by, number, best.key)) for number in range(len(opened))
    ]
    model, weights = merging.finish(merged)
    score = merging.measure(model)
    after, worst = score[best.key], min(before) if best.higher else max(before)
    if _worse(score, worst, best):
        progress.clear()
        raise ConfigError(
            f"the weights of {' and '.join(str(run.directory) for run in opened)} cannot be merged by {operator}: the "
            f"{best.says} of the result is {after:.3g}, that of the worst of them {worst:.3g}, and halfway between the "
            f"first two the loss is {merging.barrier():.3g} above the line between theirs. Merge runs that started "
            f"from the same weights ({option('start')}, {option('weights')}, or one pretrained network), or match "
            "their units first (permute-least-squares)"
        )
    made: dict[str, Any] = {
        "operator": operator,
        "runs": [str(run.path.resolve()) for run in opened],
        "key": best.key,
        "before": before,
        "after": after,
        "ingredients": list(merged.ingredients) if isinstance(merged, Soup) else list(range(len(opened))),
    }
    if data is not None:
        made["data"] = data
    if base is not None:
        made["base"] = str(Path(base).resolve())
    result = merging.outputs(model, merging.splits.test)
    if merging.joined:
        made["parts"] = merging.parts(result)
    run = merging.write(directory, model, weights, result, made)
    progress.clear()
    return run


def _begin_in_first(runs: Sequence[Run]) -> bool:
    """Whether all runs but the first, of which there are two or more, say that they started from it."""
    starts = [run.config.start for run in runs[1:]]
    return len(starts) > 1 and all(s is not None and Path(s).resolve() == runs[0].path.resolve() for s in starts)


@dataclass
class _Merging:
    """What operators on weights are given, and what becomes of what they give."""

    runs: list[Run]
    given_base: str | os.PathLike[str] | None
    data: str | None

    def __post_init__(self) -> None:
        first = self.runs[0]
        self.joined = any(run.classes != first.classes for run in self.runs)
        check_runs(self.runs, self.joined, self.data)
        self.splits = self._splits()
        self.classes = tuple(self.splits.train.classes)
        self.rows = [[self.classes.index(name) for name in run.classes] for run in self.runs] if self.joined else []
        self.facts = replace(Facts.of(self.splits), mean=first.facts.mean, std=first.facts.std)
        if not self.joined:
            self.facts = first.facts
        self.task = self.facts.task
        self.device = first.device
        self.template = self._template()
        self.states = [self.shared(run.model.state_dict()) for run in self.runs]
        self.statistics = some(self.splits.train, _STATISTICS)

    def _splits(self) -> Splits:
        if self.data is None:
            return self.runs[0].splits
        first = self.runs[0]
        splits = load_splits(first.config.model_copy(update={"data": self.data, "size": first.size}))
        check_data(self.runs, splits, self.data)
        return splits

    def _template(self) -> Classifier:
        first = self.runs[0]
        if not self.joined:
            return copy.deepcopy(first.model)
        check_heads(self.runs)
        loss = first.loss if isinstance(first.loss, LogitsLoss) else None
        with torch.random.fork_rng(devices=[]):
            return build_classifier(first.config, self.facts, loss=loss, pretrained=False).to(self.device)

    def shared(self, state: State) -> dict[str, Tensor]:
        """A copy of what the operators merge: all of it, or all but the head where that is of other classes."""
        return {n: v.detach().clone() for n, v in state.items() if not (self.joined and n.startswith("head."))}

    # What operators are given.

    def network(self, state: State, of: int = 0) -> nn.Module:
        """A new network with a state, in evaluation mode; with the head of run `of` where heads are no part of it."""
        net = copy.deepcopy(self.runs[of].model if self.joined else self.template)
        whole = {**net.state_dict(), **state} if self.joined else dict(state)
        net.load_state_dict(whole)
        return net.eval()

    def batches(self, of: int | None = None) -> Iterator[Batch]:
        """Training samples: of one run, by its classes, or those that the result is for.

        In a mixed order: files are sorted by class, and an operator that looks at the first few would know one of them.
        """
        if of is not None:
            return batches_of([mixed(self.runs[of].splits.train)], self.device)
        if self.data is not None:
            return batches_of([mixed(self.splits.train)], self.device)
        different = {digest(run.splits): run.splits.train for run in self.runs}
        return batches_of([mixed(samples) for samples in different.values()], self.device)

    def score(self, state: State) -> float:
        """How good a state is on validation samples, higher being better."""
        return self.task.best.rank(self.measure(self.finish(state)[0]))[0]

    def base(self) -> dict[str, Tensor]:
        """The weights that all runs started from. A head that has none there begins at the mean of the runs' heads."""
        found = weights_at(origin_of(self.runs, self.given_base), self.runs[0])
        state = self.shared({name: value.to(self.device) for name, value in found.items()})
        heads = [name for name in self.states[0] if name.startswith("head.")]
        for name in heads:
            values = [one[name] for one in self.states]
            mean = torch.stack([value.double() for value in values]).mean(0).to(values[0])
            state[name] = mean if values[0].is_floating_point() else values[0]
        return state

    def key(self, operator: str, base: State) -> str:
        """A digest of all that decides what an operator gives."""
        told = [operator, digest(self.splits), self.classes]
        return key_of(told, self.runs, [*self.states, base])

    # What becomes of what they give.

    def barrier(self) -> float:
        """How much higher the loss is halfway between the first two states than the mean of theirs.

        Of runs of other classes, that on the classes of the first.
        """
        first = self.runs[0]
        samples = first.splits.train if self.joined else self.splits.train
        samples = some(replace(samples, labels=first.task.encode(samples.labels)), _STATISTICS)
        loss = first.loss if isinstance(first.loss, LogitsLoss) else registry.build("losses", first.task.loss)
        given = partial(batches_of, [samples], self.device)
        return loss_barrier(self.network, self.states[:2], lambda _: given(), points=3, loss=loss).height

    def finish(self, merged: State | Stored) -> tuple[Classifier, State | Stored]:
        """The network of what an operator gave, with batch statistics of its own, and what is to be written of it."""
        features = getattr(merged, "features", None)
        head = self._head(features) if self.joined else {}
        if isinstance(merged, Stored):
            stored = replace(merged, tensors={**merged.tensors, **head})
            model = cast(Classifier, stored.build(copy.deepcopy(self.template))).to(self.device).eval()
            if stored.form == "shaped":
                self._refresh(model)
                stored = replace(stored, tensors=model.state_dict())
            return model, stored
        model = copy.deepcopy(self.template)
        model.load_state_dict({**merged, **head})
        # A run by itself keeps the statistics that it was trained with.
        if not any(_same(merged, one) for one in self.states):
            self._refresh(model)
        return model.eval(), model.state_dict()

    def _refresh(self, model: nn.Module) -> None:
        refresh_batchnorm(model, Loader(self.statistics, 256, shuffle=False, device=self.device).epoch(0))

    def _head(self, features: Sequence[Sequence[int]] | None) -> dict[str, Tensor]:
        """The rows of all heads, in the order of the classes; columns follow the features that the merge has moved."""
        own = {name: torch.zeros_like(value) for name, value in self.template.head.state_dict().items()}
        known = torch.zeros(len(self.classes), device=self.device)
        for number, run in enumerate(self.runs):
            rows = self.rows[number]
            known[rows] += 1
            for name, value in run.model.head.state_dict().items():
                if features is not None and value.ndim == 2:
                    source = torch.as_tensor(features[number], device=self.device)
                    value = value[:, source.clamp_min(0)] * (source >= 0)
                    if own[name].shape[1:] != value.shape[1:]:
                        own[name] = value.new_zeros(len(self.classes), value.shape[1])
                own[name][rows] += value
        return {f"head.{n}": v / known.view(-1, *(1 for _ in v.shape[1:])) for n, v in own.items()}

    # How good it is.

    def measure(self, model: Classifier) -> dict[str, Any]:
        return self.task.score(self.outputs(model, self.splits.val))

    def outputs(self, model: Classifier, samples: Samples) -> Outputs:
        return outputs_of(self.runs[0], model, samples, self.device)

    def alone(self, number: int) -> dict[str, Any]:
        """Metrics of a run by itself on the validation samples, of which it knows some classes."""
        run = self.runs[number]
        if not self.joined:
            return run.evaluate(self.splits.val)
        found = outputs_of(run, run.model, self.splits.val, self.device)
        return self.task.score(replace(found, logits=self._widened(found.logits, number)))

    def alone_by(self, number: int, key: str) -> Any:
        """One of these metrics."""
        return self.alone(number)[key]

    def _widened(self, logits: np.ndarray, number: int) -> np.ndarray:
        wide = np.full((len(logits), len(self.classes)), _NEVER, logits.dtype)
        wide[:, self.rows[number]] = logits
        return wide

    def parts(self, result: Outputs) -> list[dict[str, Any]]:
        """A row a run: how it and the result do on the test samples of its classes, asked for these only."""
        test, found = self.splits.test, []
        labels = np.asarray(test.labels)
        for number, run in enumerate(self.runs):
            rows = np.asarray(self.rows[number])
            known = np.flatnonzero(np.isin(labels, rows))
            own = test.subset(known)
            right = labels[known]
            merged = rows[result.logits[known][:, rows].argmax(1)] == right
            alone = rows[outputs_of(run, run.model, own, self.device).logits[:, : len(rows)].argmax(1)] == right
            row = {"samples": len(right), "alone": float(alone.mean()), "merged": float(merged.mean())}
            found.append({"run": str(run.path.resolve()), "classes": list(run.classes), **row})
        return found

    def write(
        self,
        directory: RunDirectory,
        model: Classifier,
        weights: State | Stored,
        result: Outputs,
        made: dict[str, Any],
    ) -> Run:
        first = self.runs[0]
        metrics = {**self.task.score(result), f"val_{made['key']}": made["after"]}
        note = f"Merged from {len(self.runs)} runs by {made['operator']}; nothing was trained."
        info: dict[str, Any] = {"notes": [note], "merged": made}
        config: dict[str, Any] = {}
        if self.data is not None:
            config = {"data": self.data, "size": first.size}
            counts = {name: getattr(self.splits, name).counts().tolist() for name in ("train", "val", "test")}
            info |= {"source": self.splits.source, **self.facts.info(), "counts": counts}
            info |= {"data_digest": digest(self.splits), "skipped": []}
        info["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        values = {"epoch": 0, f"val_{made['key']}": made["after"]}
        return write_derived(directory, first, weights, result, metrics, values=values, info=info, config=config)


def _same(state: State, other: State) -> bool:
    return all(torch.equal(value, other[name]) for name, value in state.items())


def _worse(result: Mapping[str, Any], worst: float, best: Best) -> bool:
    """Whether the result is worse than the worst of its ingredients, beyond what so few samples may say by chance."""
    interval = result.get(f"{best.key}_interval")
    if interval is not None:
        return bool(interval[1] < worst if best.higher else interval[0] > worst)
    after = result[best.key]
    return bool(after < worst - 0.1 * abs(worst) if best.higher else after > worst + 0.1 * abs(worst))
