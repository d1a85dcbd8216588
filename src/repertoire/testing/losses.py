"""What every loss must do, by the contract and the kinds of targets that it declares."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import EmbeddingLoss, LogitsLoss, Loss, explain_nonfinite
from repertoire.ops import frozen_memories
from repertoire.testing._check import (
    Check,
    agree,
    buffers_of,
    checks,
    described,
    options_of,
    refused,
    same_under_torch,
)

__all__ = ["check_loss"]

_ROWS, _CLASSES, _WIDTH = 9, 4, 6


def check_loss(factory: type[Loss], *, fullgraph: bool = False, exported: bool = True, **options: Any) -> list[Check]:
    """Checks of a loss against its contract: :class:`repertoire.losses.LogitsLoss`, `EmbeddingLoss`, `ViewsLoss` or
    `PredictionsLoss`.

    What the loss declares decides what is checked: `targets`, `soft`, `bounded`, `proxied`, `random`, `wants`, and
    `example_options()` for options without which it cannot be built.

    Args:
        factory: the class.
        fullgraph: whether `torch.compile` must make one graph of it; False lets it fall back where it must.
        exported: whether `torch.export` must take it, which it does where no value decides what is computed.
        options: options to build it with.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.losses import Focal
        >>> from repertoire.testing import check_loss
        >>> [str(check) for check in check_loss(Focal)][:2]
        ['it is documented', 'value and gradient']
    """
    kinds = {"logits": _Logits, "embeddings": _Embeddings, "views": _Views, "predictions": _Predictions}
    contract = kinds[factory.contract]
    return checks(contract(factory, options, fullgraph, exported))


class _Losses:
    """What holds for all contracts."""

    def __init__(self, factory: type[Loss], options: dict[str, Any], fullgraph: bool, exported: bool) -> None:
        self.factory, self.fullgraph, self.exported = factory, fullgraph, exported
        self.known = options_of(factory)
        self.options = {**factory.example_options(), **options}

    # How a loss is built and called.

    def kinds(self) -> tuple[str, ...]:
        """The kinds of targets to look at it with."""
        return ("",)

    def build(self, kind: str = "", classes: int = _CLASSES, **options: Any) -> Loss:
        context = {"counts": torch.arange(classes, 0, -1) ** 2, "num_classes": classes, "samples": 64}
        given = {name: value for name, value in context.items() if name in self.known}
        if kind == "number" and {"low", "high"} <= self.known.keys():
            given |= {"low": 0.0, "high": 1.0}
        torch.manual_seed(0)
        loss = self.factory(**{**self.options, **given, **options})
        loss.prepare(_WIDTH)
        return loss.double().train(not loss.random)

    def rand(self, rows: int, width: int, seed: int, dtype: torch.dtype) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(rows, width, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    def inputs(
        self, loss: Loss, kind: str = "", rows: int = _ROWS, seed: int = 0, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def known_of(self, loss: Loss, rows: int) -> dict[str, Tensor]:
        """What a loss wants to know of its samples."""
        everything = {"index": torch.arange(rows), "transformation": torch.linspace(-1.0, 1.0, 4 * rows).view(rows, 4)}
        return {name: everything[name] for name in loss.wants}

    def call(self, loss: Loss, arguments: tuple[Tensor, ...], order: Tensor | None = None) -> Tensor:
        """The loss of the arguments and of what else it wants, in another order of the samples if one is given."""
        known = self.known_of(loss, len(arguments[0]))
        if order is not None:
            arguments, known = tuple(a[order] for a in arguments), {name: k[order] for name, k in known.items()}
        value: Tensor = loss(*arguments, **known)
        return value

    def gradients(self, value: Tensor, arguments: tuple[Tensor, ...]) -> list[Tensor]:
        wanted = [a for a in arguments if a.requires_grad]
        return list(torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True))

    def finite(self, loss: Loss, arguments: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
        """The loss, which must be finite, and its gradients, which must be too."""
        value = self.call(loss, arguments)
        assert value.isfinite(), f"the loss is {float(value.detach())}"
        found = self.gradients(value, arguments)
        assert all(gradient.isfinite().all() for gradient in found), "a gradient is not finite"
        return value.detach(), found

    # The checks.

    def check_it_is_documented(self) -> None:
        described(self.factory)
        assert isinstance(self.build(self.kinds()[0]), Loss)

    def check_value_and_gradient(self) -> None:
        for kind in self.kinds():
            loss = self.build(kind)
            arguments = self.inputs(loss, kind)
            before, twin = [a.detach().clone() for a in arguments], copy.deepcopy(loss)
            value = self.call(loss, arguments)
            assert value.shape == ()
            assert value.dtype == torch.float64
            found = self.gradients(value, arguments)
            for gradient in found:
                assert gradient.isfinite().all()
                assert gradient.any(dim=1).all(), "a sample gets no gradient"
            for argument, old in zip(arguments, before, strict=True):
                agree(argument.detach(), old, rtol=0, atol=0)
            agree(self.call(twin, arguments), value, rtol=0, atol=0)
            order = torch.randperm(_ROWS, generator=torch.Generator().manual_seed(1))
            agree(self.call(self.build(kind), arguments, order), value)
            steps = iter(found)
            moved = tuple(a.detach() - 1e-4 * next(steps) if a.requires_grad else a for a in arguments)
            assert self.call(self.build(kind), moved) < value, "a small step down the gradient does not lower it"

    def check_half_precision(self) -> None:
        for kind in self.kinds():
            for dtype in (torch.bfloat16, torch.float16):
                loss = self.build(kind)
                arguments = self.inputs(loss, kind, rows=64, dtype=dtype)
                value = self.call(loss, arguments)
                wide = tuple(a.detach().double() if a.is_floating_point() else a for a in arguments)
                agree(value.double(), self.call(self.build(kind), wide), rtol=1e-3, atol=1e-3)
                for argument, gradient in zip(arguments, self.gradients(value, arguments), strict=False):
                    assert gradient.dtype == argument.dtype
                    assert gradient.isfinite().all()
            loss = self.build(kind).float()
            arguments = self.inputs(loss, kind, rows=64, dtype=torch.float32)
            expected = self.call(self.build(kind).float(), arguments)
            with torch.autocast("cpu", torch.bfloat16):
                agree(self.call(loss, arguments), expected)

    def check_sizes_and_magnitudes(self) -> None:
        for kind in self.kinds():
            for rows in (0, 1):
                loss = self.build(kind)
                value, _ = self.finite(loss, self.inputs(loss, kind, rows=rows))
                assert rows or value == 0, "the loss of an empty batch is zero"
            for magnitude in (0.0, 1e4):
                loss = self.build(kind)
                arguments = self.inputs(loss, kind)
                scaled = tuple(
                    (a.detach().float() * magnitude).requires_grad_() if a.requires_grad else a for a in arguments
                )
                self.finite(loss, scaled)

    def check_options_out_of_range(self) -> None:
        real = [name for name, p in self.known.items() if isinstance(p.default, float)]
        kind = self.kinds()[0]
        for name in real:
            refused(ConfigError, f"^{name} must", self.build, kind, **{name: math.nan})
            for value in (math.inf, -math.inf):
                try:
                    given: dict[str, Any] = {name: value}
                    loss = self.build(kind, **given)
                except ConfigError:
                    continue
                assert self.call(loss, self.inputs(loss, kind)).isfinite(), f"{name}={value} is accepted"
        for name in real:
            if name.endswith("temperature"):
                for value in (0.0, -0.1):
                    words = f"{name} must be positive"
                    refused(ConfigError, words, self.build, kind, **{name: value})
            if name.endswith("weight"):
                refused(ConfigError, f"{name} must be 0 or more", self.build, kind, **{name: -0.1})
        function = self.factory.function
        if function is None:
            return
        # Functions and modules refuse the same, with the same words.
        loss = self.build(kind)
        arguments = self.inputs(loss, kind)
        taken = inspect.signature(function).parameters
        kept = {name: getattr(loss, name) for name in loss.kept}
        for name in real:
            if name in taken:
                settings = {n: getattr(loss, n) for n in loss.options if n not in kept} | {name: math.nan}
                refused(ConfigError, f"^{name} must", function, *arguments, **kept, **settings)

    def check_state(self) -> None:
        """Nothing moves in forward; what is remembered or learned is in the state, and moves after an update only."""
        for kind in self.kinds():
            loss = self.build(kind)
            for seed in range(3):
                arguments = self.inputs(loss, kind, seed=seed)
                before = {**buffers_of(loss), **{n: p.detach().clone() for n, p in loss.named_parameters()}}
                with frozen_memories(loss):
                    self.call(loss, arguments)
                torch.manual_seed(seed)
                self.call(loss, arguments)
                after = {**buffers_of(loss), **{n: p.detach().clone() for n, p in loss.named_parameters()}}
                agree(after, before, rtol=0, atol=0, equal_nan=True)
                loss.after_update()
            # A step that overflows did not happen.
            spoilt = tuple(
                a.detach().index_fill(0, torch.tensor([1]), math.nan) if a.requires_grad else a for a in arguments
            )
            kept = {name: value.clone() for name, value in loss.state_dict().items()}
            self.call(loss, spoilt)
            loss.after_update()
            agree(dict(loss.state_dict()), kept, rtol=0, atol=0, equal_nan=True)
            other = self.build(kind)
            other.load_state_dict(loss.state_dict())
            before = {name: value.clone() for name, value in loss.state_dict().items()}
            training = loss.training
            self.call(loss.eval(), self.inputs(loss, kind, seed=9))
            loss.after_update()
            agree(dict(loss.state_dict()), before, rtol=0, atol=0, equal_nan=True)
            loss.train(training)
            for seed in range(3, 5):
                values = []
                for one in (loss, copy.deepcopy(other)) if seed == 3 else (loss, other):
                    torch.manual_seed(seed)
                    values.append(self.call(one, self.inputs(one, kind, seed=seed)).detach())
                    one.after_update()
                agree(values[0], values[1], rtol=0, atol=0)
                if seed == 3:
                    torch.manual_seed(seed)
                    self.call(other, self.inputs(other, kind, seed=seed))
                    other.after_update()
            for name, parameter in loss.named_parameters():
                value = self.call(loss, self.inputs(loss, kind))
                found = torch.autograd.grad(value, parameter)[0]
                assert found.isfinite().all(), name

    def check_what_it_draws_is_declared(self) -> None:
        """A batch is not cut into pieces, and processes agree on a seed, where a loss says that it is `random`."""
        for kind in self.kinds():
            loss = self.build(kind).train()
            arguments = self.inputs(loss, kind)
            torch.manual_seed(0)
            before = torch.get_rng_state()
            self.call(loss, arguments)
            drew = not torch.equal(torch.get_rng_state(), before)
            assert loss.random or not drew, "it draws from torch's random state: declare random = True"

    def check_compiled(self) -> None:
        for kind in self.kinds():
            loss = self.build(kind)
            arguments = self.inputs(loss, kind)
            learned = [a for a in arguments if a.requires_grad]
            torch._dynamo.reset()

            def called(*floats: Tensor, loss: Loss = loss, arguments: tuple[Tensor, ...] = arguments) -> Tensor:
                rest = iter(floats)
                return self.call(loss, tuple(next(rest) if a.requires_grad else a for a in arguments))

            compiled = torch.compile(called, backend="aot_eager", fullgraph=self.fullgraph)
            torch.manual_seed(0)
            same_under_torch(_seeded(called), learned, compiled=_seeded(compiled))

    def check_exported(self) -> None:
        """A program of `torch.export` gives the value; the gradient too, or it says that it cannot."""
        loss = self.build(kind := self.kinds()[0]).eval()
        arguments = self.inputs(loss, kind)
        known = self.known_of(loss, len(arguments[0]))
        if not self.exported:
            return
        program = torch.export.export(loss, tuple(a.detach() for a in arguments), known, strict=False).module()
        with torch.no_grad():
            agree(program(*arguments, **known), self.call(loss, arguments))
        try:
            value = program(*arguments, **known)
        except RuntimeError:  # in place, for values alone
            return
        torch.manual_seed(0)
        agree(self.gradients(value, arguments), self.gradients(self.call(loss, arguments), arguments))

    def check_functions_of_torch_func(self) -> None:
        for kind in self.kinds():
            loss = self.build(kind).eval()
            arguments = self.inputs(loss, kind)

            def called(*floats: Tensor, loss: Loss = loss, arguments: tuple[Tensor, ...] = arguments) -> Tensor:
                rest = iter(floats)
                return self.call(loss, tuple(next(rest) if a.requires_grad else a for a in arguments))

            same_under_torch(_seeded(called), [a for a in arguments if a.requires_grad])

    def check_numbers_of_samples_that_do_not_fit(self) -> None:
        loss = self.build(self.kinds()[0])
        if "index" not in loss.wants:
            return
        wrong = [
            (torch.arange(3), r"index must be integers \[9\], one a sample, found torch.int64 \[3\]"),
            (torch.arange(9.0), "found torch.float32"),
            (torch.arange(9)[:, None], r"found torch.int64 \[9, 1\]"),
            (56 + torch.arange(9), r"index must be in 0..63.*found 64"),
            (-1 + torch.arange(9), r"index must be in 0..63.*found -1"),
        ]
        for index, words in wrong:
            refused(ShapeError, words, loss, *self.inputs(loss), index=index)


def _seeded(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, from the same random state in every call."""

    def called(*inputs: Tensor) -> Tensor:
        torch.manual_seed(0)
        return function(*inputs)

    return called


