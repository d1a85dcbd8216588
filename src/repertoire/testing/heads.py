"""What every head must do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.heads import Head
from repertoire.testing._check import Check, agree, buffers_of, checks, described, refused, same_under_torch

__all__ = ["check_head"]

_WIDTH, _CLASSES, _ROWS = 24, 5, 7


def check_head(factory: Callable[..., Head], **options: Any) -> list[Check]:
    """Checks of a head against :class:`repertoire.heads.Head`.

    Args:
        factory: the class, or whatever builds one from `in_features` and `num_classes`.
        options: further options to build it with.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.heads import Linear
        >>> from repertoire.testing import check_head
        >>> for check in check_head(Linear):
        ...     check()
    """
    return checks(_Heads(factory, options))


class _Heads:
    def __init__(self, factory: Callable[..., Head], options: dict[str, Any]) -> None:
        self.factory, self.options = factory, options

    def build(self) -> Head:
        torch.manual_seed(0)
        return self.factory(in_features=_WIDTH, num_classes=_CLASSES, **self.options)

    def features(self, rows: int = _ROWS) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(rows, _WIDTH, generator=generator), torch.arange(rows) % _CLASSES

    def check_it_is_documented(self) -> None:
        described(self.factory)
        assert isinstance(self.build(), Head)

    def check_logits_with_and_without_targets(self) -> None:
        head = self.build()
        for rows in (0, 1, _ROWS):
            z, targets = self.features(rows)
            for training in (True, False):
                head.train(training)
                for logits in (head(z), head(z, targets)):
                    assert logits.shape == (rows, _CLASSES)
                    assert logits.is_floating_point()
                    assert logits.isfinite().all()
            agree(head(z, targets), head(z), rtol=0, atol=0)  # targets are for training

    def check_outputs_begin_with_forward(self) -> None:
        head = self.build().eval()
        z, targets = self.features()
        outputs = head.outputs(z, targets)
        for weight, logits in outputs:
            assert isinstance(weight, float)
            assert weight >= 0
            assert logits.shape == (_ROWS, _CLASSES)
        agree(outputs[0][1], head(z, targets))

    def check_it_grows_or_says_why_not(self) -> None:
        head = self.build().eval()
        z, _ = self.features()
        before, grown = head(z), copy.deepcopy(head)
        try:
            grown.grow(_CLASSES + 2)
        except ConfigError:
            refused(ConfigError, "cannot grow", grown.grow, _CLASSES + 2)
            agree(grown(z), before, rtol=0, atol=0)
            return
        assert grown.num_classes == _CLASSES + 2
        for name in grown.per_class:
            agree(grown.get_parameter(name)[:_CLASSES], head.get_parameter(name), rtol=0, atol=0)
        agree(grown(z)[:, :_CLASSES], before, rtol=1e-5, atol=1e-6)
        twin = self.factory(in_features=_WIDTH, num_classes=_CLASSES + 2, **self.options).eval()
        twin.load_state_dict(grown.state_dict())
        agree(twin(z), grown(z), rtol=0, atol=0)
        refused(ConfigError, "or more", grown.grow, _CLASSES)

    def check_gradients_reach_everything(self) -> None:
        head = self.build().train()
        z, targets = self.features()
        z.requires_grad_()
        torch.stack([w * F.cross_entropy(y, targets) for w, y in head.outputs(z, targets)]).sum().backward()
        if head.passes_gradient:
            assert z.grad is not None
            assert z.grad.isfinite().all()
            assert z.grad.any()
        else:
            assert z.grad is None or not z.grad.any(), "declares that it passes no gradient"
        for name, parameter in head.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name

    def check_rows_do_not_depend_on_each_other_unless_declared(self) -> None:
        head = self.build().eval()
        if head.looks_across:
            z, _ = self.features()
            order = torch.randperm(_ROWS)
            agree(head(z[order]), head(z)[order])  # but not on their order
            assert not torch.allclose(head(z)[:1], head(z[:1])), "declares that it looks across the batch"
            return
        for rows in (_ROWS, 64):
            z, _ = self.features(rows)
            agree(head(z)[2:3], head(z[2:3]))

    def check_its_state_is_complete_and_moves_after_updates_only(self) -> None:
        head, other = self.build(), self.build()
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.add_(torch.randn_like(parameter))
        z, targets = self.features()
        before = buffers_of(head)
        head(z, targets)
        agree(buffers_of(head), before, rtol=0, atol=0)
        if callable(after_update := getattr(head, "after_update", None)):
            after_update()
        other.load_state_dict(head.state_dict())
        agree(other.eval()(z), head.eval()(z), rtol=0, atol=0)
        agree(copy.deepcopy(head)(z), head(z), rtol=0, atol=0)

    def check_any_precision(self) -> None:
        z, targets = self.features()
        expected = self.build().eval()(z)
        for dtype in (torch.bfloat16, torch.float64):
            found = self.build().eval().to(dtype)(z.to(dtype))
            agree(found.float(), expected, rtol=5e-2, atol=2e-1)
        head = self.build().train()
        exact = head(z, targets)
        with torch.autocast("cpu", torch.bfloat16):
            agree(head(z, targets).float(), exact, rtol=2e-2, atol=5e-2)

    def check_it_can_be_exported(self) -> None:
        head = self.build().eval()
        z, _ = self.features()
        agree(torch.export.export(head, (z,)).module()(z), head(z))

    def check_it_can_be_compiled(self) -> None:
        head = self.build().double().train()
        z, targets = self.features()

        def loss(z: Tensor) -> Tensor:
            return F.cross_entropy(head(z, targets), targets)

        torch._dynamo.reset()
        same_under_torch(loss, [z.double()], compiled=torch.compile(loss, backend="aot_eager"))

    def check_functions_of_torch_func(self) -> None:
        head = self.build().double().eval()
        z, targets = self.features()
        weights = {name: value.detach() for name, value in head.named_parameters()}

        def loss(z: Tensor, *values: Tensor) -> Tensor:
            logits = torch.func.functional_call(head, dict(zip(weights, values, strict=True)), (z,))
            return F.cross_entropy(logits, targets)

        same_under_torch(loss, [z.double(), *weights.values()])

    def check_what_does_not_fit_is_refused(self) -> None:
        for size in ({"in_features": 0, "num_classes": 3}, {"in_features": 3, "num_classes": 0}):
            refused(ConfigError, "must be positive", self.factory, **size, **self.options)
        for bad in (torch.zeros(_ROWS, _WIDTH + 1), torch.zeros(_ROWS, _WIDTH, dtype=torch.int64), torch.zeros(_WIDTH)):
            for training in (True, False):
                head = self.build().train(training)
                refused(
                    ShapeError,
                    rf"features must be a floating point \[N, {_WIDTH}\], found {bad.dtype}",
                    head,
                    bad,
                )
