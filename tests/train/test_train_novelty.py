"""A run that may say that it does not know: what it promises, and which runs cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire import train
from repertoire.errors import ConfigError, RunError
from repertoire.openset import COSTARR, Energy, MonteCarloDropout, NearestNeighbours, threshold


@pytest.fixture(scope="module")
def run(options: dict, tmp_path_factory: pytest.TempPathFactory) -> train.Run:
    return train.fit(out=tmp_path_factory.mktemp("run") / "a", **options)


def test_scores_are_those_of_the_component_fitted_to_training_samples(run):
    images = run.splits.test
    found = run.outputs(images)
    rejector = run.reject(0.9, "costarr")
    head = run.model.head.linear
    seen = run.outputs(run.splits.train)
    score = COSTARR(head.weight.detach(), head.bias.detach()).fit(seen.embeddings, seen.logits, seen.labels)
    np.testing.assert_allclose(rejector.scores(images), score(found.embeddings, found.logits), rtol=1e-5)
    np.testing.assert_array_equal(rejector.known(images), rejector.scores(images) >= rejector.threshold)
    np.testing.assert_allclose(rejector.predict(images), run.predict(images))
    np.testing.assert_allclose(
        run.reject(0.9, "energy").scores(images), Energy().fit(logits=found.logits)(logits=found.logits), rtol=1e-5
    )


def test_the_share_that_is_kept_is_about_as_promised(run):
    """240 images are few: of 36 or so for the threshold, 80 % of new ones are kept within the range that is said."""
    kept = run.reject(0.8, "energy").known(run.splits.test).mean()
    assert 0.55 <= kept <= 1.0


def test_where_all_validation_images_are_needed_the_score_is_chosen_among_those_of_training(run):
    count = len(run.splits.val)
    rejector = run.reject(count / (count + 1))
    assert rejector.validation == count
    assert rejector.spec == rejector.choice.best
    found = run.outputs(run.splits.val)
    scores = rejector.score(found.embeddings, found.logits)
    assert rejector.threshold == pytest.approx(scores.min())
    assert run.reject(0.8).validation == count // 2
    with pytest.raises(ConfigError, match=f"it takes {count + 1} or more. Keep less, .*val='0.3'"):
        run.reject((count + 1) / (count + 2))


def test_images_are_named_and_given_by_an_iterator(run):
    pixels = run.splits.test.inputs(np.arange(6))
    rejector = run.reject(0.9, "max-softmax")
    names = rejector.predict_classes(iter([image[..., 0] for image in pixels]))
    plain = run.predict_classes([image[..., 0] for image in pixels])
    known = rejector.known([image[..., 0] for image in pixels])
    assert names == [name if fine else train.UNKNOWN for name, fine in zip(plain, known, strict=True)]
    with pytest.raises(ConfigError, match="leave out tta"):
        rejector.predict(pixels[..., 0], tta=True)


def test_a_last_layer_that_is_not_linear_has_no_such_scores(options, tmp_path):
    run = train.fit(out=tmp_path / "cosine", **{**options, "epochs": 1, "head": "cosine"})
    with pytest.raises(ConfigError, match="this network has none"):
        run.reject(0.9, "vim")
    found = run.novelty(torch.rand(12, 1, 8, 8), scores=("vim", "energy"))
    assert "this network has none" in found["scores"][0]["reason"]
    assert 0 <= found["scores"][1]["auroc"] <= 1
    with pytest.raises(ConfigError, match="no score can be used"):
        run.novelty(torch.rand(12, 1, 8, 8), scores=("vim", "costarr"))


def test_a_score_of_the_last_layer_that_learns_nothing(run):
    head, found = run.model.head.linear, run.outputs(run.splits.test)
    score = MonteCarloDropout(head.weight.detach(), head.bias.detach()).fit(found.embeddings)
    np.testing.assert_allclose(
        run.reject(0.9, "mc-dropout").scores(run.splits.test), score(found.embeddings), rtol=1e-4, atol=1e-6
    )


def test_unknown_images_are_measured_against_test_images(run):
    other = torch.rand(20, 1, 8, 8)
    found = run.novelty(other, scores=("costarr",))
    head = run.model.head.linear
    seen, test = run.outputs(run.splits.train), run.outputs(run.splits.test)
    score = COSTARR(head.weight.detach(), head.bias.detach()).fit(seen.embeddings, seen.logits, seen.labels)
    with torch.no_grad():
        features, logits = run.model.embed_and_score(other)
    known, unknown = score(test.embeddings, test.logits), score(features, logits)
    expected = (known[:, None] > unknown).mean()
    assert found["scores"][0]["auroc"] == pytest.approx(expected, abs=0.01)


def test_a_run_without_classes_knows_none(run, monkeypatch):
    monkeypatch.setattr(run, "task", type("Task", (), {"kind": "number"})())
    with pytest.raises(RunError, match="no class for each image"):
        run.reject(0.9)
    with pytest.raises(RunError, match="no class for each image"):
        run.novelty()


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> train.Run:
    """A run on features without any label: rows around one point."""
    rows = np.random.default_rng(0).normal(size=(160, 6)).astype(np.float32) + 4
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    np.savez(path, features=rows)
    return train.fit(path, method="mean-shifted", epochs=1, out=path.parent / "run", seed=0)


def test_a_run_without_classes_says_known_or_unknown(normal):
    rejector = normal.reject(0.9)
    assert rejector.spec == "knn:neighbours=2,normalize=false"  # standardised rows lie about zero
    assert rejector.classes == ("known",)
    away = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32) - 4
    names = rejector.predict_classes(np.concatenate([normal.splits.test.inputs(np.arange(9)), away]))
    assert names[9:] == ["unknown"] * 9
    assert names[:9].count("known") >= 5
    np.testing.assert_array_equal(rejector.predict(away), np.ones((9, 1)))


def test_scores_of_a_run_without_classes_are_those_of_the_features(normal):
    features = {part: normal.embed(getattr(normal.splits, part)) for part in ("train", "val")}
    score = NearestNeighbours(neighbours=2, normalize=False).fit(features["train"])
    rejector = normal.reject(0.8)
    assert rejector.threshold == pytest.approx(threshold(score(features["val"]), 0.2), rel=1e-5)
    assert rejector.validation == len(features["val"])


def test_what_is_measured_of_a_run_without_classes(normal):
    away = np.random.default_rng(1).normal(size=(30, 6)).astype(np.float32) - 4
    found = normal.novelty(away, scores=("knn:normalize=false", "energy", "costarr"))
    assert found.keys() == {"known", "unknown", "keep", "coverages", "scores"}
    assert found["known"] == len(normal.splits.test)
    row = found["scores"][0]
    assert row["auroc"] == 1.0
    assert "oscr" not in row
    assert "aurc" not in row
    assert all("looks at classes" in other["reason"] for other in found["scores"][1:])
    assert [row["score"] for row in normal.novelty(away)["scores"]] == [normal.reject(0.9).spec, "deep-svdd"]
    with pytest.raises(ConfigError, match="looks at classes"):
        normal.reject(0.9, "energy")
    with pytest.raises(ConfigError, match="has no two classes"):
        normal.novelty()


def test_thresholds_and_histograms_go_with_the_numbers(run):
    other = torch.rand(40, 1, 8, 8)
    row = run.novelty(other, scores=("energy",))["scores"][0]
    test, val = run.outputs(run.splits.test), run.outputs(run.splits.val)
    score = Energy().fit(logits=val.logits)
    assert row["threshold"] == pytest.approx(threshold(score(logits=val.logits), 0.05), rel=1e-5)
    known = score(logits=test.logits)
    assert row["passed"]["known"] == pytest.approx((known >= row["threshold"]).mean())
    histogram = row["histogram"]
    assert len(histogram["edges"]) == len(histogram["known"]) + 1
    assert (sum(histogram["known"]), sum(histogram["unknown"])) == (len(known), 40)
    inside = [np.histogram(known, histogram["edges"])[0], histogram["known"]]
    np.testing.assert_array_equal(inside[0][1:-1], inside[1][1:-1])  # those far outside are in the first and the last
