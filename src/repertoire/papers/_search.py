"""Search over cards and components for a need put in plain words.

BM25F (Robertson, Zaragoza and Taylor, *Simple BM25 extension to multiple weighted fields*, 2004): a term's occurrences
are counted with the weight of the field they stand in, damped once, and weighted by how rare the term is. Words are
stemmed lightly, neighbouring words also count as a pair, and a small table says which words mean the same.
"""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from repertoire.papers._cards import Card, load
from repertoire.papers._components import components
from repertoire.papers._families import families
from repertoire.papers._status import Status

__all__ = ["Hit", "find", "search"]

_WEIGHTS = {"slug": 4.0, "keywords": 4.0, "title": 3.0, "summary": 1.5, "claim": 1.0}
_FAMILY = 1.5  # weight of a match with the family's description
_FIT = {"core": 1.0, "portable": 0.9, "evidence": 0.85, "outside": 0.7}
_SATURATION = 1.5  # k1 of BM25
_LENGTH = 0.5  # b of BM25
_PAIR = 0.5  # weight of two words side by side, beyond that of each
_NEAR = 0.8  # share of the best score from which what can be performed counts as an answer
_SYNONYM = 0.4  # weight of a word that only means the same

_BREAK = re.compile(r"[,.;:!?()]+\s|[()]")
_WITHOUT = re.compile(r"\b(?:without|no|lacking|missing)(?: any| the| using| human)* (?:labels?|annotations?)\b")

_STOP_WORDS = """
    a about all am an and any are as at be been but by can could do does each else for from get give gets had has
    have how i if in into is it its just like may me more most much my no not of on one only or other our out over
    own so some such than that the their them then there these they this those to too up use used uses using very
    want was we were what when which while who why will with without would yet you your hundred thousand million
    nobody nothing
"""
_STOP = frozenset(_STOP_WORDS.split())

_SYNONYMS = (
    "image photo picture photograph",
    "class category",
    "label annotation annotate tag",
    "unlabelled unsupervised self-supervised semi-supervised",
    "wrong noisy noise incorrect mislabel corrupt dirty",
    "imbalance unbalance tail rare minority skew uneven",
    "memory gpu vram ram",
    "fast speed quick accelerate cheap efficient",
    "small tiny compact short light compress prune",
    "phone mobile edge embedded device",
    "delete remove erase forget unlearn",
    "average merge combine soup",
    "new novel unseen unknown unfamiliar",
    "find search retrieve lookup",
    "similar near nearest close alike",
    "explain explanation interpret why saliency heatmap attribution",
    "look attention focus saliency highlight",
    "hospital client site institution decentralise federate",
    "private privacy share confidential",
    "outlier anomaly unusual odd abnormal",
    "group cluster",
    "embed feature representation",
    "truncate shorten cut nest",
    "shift domain camera distribution",
    "flat sharp sharpness",
    "shot example sample",
    "five few handful",
    "later incremental sequential lifelong continual",
    "choose pick select query",
    "confidence calibrate uncertainty probability trust",
    "reject abstain defer",
    "train learn",
    "measure metric diagnose",
    "loss objective",
    "network model",
)


@dataclass(frozen=True)
class Hit:
    """One answer to a need.

    Attributes:
        name: slug of the paper, or name of the component.
        kind: "paper", a kind of component such as "losses", or "options".
        family: slug of the family.
        status: of the paper; "built" for a component.
        title: of the paper; what the component does.
        use: what performs it: the dotted names of a paper's components, the option that chooses a component; empty
            where nothing does yet.
    """

    name: str
    kind: str
    family: str
    status: Status
    title: str
    use: tuple[str, ...]


def find(query: str, limit: int = 10) -> list[Hit]:
    """Papers and components that answer a need, best first, with what can be performed before what cannot.

    What is performable comes first as far as it answers the need nearly as well as the best answer of all; behind it
    the papers follow that nothing performs yet. Components that come from no paper of the catalogue are found as well.

    Args:
        query: a need in plain words, a name, or both. What bears exactly that name comes first.
        limit: at most this many.

    >>> {hit.name for hit in find("few labels, long-tailed classes", limit=3)} & {"logit-adjusted", "balanced"} != set()
    True
    """
    cards = {card.slug: card for card in load()}
    ranked = _ranked(query)
    best = max((score for _, score in ranked if score < math.inf), default=0.0)
    near = [key for key, score in ranked if score == math.inf or (_performable(key) and score >= _NEAR * best)]
    others = [key for key, _ in ranked if key not in set(near)]
    return [_hit(key, cards) for key in [*near, *others][: max(0, limit)]]


def search(query: str, limit: int = 10) -> list[Card]:
    """The cards that answer a need, in the order of `find`; empty if no word of the query is known.

    Args:
        query: a need in plain words, a method's name, or both. A card whose slug it is comes first.
        limit: at most this many.

    >>> search("sharpness-aware minimisation", limit=1)[0].slug
    'sam'
    """
    cards = {card.slug: card for card in load()}
    found = find(query, len(cards) + len(components()))
    return [cards[hit.name] for hit in found if hit.kind == "paper"][: max(0, limit)]


Key = tuple[str, str]
"""Of a document: "paper" or the kind of a component, and its name."""


