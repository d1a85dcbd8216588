"""One way to make a page of a template: style and script inside it, and a policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

from markupsafe import Markup

from repertoire.report import _text

__all__ = ["render"]


def render(
    template: str,
    content: Mapping[str, Any],
    *,
    styles: Sequence[str] = ("style.css",),
    script: str | None = None,
    images: str = "data:",
    filters: Mapping[str, Callable[..., Any]] | None = None,
) -> str:
    """A page that opens offline.

    Args:
        template, styles, script: names of files of this room.
        content: what the template fills in. Text is escaped.
        images: where pictures may come from, as a content security policy says it.
        filters: of the template, beside those that write numbers.
    """
    import jinja2

    def text(name: str) -> str:
        return resources.files("repertoire.report").joinpath(name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("repertoire.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=_text.count,
        duration=_text.duration,
        label=_text.label,
        number=_text.number,
        percent=_text.percent,
        signed=_text.signed,
        **(filters or {}),
    )
    policy = f"default-src 'none'; img-src {images}; style-src 'unsafe-inline'"
    given: dict[str, Any] = {"style": Markup("".join(map(text, styles)))}
    if script is not None:
        # The page's own script may run and nothing else, whatever the names in the data look like.
        source = text(script)
        policy += f"; script-src 'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
        given["script"] = Markup(source)
    return environment.get_template(template).render(content, policy=policy, **given)
