"""A griffe extension: docstrings and signatures that are put together when a class is made.

The pages are made from source text, in which a class of `repertoire.explain` describes only what is its own. What
inspection finds of the same class, its whole docstring and its constructor, takes the place of that.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import griffe

__all__ = ["ComposedClasses"]


class ComposedClasses(griffe.Extension):
    """Gives classes the docstring and the constructor that they have once they are imported."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if not isinstance(obj, griffe.Class) or obj.docstring is None or not obj.parent or not obj.parent.is_module:
            return
        try:
            real = getattr(importlib.import_module(obj.parent.path), obj.name, None)
        except ImportError:  # of an optional dependency
            return
        text = inspect.getdoc(real)
        if not inspect.isclass(real) or not text:
            return
        obj.docstring.value = text
        made = getattr(vars(real).get("__init__"), "__signature__", None)
        if made is not None and "__init__" not in obj.members:
            obj.set_member("__init__", _constructor(made))


def _shown(annotation: Any) -> str | None:
    return None if annotation is inspect.Parameter.empty else inspect.formatannotation(annotation)


def _constructor(signature: inspect.Signature) -> griffe.Function:
    kinds = {kind: griffe.ParameterKind[kind.name.lower()] for kind in inspect._ParameterKind}
    parameters = [
        griffe.Parameter(
            parameter.name,
            kind=kinds[parameter.kind],
            annotation=_shown(parameter.annotation),
            default=None if parameter.default is parameter.empty else repr(parameter.default),
        )
        for parameter in signature.parameters.values()
    ]
    return griffe.Function("__init__", parameters=griffe.Parameters(*parameters))
