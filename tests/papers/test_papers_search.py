"""Search finds the right papers for plain-language needs. The queries were written before the ranking was tuned."""

from __future__ import annotations

import pytest

from repertoire import papers

# what a person types -> families or slugs, one of which must be among the first five
QUERIES = {
    "few labels, long-tailed classes": {"long-tail", "daso"},
    "some of my labels are wrong": {"weak-supervision"},
    "my GPU runs out of memory when training a deep network": {"local-learning", "gradcache"},
    "where does the network look in the image": {"explanation"},
    "delete one person's photos from a trained model": {"unlearning"},
    "average the weights of several fine-tuned models": {"model-soups"},
    "learn features without any labels": {"ssl"},
    "recognise a new class from five examples": {"few-shot"},
    "add new classes later without forgetting the old ones": {"continual"},
    "which images should I label next": {"active-learning"},
    "train across hospitals that cannot share their data": {"federated"},
    "make the model smaller for a phone": {"compression"},
    "group images of categories nobody has named yet": {"novel-class"},
    "detect inputs that look nothing like the training data": {"novel-class"},
    "find similar images in a large collection": {"retrieval", "loss-metric"},
    "short embeddings that can be truncated": {"mrl"},
    "my test data come from a different camera than my training data": {"adaptation"},
    "labelled a hundred images, have a million without labels": {"semi-supervised"},
    "better loss than cross entropy for a classifier": {"loss-classification", "loss-metric"},
    "flat minima generalise better": {"sam"},
}


def test_there_are_twenty_queries_and_they_ask_for_what_exists() -> None:
    known = {family.slug for family in papers.families()} | {card.slug for card in papers.load()}
    assert len(QUERIES) == 20
    assert set().union(*QUERIES.values()) <= known


@pytest.mark.parametrize("query", QUERIES)
def test_a_plain_query_finds_its_family_or_paper(query: str) -> None:
    found = papers.search(query, limit=3)
    hits = [card for card in found if {card.family, card.slug} & QUERIES[query]]
    assert hits, f"{query!r} found {[(card.slug, card.family) for card in found]}"


def test_search_is_not_satisfied_by_a_family_that_always_wins() -> None:
    first = [papers.search(query, limit=1)[0].family for query in QUERIES]
    assert max(first.count(family) for family in first) <= 3


@pytest.mark.parametrize("slug", ["supcon", "grad-cam", "sam", "simclr", "model-soups", "mrl"])
def test_a_name_finds_its_paper_first(slug: str) -> None:
    assert papers.search(slug)[0].slug == slug
    assert papers.search(f"  {slug.upper()} ")[0].slug == slug


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("noisy labels", "noisy labelling"),
        ("colour constancy", "color constancy"),
        ("regularisation", "regularization"),
    ],
)
def test_spelling_and_endings_do_not_matter(one: str, other: str) -> None:
    assert [card.slug for card in papers.search(one)] == [card.slug for card in papers.search(other)]


def test_limits_and_queries_without_a_known_word() -> None:
    assert len(papers.search("labels", limit=7)) == 7
    assert papers.search("labels", limit=0) == []
    assert papers.search("") == papers.search("the of and") == papers.search("zzzzqqqq") == []
    assert papers.search("???!!") == []