def _with_infinity(rows: Tensor, bad: float, row: int = 5, column: int = 2) -> Tensor:
    rows = rows.detach().clone()
    rows[row, column] = bad
    return rows


def _named(rows: Tensor, bad: float) -> None:
    kind = "not a number" if math.isnan(bad) else "infinite"
    assert explain_nonfinite(rows) == f"1 of {_ROWS} rows are not finite: 5 ({kind})"


class _Logits(_Losses):
    factory: type[LogitsLoss]

    def kinds(self) -> tuple[str, ...]:
        return self.factory.targets

    def inputs(
        self,
        loss: Loss,
        kind: str = "",
        rows: int = _ROWS,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        classes: int = _CLASSES,
    ) -> tuple[Tensor, ...]:
        assert isinstance(loss, LogitsLoss)
        labels = torch.arange(rows) % classes
        if kind == "number":
            return self.rand(rows, loss.width(1), seed, dtype), torch.linspace(0.05, 0.95, rows)[:, None].double()
        logits = self.rand(rows, loss.width(classes), seed, dtype)
        if kind == "labels":  # one or two labels a sample
            eye = torch.eye(classes, dtype=torch.int64)
            return logits, eye[labels] | eye[torch.arange(rows) // 2 % classes]
        return logits, labels

    def check_reductions(self) -> None:
        for kind in self.kinds():
            arguments = self.inputs(self.build(kind), kind)
            each = self.build(kind, reduction="none")(*arguments)
            assert each.shape == (_ROWS,)
            agree(self.build(kind, reduction="sum")(*arguments), each.sum())
            agree(self.build(kind, reduction="mean")(*arguments), each.mean())
            words = "reduction must be 'mean', 'sum' or 'none', found 'median'"
            refused(ConfigError, words, self.build, kind, reduction="median")
            for reduction in ("mean", "sum", "none"):
                loss = self.build(kind, reduction=reduction)
                empty = self.inputs(loss, kind, rows=0)
                value = loss(*empty)
                assert value.shape == ((0,) if reduction == "none" else ())
                assert not value.any()

    def check_predictions(self) -> None:
        for kind in self.kinds():
            loss = self.build(kind)
            logits, targets = self.inputs(loss, kind)
            found = loss.predict(logits)  # type: ignore[operator]
            assert found.shape == (targets.shape if kind != "classes" else logits.shape), "predictions are like targets"
            assert found.isfinite().all()

    def check_targets(self) -> None:
        for kind in self.kinds():
            loss = self.build(kind)
            logits, targets = self.inputs(loss, kind)
            expected = loss(logits, targets)
            if kind == "number":
                agree(loss(logits, targets[:, 0]), expected)
                agree(loss(logits, targets.float()), expected, rtol=1e-5, atol=1e-5)
                spoilt = targets.clone()
                spoilt[[1, 4]] = math.nan
                words = "must be finite, found nan; not finite are rows 1, 4"
                refused(ShapeError, words, loss, logits, spoilt)
                for bad in (torch.zeros(_ROWS, 2), torch.zeros(_ROWS + 1), torch.zeros(_ROWS, 1, 1)):
                    refused(ShapeError, "targets must be numbers", loss, logits, bad)
                continue
            for dtype in (torch.int32, torch.uint8, *((torch.bool, torch.float16) if kind == "labels" else ())):
                agree(loss(logits, targets.to(dtype)), expected)
            if kind == "labels":
                self._labels(loss, logits, targets)
            elif "number" not in self.kinds():
                self._classes(loss, logits, targets)

    def _labels(self, loss: Loss, logits: Tensor, targets: Tensor) -> None:
        for value in (0, 1):
            self.finite(loss, (logits, torch.full((_ROWS, _CLASSES), value)))
        # What nobody knows adds nothing and gets no gradient, whatever its logit.
        unknown = targets.clone()
        unknown[:, 1] = -1
        moved = logits.detach().clone()
        moved[:, 1] += 3.0
        if getattr(self.factory, "of_unknown", False):
            agree(loss(logits, unknown), loss(logits, unknown.clamp_min(0)))
        else:
            agree(loss(moved, unknown), loss(logits, unknown).detach())
            (gradient,) = self.gradients(loss(logits, unknown), (logits,))
            assert not gradient[:, 1].any(), "what nobody knows gets a gradient"
        self.finite(loss, (logits, torch.full_like(targets, -1)))
        for bad, words in (
            (torch.zeros(_ROWS, dtype=torch.int64), "targets must be multi-hot"),
            (torch.zeros(_ROWS, _CLASSES + 1), "targets must be multi-hot"),
            (torch.full((_ROWS, _CLASSES), 2), "targets must"),
            (torch.full((_ROWS, _CLASSES), math.nan), "targets must"),
        ):
            refused(ShapeError, words, loss, logits, bad)

    def _classes(self, loss: Loss, logits: Tensor, targets: Tensor) -> None:
        for target in (0, 2):
            self.finite(loss, (logits, torch.full((_ROWS,), target)))
        for bad, words in (
            (torch.arange(_ROWS), rf"targets must lie in 0..{_CLASSES - 1}.* found {_ROWS - 1}"),
            (targets - 1, rf"targets must lie in 0..{_CLASSES - 1}.* found -1"),
            (targets[:2], rf"targets must be \[{_ROWS}\].* found \[2\]"),
            (targets[:, None], rf"targets must be \[{_ROWS}\].* found \[{_ROWS}, 1\]"),
            (targets.to(torch.complex64), "targets must be integers, found torch.complex64"),
        ):
            refused(ShapeError, words, loss, logits, bad)
        hard = torch.eye(_CLASSES, dtype=logits.dtype)[targets]
        if not self.factory.soft:
            refused(ShapeError, r"targets must be int64 class indices \[N\] for this loss", loss, logits, hard)
            return
        each = self.build("classes", reduction="none")
        agree(each(logits, hard), each(logits, targets))
        other = hard.roll(1, 0)
        mixed = 0.3 * each(logits, hard) + 0.7 * each(logits, other)
        if self.factory.linear:
            agree(each(logits, 0.3 * hard + 0.7 * other), mixed)
        for share in (0.0, 0.3, 1.0):
            self.finite(self.build("classes"), (logits, share * hard + (1 - share) * other))
        refused(ShapeError, "soft targets must have the logits' shape", loss, logits, hard[:, :3])

    def check_logits_that_do_not_fit(self) -> None:
        for kind in self.kinds():
            loss = self.build(kind)
            logits, targets = self.inputs(loss, kind)
            for bad in (logits[:, 0], logits[:, :, None], logits.detach().long()):
                refused(ShapeError, "must be", loss, bad, targets)
            if "number" not in self.kinds():
                single = self.build(kind, classes=1)
                self.finite(single, self.inputs(single, kind, classes=1))
            for value in (math.nan, math.inf):
                # In the place of a class that is wrong, so that no loss can be content with it.
                scores = _with_infinity(logits, value, column=min(3, logits.shape[1] - 1))
                if self.factory.bounded and math.isinf(value):
                    assert loss(scores, targets).isfinite()
                    continue
                each = self.build(kind, reduction="none")(scores, targets)
                assert each.isfinite().tolist() == [row != 5 for row in range(_ROWS)]
                _named(scores, value)


class _Embeddings(_Losses):
    factory: type[EmbeddingLoss]

    def inputs(
        self, loss: Loss, kind: str = "", rows: int = _ROWS, seed: int = 0, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, ...]:
        return self.rand(rows, _WIDTH, seed, dtype), torch.arange(rows) % _CLASSES

    def lonely(self, count: int) -> Tensor:
        """Labels of so many embeddings of which none has a positive."""
        return -1 - torch.arange(count) if self.factory.proxied else torch.arange(count)

    def check_labels(self) -> None:
        loss = self.build()
        embeddings, labels = self.inputs(loss)
        expected = loss(embeddings, labels)
        for dtype in (torch.int32, torch.int16, torch.uint8):
            agree(loss(embeddings, labels.to(dtype)), expected)
        if not self.factory.proxied:
            names = torch.tensor([-1, 2**40, -(2**50), 0])
            agree(loss(embeddings, names[labels]), expected)
        self.finite(self.build(), (embeddings, torch.zeros_like(labels)))

    def check_anchors_without_positives(self) -> None:
        loss = self.build()
        (embeddings, labels), (others, _) = self.inputs(loss), self.inputs(loss, seed=1)
        value = loss(embeddings, self.lonely(_ROWS))
        assert value == 0
        assert not self.gradients(value, (embeddings,))[0].any()
        first, rest = self.lonely(2 * _ROWS).split(_ROWS)
        value = loss(embeddings, first[:1].expand(_ROWS), embeddings.detach(), rest[:1].expand(_ROWS))
        assert value == 0
        assert not self.gradients(value, (embeddings,))[0].any()
        alone = torch.cat([labels, self.lonely(1) + (0 if self.factory.proxied else 99)])
        with_it = loss(torch.cat([embeddings, others[:1]]), alone, others, labels)
        agree(with_it, loss(embeddings, labels, others, labels))

    def check_a_reference_set(self) -> None:
        loss = self.build()
        (embeddings, labels), (others, _) = self.inputs(loss), self.inputs(loss, rows=_ROWS - 2, seed=1)
        value = loss(embeddings, labels, others, labels[: _ROWS - 2])
        assert value.shape == ()
        for gradient in self.gradients(value, (embeddings, others)):
            assert gradient.isfinite().all()
            assert gradient.any()

    def check_equal_and_zero_embeddings(self) -> None:
        loss = self.build()
        embeddings, labels = self.inputs(loss)
        self.finite(loss, (embeddings.detach()[:1].repeat(_ROWS, 1).requires_grad_(), labels))
        zeros = embeddings.detach().clone()
        zeros[[0, 4, 5]] = 0.0  # two of a class, and one of another
        self.finite(self.build(), (zeros.requires_grad_(), labels))

    def check_what_does_not_fit(self) -> None:
        x, ints = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)
        for wrong in (
            (torch.zeros(3), ints),
            (x.long(), ints),
            (x, torch.zeros(4, dtype=torch.int64)),
            (x, torch.zeros(3)),
            (x, ints, x),
            (x, ints, torch.zeros(3, 1), ints),
            (x, ints, x, ints[:2]),
        ):
            refused(ShapeError, "", self.build(), *wrong)
        if "queue" in self.known:
            loss = self.build(queue=8)
            embeddings, labels = self.inputs(loss)
            loss(embeddings, labels)
            loss.after_update()
            words = rf"embeddings must be \[N, {_WIDTH}\] like those of earlier batches"
            refused(ShapeError, words, loss, embeddings[:, :-1], labels)
        for bad in (math.nan, math.inf, -math.inf):
            loss = self.build()
            embeddings, labels = self.inputs(loss)
            spoilt = _with_infinity(embeddings, bad)
            assert not loss(spoilt, labels).isfinite(), f"a row with {bad} does not show"
            _named(spoilt, bad)


