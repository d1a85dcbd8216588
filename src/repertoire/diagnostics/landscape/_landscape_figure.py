"""Pictures of landscapes, as SVG."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from repertoire.diagnostics.landscape._landscape import Landscape
from repertoire.errors import DataError, ShapeError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure_svg", "landscape_svg"]


def landscape_svg(landscape: Landscape, *, path: Tensor | None = None, levels: int = 14) -> str:
    """A landscape as a picture: a curve for a line, contours for a plane.

    Contours go up in equal steps of the logarithm of the loss where it varies by more than ten times, and in equal
    steps of the loss otherwise. Colours get lighter from low to high at an even pace, so that the picture can be read
    in grey and by the colour-blind, and each line is labelled. Points where the loss is infinite or nan are left white.

    Args:
        landscape: of :func:`repertoire.diagnostics.loss_landscape`.
        path: `[T, 2]`, points to draw as a path over a plane: the coordinates of a
            :class:`repertoire.diagnostics.Trajectory`.
        levels: number of contours, at least 2.

    Returns:
        The text of an SVG image, the same for the same landscape.

    Raises:
        DataError: no loss is finite. ShapeError: a path that is not `[T, 2]`, or for a line.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import Landscape, landscape_svg
        >>> x = torch.linspace(-1, 1, 9, dtype=torch.float64)
        >>> landscape_svg(Landscape(x, None, x.square(), 0.0))[:5]
        '<?xml'
    """
    from matplotlib.figure import Figure

    loss = landscape.loss.numpy()
    if not np.isfinite(loss).any():
        raise DataError("no loss of the landscape is finite; look closer to the centre with a smaller span")
    if path is not None and (landscape.y is None or path.ndim != 2 or path.shape[1] != 2):
        raise ShapeError(f"path must be [T, 2], over a plane; found {list(path.shape)}")
    figure = Figure(figsize=(5.2, 4.2) if landscape.y is not None else (5.2, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("step along the first direction")
    if landscape.y is None:
        axes.plot(landscape.x.numpy(), np.where(np.isfinite(loss), loss, np.nan), color="#1f3a5f")
        axes.set_ylabel("loss")
        axes.axvline(0, color="#888888", linewidth=0.8, linestyle=":")
    else:
        _contours(figure, axes, landscape, loss, levels)
        if path is not None:
            axes.plot(*path.cpu().numpy().T, color="black", linewidth=2.4)
            axes.plot(*path.cpu().numpy().T, color="white", linewidth=1.0, marker="o", markersize=3)
        axes.plot(0, 0, marker="+", color="white", markersize=9, markeredgewidth=2.2)
        axes.plot(0, 0, marker="+", color="black", markersize=9, markeredgewidth=1.0)
        axes.set_ylabel("step along the second direction")
    return figure_svg(figure)


def _contours(figure: Figure, axes: Any, landscape: Landscape, loss: np.ndarray, levels: int) -> None:
    assert landscape.y is not None
    shown = np.ma.masked_invalid(loss)
    low, high = float(shown.min()), float(shown.max())
    if high <= low:
        high = low + max(abs(low), 1.0) * 1e-6
    logarithmic = low > 0 and high / low > 10
    steps = np.geomspace(low, high, levels) if logarithmic else np.linspace(low, high, levels)
    norm = "log" if logarithmic else None
    grid = (landscape.x.numpy(), landscape.y.numpy())
    filled = axes.contourf(*grid, shown, levels=steps, cmap="cividis", norm=norm)
    lines = axes.contour(*grid, shown, levels=steps, colors="white", linewidths=0.6)
    axes.clabel(lines, lines.levels[1::3], fmt=_label, fontsize=7)
    figure.colorbar(filled, ax=axes, label="loss", format=lambda value, _: _label(value))


def _label(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else ""


def figure_svg(figure: Figure) -> str:
    """A figure as SVG text without a date or random names, so that the same figure gives the same text."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "repertoire", "svg.fonttype": "path"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
