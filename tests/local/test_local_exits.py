"""Early exit: who leaves where, that the answers are right, and that a run has it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import repertoire
from repertoire import backbones, heads
from repertoire.cli import build_app
from repertoire.errors import ConfigError, RunError
from repertoire.local import Exits, LocalLearning
from repertoire.methods import Classifier, Normalize
from repertoire.tasks import exit_table


def sgd(block: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(block.parameters(), lr=0.1, momentum=0.9)


@pytest.fixture(scope="module")
def exits() -> tuple[Exits, Classifier, torch.Tensor]:
    torch.manual_seed(0)
    net = backbones.ResNet(8, in_channels=1, width=4)
    model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 3))
    x, y = torch.rand(40, 1, 8, 8), torch.arange(40) % 3
    learner = LocalLearning(model, 3, "linear", sgd, example=x)
    for _ in range(25):
        learner.step(x, y)
    return Exits(learner.chain, learner.ends, learner.auxiliaries).eval(), model.eval(), x


def test_compaction_gives_what_one_image_at_a_time_gives(exits):
    network, _, x = exits
    with torch.no_grad():
        sure = torch.stack([e.softmax(1).amax(1) for e in network(x)])
        confidence = float(sure[:2].median())
        logits, left = network.predict(x, confidence)
        for row in range(len(x)):
            answers = network(x[row : row + 1])
            stop = next(i for i, e in enumerate(answers) if i == 2 or float(e.softmax(1).max()) >= confidence)
            assert int(left[row]) == stop
            torch.testing.assert_close(logits[row], answers[stop][0], rtol=1e-4, atol=1e-5)
    assert len(left.unique()) == 3, "the test should see all exits"


def test_the_ends_of_the_range(exits):
    network, model, x = exits
    with torch.no_grad():
        assert network.predict(x, 0.0)[1].eq(0).all()
        logits, left = network.predict(x, 1.0)
        assert left.eq(2).all()
        torch.testing.assert_close(logits, model(x))
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="confidence of an early exit"):
            network.predict(x, wrong)


def test_images_that_left_take_no_part_in_what_follows(exits):
    network, _, x = exits
    seen: list[int] = []
    with torch.no_grad():
        confidence = float(network(x)[0].softmax(1).amax(1).median())
        handles = [
            block.register_forward_pre_hook(lambda m, args: seen.append(len(args[0]))) for block in network.blocks
        ]
        _, left = network.predict(x, confidence)
    for handle in handles:
        handle.remove()
    assert seen == [count for i in range(3) if (count := int((left >= i).sum()))]


def test_work_is_counted():
    net = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5))
    learner = LocalLearning(net, 2, "linear", sgd, example=torch.zeros(2, 10))
    network = Exits(learner.chain, learner.ends, learner.auxiliaries)
    assert network.work == pytest.approx([(200 + 100) / 300, (200 + 100 + 100) / 300])


def test_the_table_is_what_it_says():
    probabilities = np.array([[[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]], [[0.2, 0.8], [0.1, 0.9], [0.3, 0.7]]])
    table = exit_table(probabilities, np.array([0, 1, -1]), ["a", "b"], [0.5, 1.0])
    assert [row["accuracy"] for row in table["exits"]] == [0.5, 0.5]
    by_confidence = {row["confidence"]: row for row in table["early_exit"]}
    assert by_confidence[0.5]["shares"] == [1.0, 0.0]
    assert by_confidence[0.7]["shares"] == [0.5, 0.5]
    assert by_confidence[0.7]["accuracy"] == 1.0
    assert by_confidence[0.7]["work"] == 0.75


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> repertoire.train.Run:
    out = tmp_path_factory.mktemp("local") / "run"
    rule = "local:blocks=3,auxiliary=linear"
    return repertoire.train.fit("digits", out=out, rule=rule, epochs=2, backbone="convnet:width=8", ema=0.9)


def test_a_run_of_local_learning_has_exits(run):
    accuracies = [row["accuracy"] for row in run.metrics["exits"]]
    assert len(accuracies) == 3
    assert accuracies[-1] == pytest.approx(run.metrics["accuracy"], abs=1e-9)
    again = repertoire.train.load(run.path)
    assert [row["accuracy"] for row in again.exit_curve()["exits"]] == accuracies
    pixels = again.splits.test.pixels(slice(0, 50))
    whole, left = again.predict_early(pixels, 1.0)
    np.testing.assert_allclose(whole, again.predict(pixels), atol=1e-6)
    assert left.max() == 2
    assert not any("local" in name for name in again.model.state_dict())
    assert sum(p.numel() for p in again.model.parameters()) == run.info["parameters"]


def test_the_commands_show_it(run, tmp_path):
    from PIL import Image

    for i in range(3):
        Image.fromarray(run.splits.test.pixels([i])[0, :, :, 0]).save(tmp_path / f"{i}.png")
    runner, app = CliRunner(), build_app()
    done = runner.invoke(app, ["predict", str(run.path), str(tmp_path), "--early-exit", "0.1", "--format", "json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["exit"] for row in rows] == [1, 1, 1]
    assert "mean work: " in done.stderr
    done = runner.invoke(app, ["predict", str(run.path), str(tmp_path), "--early-exit", "0.1", "--format", "csv"])
    assert done.stdout.splitlines()[0] == "image,rank,class,probability,exit"
    assert "(exit 1)" in runner.invoke(app, ["predict", str(run.path), str(tmp_path), "--early-exit", "0.1"]).stdout
    done = runner.invoke(app, ["evaluate", str(run.path)])
    assert done.exit_code == 0, done.output
    assert "exit 3 after blocks." in done.stdout
    assert "--early-exit 0.95: accuracy" in done.stdout
    done = runner.invoke(app, ["predict", str(run.path), str(tmp_path), "--early-exit", "1.5"])
    assert isinstance(done.exception, ConfigError) or done.exit_code == 2


def test_other_runs_say_what_to_train(tmp_path):
    other = repertoire.train.fit("digits", out=tmp_path / "run", epochs=1, backbone="mlp")
    with pytest.raises(RunError, match="no early exits: it was trained by the rule 'backprop'"):
        _ = other.exits