class _Views(_Losses):
    def inputs(
        self, loss: Loss, kind: str = "", rows: int = _ROWS, seed: int = 0, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, ...]:
        stacked = self.rand(loss.views * rows, _WIDTH, seed, dtype).detach()
        return tuple(view.clone().requires_grad_() for view in stacked.view(loss.views, rows, _WIDTH))

    def check_more_views_and_fewer_samples(self) -> None:
        loss = self.build()
        assert loss.views >= 2
        more = (*self.inputs(loss), self.inputs(loss, seed=1)[0])
        for views in (more, self.inputs(self.build(), rows=_WIDTH - 3)):
            for gradient in self.finite(self.build(), views)[1]:
                assert gradient.any()

    def check_equal_and_zero_views(self) -> None:
        for what in ("views", "samples", "both", "one zero", "three zeros"):
            loss = self.build()
            views = [view.detach().clone() for view in self.inputs(loss)]
            if what in ("views", "both"):
                views = [views[0].clone() for _ in views]
            if what in ("samples", "both"):
                views = [view[:1].repeat(_ROWS, 1) for view in views]
            if what.endswith(("zero", "zeros")):
                views[0][slice(0, 1) if what == "one zero" else slice(2, 5)] = 0.0
            self.finite(loss, tuple(view.requires_grad_() for view in views))

    def check_what_does_not_fit(self) -> None:
        loss = self.build()
        first = [torch.zeros(_ROWS, _WIDTH) for _ in range(loss.views - 1)]
        for bad in (
            torch.zeros(_ROWS + 1, _WIDTH),
            torch.zeros(_ROWS, _WIDTH - 1),
            torch.zeros(_ROWS),
            torch.zeros(_ROWS, _WIDTH, 1),
            torch.zeros(_ROWS, _WIDTH, dtype=torch.float64),
            torch.zeros(_ROWS, _WIDTH, dtype=torch.int64),
        ):
            refused(ShapeError, f"view {loss.views - 1} must be", self.call, loss, (*first, bad))
        integers = (torch.zeros(_ROWS, _WIDTH, dtype=torch.int64),) * loss.views
        refused(ShapeError, "view 0 must be a floating point", self.call, loss, integers)
        for count in (0, 1):
            words = f"two views of every sample, found {count}"
            refused(ShapeError, words, self.build(), *(torch.zeros(_ROWS, _WIDTH),) * count)
        for bad_value in (math.nan, math.inf, -math.inf):
            for last in (False, True):
                loss = self.build()
                views = [view.detach() for view in self.inputs(loss)]
                place = -1 if last else 0
                views[place] = _with_infinity(views[place], bad_value)
                assert not self.call(loss, tuple(views)).isfinite(), f"a row with {bad_value} does not show"
                _named(views[place], bad_value)


