"""A run that may say that it does not know: what it promises, and which runs cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire import train
from repertoire.errors import ConfigError, RunError
from repertoire.openset import COSTARR, Energy


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
