"""What can be performed and comes from no paper of the catalogue, described like the cards by the need it answers."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repertoire.papers._cards import get

if TYPE_CHECKING:
    from repertoire.registry import Entry

__all__ = ["Component", "components", "family_of"]

FILE = Path(__file__).parent / "components.toml"

_USE = {
    "losses": "--loss {}", "heads": "--head {}", "methods": "--method {}", "rules": "--rule {}",
    "backbones": "--backbone {}", "augmentations": "--augment {}", "auxiliaries": "--rule local:auxiliary={}",
    "explainers": "repertoire explain --explainer {}", "options": "--{}", "commands": "repertoire {}",
    "feature-estimators": "repertoire fit-features --estimator {}",
    "zero-shot-classifiers": "repertoire fit-features --attributes FILE --estimator {}",
    "weight-operators": "repertoire merge --by {}", "compressors": "repertoire compress --by {}",
    "discoverers": "repertoire discover --method {}",
    "novelty-scores": "repertoire predict --reject 0.95 --score {}",
}  # fmt: skip


@dataclass(frozen=True)
class Component:
    """A registered component, an option of `repertoire train`, a command or a function that has no card.

    Attributes:
        name: what the user types.
        kind: the kind that it is registered as, or "options", "commands" or "functions".
        family: slug of the family of needs that it belongs to.
        summary: what it does, in one sentence.
        keywords: what a person would type who needs it.
    """

    name: str
    kind: str
    family: str
    summary: str
    keywords: tuple[str, ...]

    @property
    def use(self) -> str:
        """Option that chooses it on the command line, or the name where Python is the only way."""
        return _USE.get(self.kind, "{}").format(self.name)


@functools.cache
def components() -> tuple[Component, ...]:
    """All of them, in the order of the file.

    >>> next(item.use for item in components() if item.name == "logit-adjusted")
    '--loss logit-adjusted'
    """
    rows = tomllib.loads(FILE.read_text(encoding="utf-8"))["component"]
    return tuple(Component(**row | {"keywords": tuple(row["keywords"])}) for row in rows)


def family_of(entry: Entry) -> str | None:
    """The family of needs that a registered component belongs to: its paper's, or the one it is described with here.

    >>> from repertoire import registry
    >>> family_of(registry.get("losses", "supcon")), family_of(registry.get("losses", "ldam"))
    ('loss-metric', 'long-tail')
    """
    if entry.paper is not None:
        return get(entry.paper).family
    return next((item.family for item in components() if (item.kind, item.name) == (entry.kind, entry.name)), None)