class _Predictions(_Losses):
    def inputs(
        self, loss: Loss, kind: str = "", rows: int = _ROWS, seed: int = 0, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, ...]:
        return (self.rand(rows, _CLASSES, seed, dtype),)

    def check_certain_predictions_and_absent_classes(self) -> None:
        """Value and gradient are finite where predictions are one-hot, and where a class is predicted for no sample."""
        loss, rows = self.build(), torch.arange(_ROWS)
        for classes in (_CLASSES, 2, 1):
            for size in (30.0, 1e3):
                for dtype in (torch.float64, torch.float32):
                    logits = size * torch.eye(_CLASSES, dtype=dtype)[rows % classes]
                    self.finite(loss, (logits.requires_grad_(),))
        for classes in (1, _ROWS + 3):  # one class, and more classes than samples
            self.finite(loss, (self.rand(_ROWS, classes, 0, torch.float64),))

    def check_the_order_of_the_classes_says_nothing(self) -> None:
        loss = self.build()
        (logits,) = self.inputs(loss)
        agree(loss(logits[:, [2, 0, 3, 1]]), loss(logits))

    def check_what_does_not_fit(self) -> None:
        loss = self.build()
        (logits,) = self.inputs(loss)
        for bad in (logits[:, 0], logits[:, :, None], logits.detach().long()):
            refused(ShapeError, "must be", loss, bad)
        for value in (math.nan, math.inf):
            spoilt = _with_infinity(logits, value)
            assert not loss(spoilt).isfinite(), f"a row with {value} does not show"
            _named(spoilt, value)
