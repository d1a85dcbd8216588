"""What every diagnostic must do: numbers from features and labels, however they are stored."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repertoire.errors import DataError, ShapeError
from repertoire.testing._check import Check, agree, checks, described, refused

__all__ = ["check_diagnostic"]

_ROWS, _WIDTH, _CLASSES = 40, 6, 4


def check_diagnostic(diagnostic: Callable[..., Any], **options: Any) -> list[Check]:
    """Checks of a diagnostic: `diagnostic(features, labels=None)` gives a number or a named tuple of numbers.

    Args:
        diagnostic: the function.
        options: options to call it with.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.diagnostics import effective_rank
        >>> from repertoire.testing import check_diagnostic
        >>> for check in check_diagnostic(effective_rank):
        ...     check()
    """
    return checks(_Diagnostics(diagnostic, options))


class _Diagnostics:
    def __init__(self, diagnostic: Callable[..., Any], options: dict[str, Any]) -> None:
        self.diagnostic, self.options = diagnostic, options

    def values(self, features: Any, labels: Tensor | None) -> list[float]:
        result = self.diagnostic(features, labels, **self.options)
        numbers = list(result) if isinstance(result, tuple) else [result]
        assert all(isinstance(number, float) for number in numbers), "a diagnostic gives Python floats"
        return numbers

    def finite(self, features: Any, labels: Tensor | None) -> list[float]:
        numbers = self.values(features, labels)
        assert all(map(math.isfinite, numbers)), f"not all of {numbers} are finite"
        return numbers

    def features(self, rows: int = _ROWS, width: int = _WIDTH) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(rows, width, generator=generator), torch.arange(rows) % _CLASSES

    def close(self, found: list[float], expected: list[float], tolerance: float) -> None:
        agree(torch.tensor(found), torch.tensor(expected), rtol=tolerance, atol=1e-7)

    def check_it_is_documented(self) -> None:
        described(self.diagnostic)
        first, second = list(inspect.signature(self.diagnostic).parameters.values())[:2]
        assert (first.name, second.name, second.default) == ("features", "labels", None)

    def check_finite_numbers(self) -> None:
        x, labels = self.features()
        before = x.clone()
        self.finite(x.requires_grad_(), labels)
        agree(x.detach(), before, rtol=0, atol=0)
        assert x.grad is None

    def check_order_and_names_of_the_classes_do_not_matter(self) -> None:
        x, labels = self.features()
        expected = self.values(x, labels)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
        self.close(self.values(x[order], labels[order]), expected, 1e-4)
        self.close(self.values(x, torch.tensor([-1, 2**40, 7, 0])[labels]), expected, 1e-4)

    def check_any_precision(self) -> None:
        x, labels = self.features()
        for dtype in (torch.bfloat16, torch.float16, torch.float64):
            self.close(self.values(x.to(dtype), labels), self.values(x, labels), 2e-2)

    def check_few_rows_and_one_class(self) -> None:
        for rows in (0, 1, 2):
            self.values(*self.features(rows))
        self.values(self.features()[0], torch.zeros(_ROWS, dtype=torch.int64))

    def check_features_without_variety(self) -> None:
        x, labels = self.features()
        x[:, 2] = 5.0
        wide, few = self.features(8, 30)
        for features, classes in (
            (torch.ones(_ROWS, _WIDTH), labels),
            (torch.zeros(_ROWS, _WIDTH), labels),
            (x, labels),
            (wide, few),
        ):
            self.finite(features, classes)

    def check_blocks_and_memory_maps_are_the_whole_matrix(self) -> None:
        import tempfile
        from pathlib import Path

        x, labels = self.features()
        expected = self.values(x, labels)
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "x.npy", x.numpy())
            mapped = np.load(Path(folder) / "x.npy", mmap_mode="r")
            for given in (mapped, list(x.split(7)), lambda: iter(x.split(11))):
                self.close(self.values(given, labels), expected, 1e-6)
            del mapped, given
        refused(ShapeError, "more than one pass", self.diagnostic, iter(x.split(7)), labels, **self.options)

    def check_what_does_not_fit_is_refused(self) -> None:
        few = torch.arange(8) % 2
        for bad in (torch.ones(8), torch.ones(8, 2, 2), torch.ones(8, 2, dtype=torch.int64)):
            refused(ShapeError, "", self.diagnostic, bad, few, **self.options)
        if not self.looks_at_labels():
            return
        x, _ = self.features()
        for count in (_ROWS - 1, _ROWS + 1):
            wrong = torch.zeros(count, dtype=torch.int64)
            refused(ShapeError, "", self.diagnostic, x, wrong, **self.options)

    def looks_at_labels(self) -> bool:
        """Whether other labels of the same features give other numbers."""
        x, labels = self.features()
        return self.values(x, labels) != self.values(x, labels.flip(0) // 2)

    def check_rows_that_are_not_finite_are_named(self) -> None:
        """Or the answer is not a number: a diagnostic that is logged in training must not end it."""
        for bad in (math.nan, math.inf):
            x, labels = self.features()
            x[[3, 31], 2] = bad
            try:
                numbers = self.values(x, labels)
            except DataError as error:
                said: str | None = str(error)
            else:
                said = None
                assert all(map(math.isnan, numbers)), f"{numbers} for features that are not finite"
            assert said is None or "rows 3, 31" in said, said
