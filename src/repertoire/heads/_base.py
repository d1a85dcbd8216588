"""The contract of heads: what turns features into class scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import unit_rows
from repertoire.ranges import AtLeast, checked

__all__ = ["Head", "cosines"]


def cosines(features: Tensor, weight: Tensor) -> Tensor:
    """Cosines `[N, C]` of features `[N, d]` and class vectors `[C, d]`, in float32 or better also where autocast would
    compute them in half precision: a margin is smaller than what would be lost."""
    with torch.autocast(features.device.type, enabled=False):
        z, w = unit_rows(features), unit_rows(weight)
        wide = torch.promote_types(z.dtype, w.dtype)
        return F.linear(z.to(wide), w.to(wide))


class Head(nn.Module):
    """`head(features, targets=None) -> logits`; replaces `nn.Linear` at the end of a classifier.

    Args:
        in_features: d, the width of the features `[N, d]`.
        num_classes: C, the width of the logits `[N, C]`.

    Attributes:
        takes_maps: whether a classifier gives it the backbone's last maps `[N, d, h, w]` instead of features `[N, d]`,
            which it takes too.
        dense: whether of maps it gives logits of every pixel, `[N, C, H, W]`, as targets that are maps need.
        looks_across: whether the answer for a sample depends on the others in its batch.
        passes_gradient: whether its input gets a gradient; the network before a head that passes none is frozen.
        per_class: names of the parameters that have a row for each class, as `get_parameter` takes them; empty where
            the head cannot `grow`.
        cannot_grow: why it cannot, for a message.
        zero: whether rows of new classes begin at zero, as the first ones did.
    """

    takes_maps: bool = False
    dense: bool = False
    looks_across: bool = False
    passes_gradient: bool = True
    per_class: Sequence[str] = ()
    cannot_grow: str = "its parameters have no row for each class"
    zero: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]

    @checked
    def __init__(self, in_features: Annotated[int, AtLeast(1)], num_classes: Annotated[int, AtLeast(1)]) -> None:
        super().__init__()
        self.in_features = in_features
        self.num_classes = num_classes

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits `[N, C]`. Only margin heads look at `targets`, and only while training."""
        raise NotImplementedError

    @checked
    def grow(self, num_classes: Annotated[int, AtLeast(1)]) -> None:
        """Makes room for more classes: rows are added after those that are there, which stay bit for bit.

        New rows are drawn from torch's random state, uniform as in `nn.Linear`, or zero where all began at zero. The
        parameters are new objects, so an optimiser that knew the old ones has to be made anew.

        Args:
            num_classes: C from now on, at least as many as there are.

        Raises:
            ConfigError: fewer classes than there are, or a head that cannot grow.

        Example:
            >>> import torch
            >>> from repertoire.heads import Linear
            >>> head, z = Linear(8, 3), torch.randn(2, 8)
            >>> before = head(z)
            >>> head.grow(5)
            >>> head(z).shape, torch.allclose(head(z)[:, :3], before)
            (torch.Size([2, 5]), True)
        """
        added = num_classes - self.num_classes
        if added < 0:
            raise ConfigError(
                f"num_classes must be {self.num_classes} or more, the classes there are; found {num_classes}"
            )
        if not added:
            return
        self._add(added)
        self.num_classes = num_classes

    def _add(self, added: int) -> None:
        """Adds rows for this many classes."""
        if not self.per_class:
            raise ConfigError(
                f"head {type(self).__name__} cannot grow from {self.num_classes} to {self.num_classes + added} "
                f"classes: {self.cannot_grow}. Use head linear or cosine"
            )
        for path in self.per_class:
            prefix, _, own = path.rpartition(".")
            module, old = self.get_submodule(prefix), self.get_parameter(path)
            width = old.shape[1] if old.ndim > 1 else int(module.in_features)  # type: ignore[arg-type]
            bound = 0.0 if self.zero else width**-0.5
            fresh = old.new_empty(added, *old.shape[1:]).uniform_(-bound, bound)
            grown = nn.Parameter(torch.cat([old.detach(), fresh]), requires_grad=old.requires_grad)
            setattr(module, own, grown)
            if isinstance(module, nn.Linear):
                module.out_features = len(grown)

    def prepare(self, features: Tensor) -> None:
        """Looks at features `[N, d]` of a first training set, before anything is learned. Does nothing by default."""

    def check_features(self, features: Tensor) -> None:
        """Raises `ShapeError` unless features are as wide as the head was made for, and floating point."""
        if features.ndim < 2 or features.shape[-1] != self.in_features or not features.is_floating_point():
            raise ShapeError(
                f"features must be a floating point [N, {self.in_features}], found {features.dtype} "
                f"{list(features.shape)}"
            )

    def outputs(self, features: Tensor, targets: Tensor | None = None) -> Sequence[tuple[float, Tensor]]:
        """Outputs that the loss is applied to: pairs of a weight and logits `[N, C]`. One pair, unless a head trains
        several classifiers at once (Matryoshka, deep supervision)."""
        return [(1.0, self(features, targets))]
