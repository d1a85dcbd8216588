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
    "labelled a hundred images, have a million without labels": {"semi-supervised", "ssl"},
    "better loss than cross entropy for a classifier": {"loss-classification", "loss-metric"},
    "flat minima generalise better": {"sam"},
}


def test_the_queries_ask_for_what_exists() -> None:
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


# what a person types -> what performs it: one of these must be among the first three answers
PERFORMED = {
    "few labels, long-tailed classes": {"logit-adjusted", "balanced-softmax", "ldam", "balanced"},
    "one class dwarfs the others": {"class-weights", "balanced"},
    "my GPU runs out of memory": {"memory", "checkpoint", "local"},
    "some of my labels are wrong": {"diagnose"},
    "likely wrong labels in my data": {"diagnose"},
    "images without labels": {"simclr", "byol", "moco", "simsiam", "dino"},
    "small batches without labels": {"moco", "decoupled-contrastive", "tico"},
    "recognise a new class from five examples": {"nearest-centroid", "rfs"},
    "where does the network look in the image": {"grad-cam", "normgrad", "layer-cam"},
    "which heat map can I trust": {"explain --judge"},
    "average the weights of several fine-tuned models": {"model-soups"},
    "search among classes that were not trained on": {"circle", "gsv-cities"},
    "face verification with very many classes": {"arcface", "cosface"},
    "several labels per image": {"asl"},
    "predict a number instead of a class": {"mse", "huber", "classification-helps-regression"},
    "fine-tune a pretrained network on few images": {"lite0", "tune"},
    "a model that may say I do not know": {"reject-fixed-predictor"},
    "has my representation collapsed": {"effective-rank", "participation-ratio"},
    "embeddings that can be cut short": {"mrl"},
    "which of two models is better": {"compare"},
    "how many more images do I need": {"repertoire.diagnostics.fit_power_law"},
}


def test_the_needs_ask_for_what_exists() -> None:
    assert len(PERFORMED) == 21
    known = {card.slug for card in papers.load() if card.components} | {item.name for item in papers.components()}
    assert set().union(*PERFORMED.values()) <= known


@pytest.mark.parametrize("query", PERFORMED)
def test_what_can_be_performed_comes_first(query: str) -> None:
    found = papers.find(query, limit=3)
    assert {hit.name for hit in found} & PERFORMED[query], [(hit.name, hit.status) for hit in found]
    assert found[0].use
    assert found[0].status != "open"


def test_a_need_that_nothing_performs_is_not_answered_with_something_else() -> None:
    found = papers.find("delete one person's photos from a trained model", limit=5)
    assert {hit.family for hit in found} == {"unlearning"}


def test_the_cards_stand_in_the_same_order_among_all_answers() -> None:
    for query in PERFORMED:
        everything = [hit.name for hit in papers.find(query, limit=1000) if hit.kind == "paper"]
        assert [card.slug for card in papers.search(query, limit=1000)] == everything
