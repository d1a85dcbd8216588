"""What a step of training would need with each of the ways to train, and which of them to take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from repertoire import registry
from repertoire.data import Splits
from repertoire.errors import ConfigError, RepertoireError, option, options
from repertoire.methods import Method
from repertoire.plan._dry import Footprint, augmentation_bytes, dry_evaluation, dry_step
from repertoire.plan._ledger import Work
from repertoire.plan._storage import Storage, storage
from repertoire.recipe import (
    Facts,
    TrainConfig,
    build,
    find_device,
    format_bytes,
    import_plugins,
    load_splits,
    make_config,
    parse_bytes,
    resolve,
)

__all__ = ["Plan", "PlanRow", "make_plan", "plan", "settle"]

SMALLEST_PIECE = 8
"""Images of a piece below which batch normalisation has too few to go by."""

BLOCKS: tuple[int | Literal["all"], ...] = (2, 4, 8, 16, "all")

AUXILIARIES = ("auglocal", "(conv:depth=1)")
"""The default auxiliary network, and a cheap one."""

TIE = 0.1
"""Relative difference of predicted times below which they count as equal: what the prediction is good for."""

ACCURACY = {
    "exact": "costs no accuracy: the weights are the same",
    "pieces": "changes nothing but batch normalisation, which sees a piece at a time",
    "local": "costs accuracy, the more the more blocks there are; docs/performance has what was measured",
}
"""What is known of the accuracy, by kind."""


@dataclass(frozen=True)
class PlanRow:
    """One way to train.

    Attributes:
        rule: spec of the learning rule.
        accumulate: pieces that a batch is processed in.
        piece: images of a piece, on one process.
        kind: "exact" (the weights of back-propagation), "pieces" (those up to batch normalisation) or "local".
        footprint: predicted bytes, by what they are.
        time: predicted time of a step, relative to the first row.
    """

    rule: str
    accumulate: int
    piece: int
    kind: Literal["exact", "pieces", "local"]
    footprint: Footprint
    time: float

    @property
    def peak(self) -> int:
        """Predicted peak memory in bytes."""
        return self.footprint.peak

    @property
    def setting(self) -> str:
        """The options that choose it."""
        pieces = {"accumulate": self.accumulate} if self.accumulate > 1 else {}
        return options(rule=self.rule, **pieces)


@dataclass(frozen=True)
class Plan:
    """Memory and time that each way to train would need.

    Attributes:
        rows: back-propagation first.
        refused: ways that this network or loss does not allow, and why.
        budget: bytes there are, or None.
        parameters: bytes of the network's own parameters.
        backbone, batch, size, device: what was planned for.
        storage: room that decoded images need, where the data is files of images.
    """

    rows: tuple[PlanRow, ...]
    refused: tuple[tuple[str, str], ...]
    budget: int | None
    parameters: int
    backbone: str
    batch: int
    size: int
    device: str
    storage: Storage | None = None

    def fits(self, row: PlanRow) -> bool:
        """True if a row needs no more than the budget; always, if there is none."""
        return self.budget is None or row.peak <= self.budget

    @property
    def chosen(self) -> PlanRow:
        """The fastest that fits; of those that are about as fast, the one that is closest to back-propagation.

        Raises:
            ConfigError: nothing fits; names what would come nearest.
        """
        fitting = [row for row in self.rows if self.fits(row)]
        if not fitting:
            assert self.budget is not None
            nearest = min(self.rows, key=lambda row: row.peak)
            raise ConfigError(
                f"nothing fits into {format_bytes(self.budget)}: the least that {self.backbone} with {self.batch} "
                f"images of {self.size} pixels can do with is {format_bytes(nearest.peak)} ({nearest.setting}). Give "
                f"it {option('memory', f'{math.ceil(nearest.peak / 2**20)}MiB')}, or use a smaller "
                f"{option('batch_size')}, {option('size')} or {option('backbone')}"
            )
        # Whoever gets the weights of back-propagation in its time wants no others, however quick.
        near = [row for row in fitting if row.kind != "local" and row.time <= 1 + TIE]
        if not near:
            quickest = min(row.time for row in fitting)
            near = [row for row in fitting if row.time <= quickest * (1 + TIE)]
        order = {"exact": 0, "pieces": 1, "local": 2}
        # Among equals: few pieces, and the order of the table, which has few blocks before many.
        return min(near, key=lambda row: (order[row.kind], row.accumulate, self.rows.index(row)))

    def reason(self) -> str:
        """Sentence that says what was chosen, why, and what it is known to cost."""
        row, first = self.chosen, self.rows[0]
        assert self.budget is not None
        what = f"{option('memory', format_bytes(self.budget))}: {row.setting}, predicted peak {format_bytes(row.peak)}"
        if row is first:
            return f"{what}; nothing has to be saved"
        pieces = f", {row.piece} images at a time," if row.accumulate > first.accumulate else ""
        return (
            f"{what}{pieces} at about {row.time:.2f} times the time of {first.setting}, which would need "
            f"{format_bytes(first.peak)}. It {ACCURACY[row.kind]}"
        )


def plan(
    data: str | Path | None = None,
    *,
    config: TrainConfig | None = None,
    report: Callable[[str], None] | None = None,
    **fields: object,
) -> Plan:
    """Predicts peak memory and relative time of a training step with each way to train.

    The network is built, but nothing is computed, and none of its activations, gradients or optimiser states takes any
    memory. Ways to train are back-propagation, the same with the batch in pieces (`accumulate`) or with activation
    checkpointing (rule `checkpoint`), and local learning with several numbers of blocks and two auxiliary networks.
    Another rule than back-propagation is kept, and only the number of pieces varies.

    Args:
        data: what `fit` takes: only the number of classes, the size and the channels of the images matter.
        config: a whole configuration, instead of `data` and fields.
        report: is told each way before it is looked at.
        fields: fields of `TrainConfig`; `memory="4GiB"` is the budget.

    Raises:
        ConfigError, UnknownName: an option cannot be used; or the budget is below the network's parameters alone.
        DataError: the data cannot be used.

    Example:
        >>> import repertoire
        >>> found = repertoire.train.plan("digits", backbone="convnet:width=8", memory="1.5MiB")
        >>> found.chosen.peak <= 1.5 * 2**20 < found.rows[0].peak
        True
    """
    if config is None:
        if data is None:
            raise ConfigError("say what to train on: a folder with a directory per class, or a source such as 'digits'")
        config = make_config(data=str(data), **fields)
    elif data is not None or fields:
        raise ConfigError("give either config, or data and fields")
    import_plugins(config)
    splits = load_splits(config, shapes=True)
    found = make_plan(resolve(config, splits), splits, find_device(config), report=report)
    return replace(found, storage=storage(config, splits))


def settle(config: TrainConfig, splits: Splits, device: torch.device, ranks: int) -> tuple[TrainConfig, str | None]:
    """The configuration with the rule and the number of pieces that its budget allows, and a sentence that says why.

    Raises:
        ConfigError: nothing fits.
    """
    if config.memory is None:
        return config, None
    found = make_plan(config, splits, device, ranks, whole=False)
    row = found.chosen
    return config.model_copy(update={"rule": row.rule, "accumulate": row.accumulate}), found.reason()


def make_plan(
    config: TrainConfig,
    splits: Splits,
    device: torch.device,
    ranks: int = 1,
    *,
    whole: bool = True,
    report: Callable[[str], None] | None = None,
) -> Plan:
    """The plan of a resolved configuration; if it need not be whole, without what could not be chosen any more."""
    if config.pipeline is not None:
        raise ConfigError(
            f"a plan is for one process, or several with a whole network each: leave out {option('pipeline')}"
        )
    if splits.kind == "maps":
        raise ConfigError("a plan is for one answer for an image, and this data has a class for every pixel")
    if config.tune not in ("all", "auto"):
        raise ConfigError("a plan is for training a network, and here only what follows its frozen layers learns")
    image = splits.train.shape
    budget = None if config.memory is None else parse_bytes(config.memory)
    method = _method(config, splits)
    parameters = sum(p.nbytes for p in method.model.parameters())
    if budget is not None and parameters > budget:
        raise ConfigError(
            f"{option('memory')} is {config.memory}, and the parameters of {config.backbone} alone take "
            f"{format_bytes(parameters)}: choose a smaller network, or give it more"
        )
    numbers = len(splits.classes) if splits.kind in ("labels", "number") else 0
    beside = _Beside(config, splits, method, device, ranks)
    rows: list[PlanRow] = []
    refused: list[tuple[str, str]] = []
    first: Work | None = None
    for rule, accumulate, kind in _candidates(config, method, ranks):
        if not whole and budget is not None and rows and _settled(rows, budget, kind):
            break
        candidate = config.model_copy(update={"rule": rule, "accumulate": accumulate})
        if report is not None:
            report(f"rule {rule}" + (f", {accumulate} pieces" if accumulate > 1 else ""))
        try:
            found = dry_step(candidate, method, image, device=device, ranks=ranks, numbers=numbers)
        except RepertoireError as error:
            if not rows:
                raise
            refused.append((option("rule", rule), str(error)))
            continue
        piece = math.ceil(config.batch_size / ranks / accumulate)
        first = first or found.work
        time = seconds(found.work, device, config.precision) / seconds(first, device, config.precision)
        rows.append(PlanRow(rule, accumulate, piece, kind, found.at_least(beside.peak(found, piece)), time))
    size = max(image[1:], default=1)
    return Plan(tuple(rows), tuple(refused), budget, parameters, config.backbone, config.batch_size, size, str(device))


def _settled(rows: Sequence[PlanRow], budget: int, following: str) -> bool:
    """Whether nothing that follows could be chosen."""
    good = [row for row in rows if row.peak <= budget and row.time <= 1 + TIE]
    return rows[0] in good or (bool(good) and following == "local")


def _method(config: TrainConfig, splits: Splits) -> Method:
    # Weights and extra streams take the room that they take, whatever is in them.
    method = build(config, splits, facts=Facts.of(splits, statistics=False), weights=False).method
    return method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _Beside:
    """Memory of a run beside the step: to augment a batch while the last one is still there, and to evaluate."""

    def __init__(self, config: TrainConfig, splits: Splits, method: Method, device: torch.device, ranks: int) -> None:
        images = splits.train
        self.count = config.batch_size // ranks
        self.augmenting = augmentation_bytes(config, splits, method.needs.view_count) * self.count
        self.most = min(256, self.count)
        self.evaluating = dry_evaluation(method.model, self.most, images.shape, device) / self.most

    def peak(self, found: Footprint, piece: int) -> int:
        evaluated = self.evaluating * min(self.most, piece)
        return found.resident + max(found.images + math.ceil(self.augmenting), math.ceil(evaluated))


def _candidates(
    config: TrainConfig, method: Method, ranks: int
) -> Iterator[tuple[str, int, Literal["exact", "pieces", "local"]]]:
    count = config.batch_size // ranks
    own = config.accumulate
    normalised = any(isinstance(module, _BatchNorm) for module in method.modules())
    more = [own]
    while method.needs.per_sample and count // (more[-1] * 2) >= SMALLEST_PIECE:
        more.append(more[-1] * 2)
    plain = registry.parse(config.rule).name == "backprop"
    beside: Literal["exact", "pieces"] = "pieces" if normalised else "exact"
    for rule in (config.rule, "checkpoint") if plain else (config.rule,):
        for pieces in more:
            yield rule, pieces, beside if pieces > own else "exact"
    if not plain:
        return
    if not method.needs.per_sample:
        # Where samples are compared with each other, pieces are a matter of the rule.
        for pieces in (2, 4, 8, 16):
            chunk = math.ceil(count * method.needs.view_count / pieces)
            if chunk >= SMALLEST_PIECE:
                yield f"gradcache:chunk={chunk}", own, beside
    units = sum(1 for block in method.model.backbone.blocks if any(True for _ in block.parameters()))
    for auxiliary in AUXILIARIES:
        for blocks in BLOCKS:
            if units > 1 and (blocks == "all" or blocks < units):
                yield f"local:blocks={blocks},auxiliary={auxiliary}", own, "local"


RATES = {
    "cpu": Work(calls=5e4, flops=90e9, product_bytes=6e9, bytes=2e10),
    "cuda": Work(calls=2e5, flops=40e12, product_bytes=2e12, bytes=2e12),
}
"""What a device does in a second, of each kind. Only ratios matter. Those of the CPU were fitted to
`benchmarks/planner.py`; those of a GPU are what data sheets of large ones suggest."""


def seconds(work: Work, device: torch.device, precision: str) -> float:
    """Predicted time of a step; good for comparison with others on the same device."""
    rate = RATES[device.type]
    halved = device.type == "cuda" and precision != "32"
    computed = work.flops / (rate.flops * (8 if halved else 1))
    computed += work.product_bytes / rate.product_bytes + work.bytes / rate.bytes
    called = work.calls / rate.calls
    # A GPU works while the next operator is called.
    return max(computed, called) if device.type == "cuda" else computed + called
