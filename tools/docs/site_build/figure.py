"""The evidence of a claim as a figure: what each seed gave, the interval, and the threshold."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repertoire.claims import Evidence

__all__ = ["differences_figure", "ticks"]

WIDTH, HEIGHT = 640, 150
LEFT, RIGHT = 24, 24
SEEDS_Y, MEAN_Y, AXIS_Y = 50, 92, 122


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers that cover the range, at most `most` inside it.

    >>> ticks(-0.013, 0.041)
    [-0.01, 0.0, 0.01, 0.02, 0.03, 0.04]
    """
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= most)
    digits = max(0, -math.floor(math.log10(step)))
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(number * step, digits) + 0.0 for number in range(first, last + 1)]


def differences_figure(evidence: Evidence) -> str:
    """A figure with an inline SVG: a circle a seed, the mean with its interval below, the threshold as a dashed line.

    The horizontal axis is the difference in favour of the method. Colours come from the style sheet, so that the figure
    follows the theme; shape and position say everything, so that nothing depends on telling colours apart.
    """
    interval = evidence.interval or (evidence.mean, evidence.mean)
    values = [*evidence.differences, *interval, evidence.threshold, 0.0]
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.01
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def label(value: float, text: str, kind: str, y: int) -> str:
        anchor = "start" if x(value) < 70 else "end" if x(value) > WIDTH - 70 else "middle"
        return f'<text class="{kind}" x="{x(value)}" y="{y}" text-anchor="{anchor}">{text}</text>'

    marks = ticks(low, high)
    digits = max((len(f"{mark:g}".partition(".")[2]) for mark in marks), default=0)
    parts = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{AXIS_Y}" y2="{AXIS_Y}"/>']
    for mark in marks:
        parts.append(f'<line class="axis" x1="{x(mark)}" x2="{x(mark)}" y1="{AXIS_Y}" y2="{AXIS_Y + 5}"/>')
        text = f"{mark:+.{digits}f}" if mark else "0"
        parts.append(f'<text x="{x(mark)}" y="{AXIS_Y + 19}" text-anchor="middle">{text}</text>')
    if evidence.threshold != 0:
        parts.append(f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="26" y2="{AXIS_Y}"/>')
    threshold = evidence.threshold
    parts.append(f'<line class="threshold" x1="{x(threshold)}" x2="{x(threshold)}" y1="26" y2="{AXIS_Y}"/>')
    parts.append(label(threshold, f"threshold {threshold:+g}" if threshold else "threshold 0", "threshold-label", 18))
    for seed, difference in zip(evidence.seeds, evidence.differences, strict=True):
        hint = f"seed {seed}: {difference:+.4f}"
        row = SEEDS_Y + 9 * (seed % 3 - 1)  # so that equal differences stay apart
        parts.append(f'<circle class="seed" cx="{x(difference)}" cy="{row}" r="5"><title>{hint}</title></circle>')
    start, end = (x(bound) for bound in interval)
    parts.append(f'<line class="interval" x1="{start}" x2="{end}" y1="{MEAN_Y}" y2="{MEAN_Y}"/>')
    parts += [
        f'<line class="interval" x1="{bound}" x2="{bound}" y1="{MEAN_Y - 6}" y2="{MEAN_Y + 6}"/>'
        for bound in (start, end)
    ]
    centre = x(evidence.mean)
    diamond = f"{centre - 7},{MEAN_Y} {centre},{MEAN_Y - 7} {centre + 7},{MEAN_Y} {centre},{MEAN_Y + 7}"
    parts.append(f'<polygon class="mean" points="{diamond}"><title>mean: {evidence.mean:+.4f}</title></polygon>')
    described = (
        f"{len(evidence.seeds)} paired differences, mean {evidence.mean:+.4f}, {evidence.confidence:.1%} interval "
        f"{interval[0]:+.4f} to {interval[1]:+.4f}, threshold {threshold:+g}: {evidence.verdict}"
    )
    caption = (
        f"Difference of {html.escape(evidence.metric)}; positive favours the method. "
        f"Circles are seeds, the diamond and the bar their mean and its {evidence.confidence:.1%} interval."
    )
    return (
        '<figure class="evidence-plot">'
        f'<svg class="evidence-figure" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{described}">'
        f"{''.join(parts)}</svg><figcaption>{caption}</figcaption></figure>"
    )
