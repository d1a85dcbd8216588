"""The catalogue of papers: a card for each, and search over them in plain language.

>>> from repertoire import papers
>>> papers.get("supcon").family
'loss-metric'
>>> [card.slug for card in papers.search("sharpness-aware minimisation", limit=1)]
['sam']
"""

from repertoire.papers._cards import Card, get, load
from repertoire.papers._components import Component, components, family_of
from repertoire.papers._evidence import TIERS, Evidence, Tier, evidence, stored_evidence, tally, user_folder
from repertoire.papers._families import Family, families, family
from repertoire.papers._search import Hit, find, search
from repertoire.papers._status import STATUSES, Status, missing_components

__all__ = [
    "STATUSES",
    "TIERS",
    "Card",
    "Component",
    "Evidence",
    "Family",
    "Hit",
    "Status",
    "Tier",
    "components",
    "evidence",
    "families",
    "family",
    "family_of",
    "find",
    "get",
    "load",
    "missing_components",
    "search",
    "stored_evidence",
    "tally",
    "user_folder",
]