def _ranked(query: str) -> list[tuple[Key, float]]:
    """All documents that share a word with the query, best first, with their scores."""
    terms = _expand(_terms(query))
    by_family = _score(terms, _family_index())
    scores = _score(terms, _document_index())
    families_, fits = _families_and_fits()
    for key, family in families_.items():
        if family in by_family:
            scores[key] += _FAMILY * by_family[family]
    weighted = {key: score * fits[key] for key, score in scores.items()}
    exact = query.strip().lower()
    weighted |= {key: math.inf for key in families_ if key[1] == exact}
    return sorted(weighted.items(), key=lambda item: (-item[1], item[0][1]))


@functools.cache
def _families_and_fits() -> tuple[dict[Key, str], dict[Key, float]]:
    papers = {("paper", card.slug): card for card in load()}
    others = {(item.kind, item.name): item for item in components()}
    return (
        {key: item.family for key, item in (papers | others).items()},
        {key: _FIT[card.fit] for key, card in papers.items()} | dict.fromkeys(others, 1.0),
    )


@functools.cache
def _built() -> frozenset[str]:
    return frozenset(card.slug for card in load() if card.components)


def _performable(key: Key) -> bool:
    return key[0] != "paper" or key[1] in _built()


def _hit(key: Key, cards: Mapping[str, Card]) -> Hit:
    kind, name = key
    if kind == "paper":
        card = cards[name]
        return Hit(name, kind, card.family, card.status, card.title, card.components)
    item = next(item for item in components() if (item.kind, item.name) == key)
    return Hit(name, kind, item.family, "built", item.summary, (item.use,))


Index = dict[str, dict[Any, float]]
"""term -> document -> what the term adds to the document's score."""


def _score(terms: Mapping[str, float], index: Index) -> defaultdict[Any, float]:
    scores: defaultdict[Any, float] = defaultdict(float)
    for term, weight in terms.items():
        for document, impact in index.get(term, {}).items():
            scores[document] += weight * impact
    return scores


@functools.cache
def _document_index() -> Index:
    cards = {
        ("paper", card.slug): [
            (_WEIGHTS["slug"], card.slug),
            (_WEIGHTS["title"], card.title),
            (_WEIGHTS["summary"], card.summary),
            (_WEIGHTS["claim"], card.claim),
            *((_WEIGHTS["keywords"], keyword) for keyword in card.keywords),
        ]
        for card in load()
    }
    others = {
        (item.kind, item.name): [
            (_WEIGHTS["slug"], item.name),
            (_WEIGHTS["summary"], item.summary),
            *((_WEIGHTS["keywords"], keyword) for keyword in item.keywords),
        ]
        for item in components()
    }
    return _build(cards | others)


@functools.cache
def _family_index() -> Index:
    """A need in plain words often matches what a family is for better than it matches any one of its papers."""
    return _build({family.slug: [(2.0, family.title), (1.0, family.description)] for family in families()})


def _build(documents: Mapping[Any, Sequence[tuple[float, str]]]) -> Index:
    """The BM25F index of documents, each a list of weighted fields."""
    postings: Index = defaultdict(dict)
    lengths = {}
    for name, fields in documents.items():
        counts: defaultdict[str, float] = defaultdict(float)
        for weight, text in fields:
            for term in _terms(text):
                counts[term] += weight
        lengths[name] = sum(counts.values())
        for term, count in counts.items():
            postings[term][name] = count
    mean = sum(lengths.values()) / max(1, len(lengths))
    damping = {name: _SATURATION * (1 - _LENGTH + _LENGTH * length / mean) for name, length in lengths.items()}
    for found in postings.values():
        rarity = math.log(1 + (len(documents) - len(found) + 0.5) / (len(found) + 0.5))
        for name, count in found.items():
            found[name] = rarity * count / (count + damping[name])
    return dict(postings)


def _terms(text: str) -> list[str]:
    """Stems, and pairs of neighbours; a pair does not reach across punctuation."""
    terms = []
    for phrase in _BREAK.split(_WITHOUT.sub("unlabelled", text.lower())):
        stems = [_stem(word) for word in re.findall(r"[a-z0-9]+", phrase.replace("'s", "")) if word not in _STOP]
        terms += stems
        terms += [f"{first} {second}" for first, second in pairwise(stems)]
    return terms


def _expand(terms: Iterable[str]) -> dict[str, float]:
    """The query's terms with weight one, and what means the same with less."""
    weights: dict[str, float] = {}
    for term in terms:
        weight = _PAIR if " " in term else 1.0
        for other in _same(term):
            weights[other] = max(weights.get(other, 0.0), _SYNONYM * weight)
        weights[term] = weight
    return weights


def _same(term: str) -> Iterator[str]:
    groups = _groups()
    words = term.split()
    for position, word in enumerate(words):
        for other in groups.get(word, ()):
            yield " ".join([*words[:position], other, *words[position + 1 :]])


@functools.cache
def _groups() -> dict[str, set[str]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for line in _SYNONYMS:
        stems = {" ".join(_stem(part) for part in word.split("-")) for word in line.split()}
        for stem in stems:
            groups[stem] |= stems - {stem}
    return dict(groups)


_ENDINGS = "isations isation ations ation ities ingly edly ings ness ity ing ies ed es er ly s e y"
_SUFFIXES = tuple(_ENDINGS.split())


@functools.cache
def _stem(word: str) -> str:
    """A word without its ending: enough to bring labelled, labels and labeling together, and British with American.

    >>> {_stem("labelled"), _stem("labels"), _stem("labeling")} == {"label"}
    True
    """
    word = word.replace("iz", "is").replace("our", "or") if len(word) > 4 else word
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiou":
        word = word[:-1]
    return word.removesuffix("is") if len(word) > 5 else word
