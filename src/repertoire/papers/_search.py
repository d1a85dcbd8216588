"""Search over the cards for a need put in plain words.

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
from itertools import pairwise

from repertoire.papers._cards import Card, load
from repertoire.papers._families import families

__all__ = ["search"]

_WEIGHTS = {"slug": 4.0, "keywords": 4.0, "title": 3.0, "summary": 1.5, "claim": 1.0}
_FAMILY = 1.5  # weight of a match with the family's description
_FIT = {"core": 1.0, "portable": 0.9, "evidence": 0.85, "outside": 0.7}
_SATURATION = 1.5  # k1 of BM25
_LENGTH = 0.5  # b of BM25
_PAIR = 0.5  # weight of two words side by side, beyond that of each
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


def search(query: str, limit: int = 10) -> list[Card]:
    """The cards that answer a need, best first; empty if no word of the query is known.

    Args:
        query: a need in plain words, a method's name, or both. A card whose slug it is comes first.
        limit: at most this many.

    >>> search("sharpness-aware minimisation", limit=1)[0].slug
    'sam'
    """
    terms = _expand(_terms(query))
    by_family = _score(terms, _family_index())
    scores = _score(terms, _card_index())
    cards = {card.slug: card for card in load()}
    for card in cards.values():
        if card.family in by_family:
            scores[card.slug] += _FAMILY * by_family[card.family]
    exact = query.strip().lower()
    if exact in cards:
        scores[exact] = math.inf
    ranked = sorted(scores, key=lambda slug: (-scores[slug] * _FIT[cards[slug].fit], slug))
    return [cards[slug] for slug in ranked[: max(0, limit)]]


Index = dict[str, dict[str, float]]
"""term -> document -> what the term adds to the document's score."""


def _score(terms: Mapping[str, float], index: Index) -> defaultdict[str, float]:
    scores: defaultdict[str, float] = defaultdict(float)
    for term, weight in terms.items():
        for document, impact in index.get(term, {}).items():
            scores[document] += weight * impact
    return scores


@functools.cache
def _card_index() -> Index:
    return _build(
        {
            card.slug: [
                (_WEIGHTS["slug"], card.slug),
                (_WEIGHTS["title"], card.title),
                (_WEIGHTS["summary"], card.summary),
                (_WEIGHTS["claim"], card.claim),
                *((_WEIGHTS["keywords"], keyword) for keyword in card.keywords),
            ]
            for card in load()
        }
    )


@functools.cache
def _family_index() -> Index:
    """A need in plain words often matches what a family is for better than it matches any one of its papers."""
    return _build({family.slug: [(2.0, family.title), (1.0, family.description)] for family in families()})


def _build(documents: Mapping[str, Sequence[tuple[float, str]]]) -> Index:
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
