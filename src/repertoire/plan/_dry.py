"""A step of training on tensors without memory: what it would hold, and what it would compute."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from repertoire import registry
from repertoire.data import Batch, Splits, build_augmentation
from repertoire.errors import ConfigError, RepertoireError
from repertoire.methods import Classifier, Method
from repertoire.plan._ledger import Ledger, Work
from repertoire.recipe import TrainConfig, make_optimizer
from repertoire.rules import Rule

_Module = TypeVar("_Module", bound=nn.Module)

__all__ = ["Footprint", "augmentation_bytes", "dry_evaluation", "dry_step"]


@dataclass(frozen=True)
class Footprint:
    """Memory at the peak of a step, in bytes, by what holds it.

    Attributes:
        parameters: parameters and buffers, those of auxiliary networks and of the loss among them.
        average: moving average of the weights.
        optimizer: state of the optimisers.
        gradients: of parameters; under several ranks also what they exchange them in.
        images: the batch, and the bytes that it was augmented from.
        activations: all else: what is kept for the backward pass, gradients of activations, and temporary tensors.
        work: what the step computes.
    """

    parameters: int
    average: int
    optimizer: int
    gradients: int
    images: int
    activations: int
    work: Work

    @property
    def peak(self) -> int:
        """The sum."""
        return self.parameters + self.average + self.optimizer + self.gradients + self.images + self.activations

    @property
    def resident(self) -> int:
        """Bytes that are held between two steps."""
        return self.parameters + self.average + self.optimizer

    def at_least(self, peak: int) -> Footprint:
        """The same, if something beside the step needs more."""
        return replace(self, activations=self.activations + max(0, peak - self.peak))


def dry_step(
    config: TrainConfig,
    method: Method,
    image: tuple[int, ...],
    *,
    device: torch.device,
    ranks: int = 1,
    numbers: int = 0,
) -> Footprint:
    """Takes a step on fake tensors, with the rule, the optimisers and the precision of a configuration.

    Nothing is computed and nothing but the method itself is held in memory. A batch in many pieces is stood for by two,
    where the rule treats them alike.

    Args:
        config: a resolved configuration.
        method: what would be trained, on the CPU, in the memory format of training. It stays as it is.
        image: channels, height and width.
        device: where training would be.
        ranks: processes that share the batch.
        numbers: width of targets that are several labels or numbers; 0 for one class a sample.

    Raises:
        ConfigError: the rule refuses the method; or what it does depends on values, in a way that cannot be foreseen.
    """
    # What a look at a tensor should show cannot be known. Where one answer is refused as bad input, it was the other.
    try:
        try:
            return _Step(config, method, image, device, ranks, numbers, answer=True).footprint()
        except RepertoireError:
            return _Step(config, method, image, device, ranks, numbers, answer=False).footprint()
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise ConfigError(
            f"the memory of rule {config.rule!r} with loss {config.loss!r} cannot be predicted: it depends on the "
            f"values in tensors ({error})"
        ) from None


def dry_evaluation(model: Classifier, count: int, image: tuple[int, ...], device: torch.device) -> int:
    """Bytes that a batch of evaluation takes at its peak, weights aside."""
    ledger = Ledger()
    with _computing_nothing(device, ledger) as mode, torch.no_grad():
        fake = _fake_copy(model, mode, device).eval()
        ledger.book([*fake.parameters(), *fake.buffers()], "parameters")
        ledger.forget()
        fake(torch.empty(count, *image).contiguous(memory_format=torch.channels_last))
    return ledger.peak - ledger.now["parameters"]


def augmentation_bytes(config: TrainConfig, splits: Splits, views: int) -> float:
    """Bytes an image that augmentation takes at its peak, measured on a few images: it may look at what it works on."""
    count = min(8, len(splits.train))
    augmentation = build_augmentation(config.augment)
    pixels = torch.from_numpy(splits.train.pixels(slice(0, count)))
    with torch.random.fork_rng(devices=[]), Ledger() as ledger:
        made = [augmentation(pixels) for _ in range(views)]
    del made
    return ledger.peak / count


class _Step:
    def __init__(
        self,
        config: TrainConfig,
        method: Method,
        image: tuple[int, ...],
        device: torch.device,
        ranks: int,
        numbers: int,
        *,
        answer: bool,
    ) -> None:
        self.config, self.real, self.image, self.device, self.ranks = config, method, image, device, ranks
        self.numbers = numbers
        self.ledger = Ledger(answer=answer)

    def footprint(self) -> Footprint:
        with _computing_nothing(self.device, self.ledger) as mode:
            method = _fake_copy(self.real, mode, self.device).train()
            count = self.config.batch_size // self.ranks
            rule, shown, pieces = self._rule(method, count)
            update = self._prime(rule)
            averaged = self._book(method, rule)
            batch, rest = self._batch(shown, method), self._pixels(count, shown, method.needs.view_count)
            self.ledger.book([*_tensors(batch), *rest], "images")
            self.ledger.forget()
            rule.step(method, batch)
            if averaged:
                torch._foreach_lerp_(averaged, list(method.parameters()), 0.5)
        held, work = self.ledger.at_peak, self.ledger.work
        if pieces > 1:
            # Forward and backward pass of each piece, and one update.
            work = work.plus(update, -1).times(pieces / 2).plus(update)
        exchanged = self.now_trained if self.ranks > 1 else 0
        return Footprint(
            parameters=held.get("parameters", 0),
            average=held.get("average", 0),
            optimizer=held.get("optimizer", 0),
            gradients=held.get("gradients", 0) + exchanged,
            images=held.get("images", 0),
            activations=held["activations"],
            work=work,
        )

    def _rule(self, method: Method, count: int) -> tuple[Rule, int, int]:
        """The rule, how many images of the batch are to pass through it, and in how many pieces they come in truth."""
        spec = registry.parse(self.config.rule)
        # A compiled block holds less than this: what the compiler fuses is never written.
        spec = replace(spec, kwargs={name: value for name, value in spec.kwargs.items() if name != "compile"})
        rule: Rule = registry.build("rules", spec)
        pieces = max(1, min(self.config.accumulate, count // 2))
        alike = rule.pieces_alike and pieces > 2 and not self._changes(method)
        rule.setup(
            method,
            lambda module: make_optimizer(self.config, module, method),
            fabric=_dry_fabric(self.config, self.device),
            clip=self.config.clip,
            accumulate=2 if alike else pieces,
            example=torch.zeros(2, *self.image),
            gather=False,
        )
        for optimizer in rule.optimizers:
            for group in optimizer.param_groups:
                if self.device.type == "cuda" and group.get("foreach") is None and not group.get("fused"):
                    group["foreach"] = True  # the default on a GPU, which fake tensors are not given
        return rule, 2 * math.ceil(count / pieces) if alike else count, pieces if alike else 1

    def _changes(self, method: Method) -> bool:
        """Whether a method makes another batch of all that comes in a step, which two pieces would not show."""
        batch = self._batch(2, method)
        return method.transform(batch) is not batch

    def _prime(self, rule: Rule) -> Work:
        """A first step of the optimisers alone, which makes their state; what it computes."""
        for optimizer in rule.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.empty_like(parameter)
        self.ledger.forget()
        for optimizer in rule.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return self.ledger.work

    def _book(self, method: Method, rule: Rule) -> list[Tensor]:
        """Says what is held between two steps; gives the weights of the moving average."""
        ledger = self.ledger
        ledger.book([*method.parameters(), *method.buffers()], "parameters")
        for optimizer in rule.optimizers:
            states = optimizer.state.values()
            ledger.book([v for state in states for v in state.values() if isinstance(v, Tensor)], "optimizer")
        self.now_trained = sum(p.nbytes for p in method.parameters() if p.requires_grad)
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._book_gradient)
        if not self.config.ema:
            return []
        self._average = [torch.empty_like(tensor) for tensor in (*method.parameters(), *method.buffers())]
        ledger.book(self._average, "average")
        return self._average[: len(list(method.parameters()))]

    def _book_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.ledger.book([parameter.grad], "gradients")

    def _batch(self, count: int, method: Method) -> Batch:
        images = [torch.empty(count, *self.image) for _ in range(method.needs.view_count)]
        views = tuple(image.contiguous(memory_format=torch.channels_last) for image in images)
        fields = {"mask": tuple(image[:, 0].clone() for image in images)} if "mask" in method.needs.fields else {}
        streams = {}
        for name, stream in method.needs.streams.items():
            number = max(2, round(count * stream.per_sample))
            each = stream.views if isinstance(stream.views, int) else len(stream.views)
            shown = tuple(torch.empty(number, *self.image) for _ in range(each))
            named = () if isinstance(stream.views, int) else tuple(stream.views)
            streams[name] = Batch(shown, torch.zeros(number, dtype=torch.long), torch.arange(number), names=named)
        named = () if isinstance(method.needs.views, int) else tuple(method.needs.views)
        return Batch(views, self._targets(count), torch.arange(count), fields, streams, named)

    def _targets(self, count: int) -> Tensor:
        return torch.zeros(count, self.numbers) if self.numbers else torch.zeros(count, dtype=torch.long)

    def _pixels(self, count: int, shown: int, views: int) -> list[Tensor]:
        """What lies beside the batch: the bytes that it was augmented from, and images that are not shown here."""
        pixels = torch.empty(count, *self.image, dtype=torch.uint8)
        return [pixels, *(torch.empty(max(0, count - shown), *self.image) for _ in range(views))]


def _tensors(batch: Batch) -> list[Tensor]:
    """All tensors of a batch."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    batch.map(keep)
    return found


class _Fake(FakeTensorMode):
    """Fake tensors whose modules can be moved and copied."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        # The converter remembers what it made by weak references, and a tensor with one cannot be moved by `Module.to`.
        self.fake_tensor_converter.set_tensor_memo = lambda t, v: None  # type: ignore[method-assign]

    def __deepcopy__(self, memo: dict[int, Any]) -> _Fake:
        return self


class _DryFabric(Fabric):
    """Leaves modules where they are: they have been put there."""

    def setup(self, module: nn.Module, *optimizers: Any, **options: Any) -> Any:
        return super().setup(module, *optimizers, **{**options, "move_to_device": False})


def _dry_fabric(config: TrainConfig, device: torch.device) -> Fabric:
    kinds: dict[str, Literal["bf16-mixed", "16-mixed"]] = {"bf16": "bf16-mixed", "16": "16-mixed"}
    plugins: list[Any] = []
    if config.precision in kinds:
        # Without a scaler, which would look for infinities in gradients that have no values.
        scaler = torch.amp.GradScaler(device.type, enabled=False) if config.precision == "16" else None
        plugins.append(MixedPrecision(kinds[config.precision], device.type, scaler))
    devices: Any = 1 if device.index is None else [device.index]
    return _DryFabric(accelerator=device.type, devices=devices, plugins=plugins)


@contextmanager
def _computing_nothing(device: torch.device, ledger: Ledger) -> Iterator[_Fake]:
    devices = [device] if device.type == "cuda" else []
    mode = _Fake()
    with (
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=devices),
        mode,
        ledger,
        torch.device(device),
    ):
        warnings.simplefilter("ignore")
        yield mode


def _fake_copy(method: _Module, mode: _Fake, device: torch.device) -> _Module:
    """A module with tensors of the same shapes, strides and types, none of which has any memory."""
    memo: dict[int, Any] = {}
    for tensor in (*method.parameters(), *method.buffers()):
        fake = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=device)
        memo[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake
    return copy.deepcopy(method, memo)
