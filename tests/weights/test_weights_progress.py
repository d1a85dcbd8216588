"""Long merges that are stopped, and go on to the same bits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.weights import (
    Learning,
    Progress,
    _progress,
    anisotropic,
    fisher,
    greedy_soup,
    permute_least_squares,
    refresh_batchnorm,
    refresh_in_parts,
    regmean,
    twin,
)
from stopping import Killed, Stopping, goes_on, same


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Flatten()
        )
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        return self.head(self.backbone(x))


def network(state, of=0):
    net = Net()
    net.load_state_dict(dict(state))
    return net.eval()


def weights(seed):
    torch.manual_seed(seed)
    net = Net()
    net(torch.rand(20, 2, 4, 4))
    return {name: value.clone() for name, value in net.state_dict().items()}


IMAGES = torch.rand(150, 2, 4, 4, generator=torch.Generator().manual_seed(9))
TARGETS = torch.arange(150) % 3
BASE, STATES = weights(0), [weights(1), weights(2)]


def batches(of=None):
    """Five batches; of each run its own half."""
    chosen = torch.arange(150) if of is None else torch.arange(of, 150, 2)
    for rows in chosen.split(30):
        yield Batch((IMAGES[rows],), TARGETS[rows], rows)


OPERATORS = {
    "anisotropic": lambda progress: anisotropic(STATES, BASE, network, batches, steps=7, images=8, progress=progress),
    "anisotropic, entropy": lambda progress: anisotropic(
        STATES, BASE, network, batches, steps=7, images=8, rate=0.05, objective="entropy", progress=progress
    ),
    "fisher": lambda progress: fisher(STATES, network, batches, samples=20, progress=progress),
    "regmean": lambda progress: regmean(STATES, network, batches, progress=progress),
    "twin": lambda progress: twin(STATES, BASE, network, batches, rank=2, samples=40, progress=progress),
    "permute-least-squares": lambda progress: permute_least_squares(
        STATES, network, batches, samples=150, progress=progress
    ),
}


@pytest.mark.parametrize("during", [False, True])
@pytest.mark.parametrize("name", OPERATORS)
def test_whoever_is_stopped_at_any_time_goes_on_to_the_same_bits(name, during, tmp_path, monkeypatch):
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    assert goes_on(OPERATORS[name], tmp_path, during=during) >= 2


def test_a_soup_goes_on_and_asks_no_score_again(tmp_path):
    """A score takes a pass over the validation images; the sums of the soup take no time."""
    asked: list[float] = []

    def score(state):
        asked.append(float(state["head.bias"].sum()))
        return -abs(asked[-1])

    states = [*STATES, BASE, weights(3)]

    def soup(progress):
        return greedy_soup(states, score if progress is None else progress.scored(score))

    assert goes_on(soup, tmp_path) == 2 * len(states) - 1
    lines: list[str] = []
    progress = Progress(tmp_path / "p", "key", lines.append)
    same(soup(progress), soup(None))
    asked.clear()
    found = soup(progress)
    assert not asked
    assert not lines  # what it has made itself is not what it goes on with
    assert found.ingredients == soup(None).ingredients


def test_what_was_kept_is_not_computed_again(tmp_path):
    """Of two runs whose moments are there already, no sample is looked at."""
    expected = regmean(STATES, network, batches, progress=Progress(tmp_path / "p", "key"))

    def nothing(of=None):
        raise AssertionError("looked at samples")

    same(regmean(STATES, network, nothing, progress=Progress(tmp_path / "p", "key")), expected)


def test_learning_goes_on_in_the_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    with pytest.raises(Killed):
        OPERATORS["anisotropic"](Stopping(tmp_path, 4, False))
    kept = Progress(tmp_path, "key").load("factors")
    assert kept.told["step"] == 4
    assert {"tensor.coefficients", "tensor.before", "tensor.buffer.0.backbone.1.running_var"} <= kept.tensors.keys()
    assert {"optimizer.0.exp_avg", "optimizer.0.exp_avg_sq", "optimizer.0.step"} <= kept.tensors.keys()


class Drawing(nn.Module):
    """Draws in every pass, and has running statistics."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2))

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)])
def test_all_state_of_a_training_loop_is_kept(kind, tmp_path, monkeypatch):
    """Weights, running statistics, the optimiser, its rate, and what layers and the loop draw."""
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    x = torch.rand(16, 4, generator=torch.Generator().manual_seed(1))

    def work(progress):
        progress = progress or Progress()
        net, generator = Drawing(), torch.Generator().manual_seed(2)
        optimizer = kind(net.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        learning, begin = Learning(tensors, optimizer, schedule, [generator]), 0
        torch.manual_seed(3)
        if (kept := progress.load("net")) is not None:
            learning.put_back(kept)
            begin = kept.told["step"]
        for step in range(begin, 6):
            rows = torch.randint(16, (8,), generator=generator)
            optimizer.zero_grad()
            net(x[rows]).square().mean().backward()
            optimizer.step()
            schedule.step()
            progress.save("net", learning.state()[0], {**learning.state()[1], "step": step + 1})
        return {**net.state_dict(), "next": torch.rand(1), "drawn": torch.rand(1, generator=generator)}

    assert goes_on(work, tmp_path) == 6


def test_items_are_gone_through_once(tmp_path, monkeypatch):
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    total, seen = torch.zeros(1), []

    def through(progress, items=(1, 2, 3, 4)):
        total.zero_()
        for item in progress.through(
            "sum", items, lambda: ({"total": total}, {}), lambda k: total.copy_(k.tensors["total"])
        ):
            seen.append(item)
            total.add_(item)
        return {"total": total.clone()}

    assert goes_on(lambda progress: through(progress or Progress()), tmp_path) == 4
    seen.clear()
    with pytest.raises(Killed):
        through(Stopping(tmp_path / "p", 2, False))
    through(Progress(tmp_path / "p", "key"))
    assert seen == [1, 2, 3, 4]
    # Behind the last one nothing is left, and in the middle something always is.
    assert through(Progress(tmp_path / "p", "key")) == {"total": torch.tensor([10.0])}
    assert seen == [1, 2, 3, 4]
    assert through(Progress(tmp_path / "q", "key"), ()) == {"total": torch.zeros(1)}
    assert not (tmp_path / "q").exists()


def test_statistics_go_on_in_the_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(_progress, "EVERY", 0.0)

    def work(progress):
        net = network(BASE)
        assert refresh_in_parts(net, batches(), progress or Progress(), "statistics")
        return net.state_dict()

    assert goes_on(work, tmp_path) == 5
    whole = network(BASE)
    refresh_batchnorm(whole, batches())
    same(work(None), whole.state_dict())
    with pytest.raises(ConfigError, match="batches is empty"):
        refresh_in_parts(network(BASE), [], Progress(tmp_path / "p", "key"), "statistics")
    assert not refresh_in_parts(nn.Linear(1, 1), [], Progress(tmp_path / "p", "key"), "statistics")


def test_keeping_takes_a_twentieth_of_the_time_at_most(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])

    def slowly(*_):
        now[0] += 4.0

    monkeypatch.setattr(_progress, "write_bytes", slowly)
    progress = Progress(tmp_path, "key")
    now[0] += _progress.EVERY - 1
    assert not progress.due()
    now[0] += 1
    assert progress.due()
    progress.save("x", {})
    now[0] += 19 * 4.0
    assert not progress.due()
    now[0] += 4.0 + _progress.EVERY
    assert progress.due()


def test_what_is_refused_is_not_gone_on_with(tmp_path):
    progress = Progress(tmp_path / "p", "key")

    def ends(error):
        with progress.unless_refused():
            progress.save("x", {})
            raise error

    with pytest.raises(ConfigError):
        ends(ConfigError("no"))
    assert not (tmp_path / "p").exists()
    with pytest.raises(Killed):
        ends(Killed())
    assert progress.holds()


def test_what_cannot_be_gone_on_with_is_discarded_with_a_line(tmp_path):
    lines: list[str] = []
    Progress(tmp_path, "one").save("x", {"a": torch.arange(100)})
    Progress(tmp_path, "one").save("y", {})
    mine = Progress(tmp_path, "two", lines.append)
    mine.save("z", {"a": torch.arange(100)})
    mine.sift()
    assert [file.name for file in tmp_path.iterdir()] == ["z.safetensors"]
    assert len(lines) == 1
    assert "of other runs, data or options, or of another version, and is discarded" in lines[0]
    assert mine.sift().load("z") is not None
    assert len(lines) == 1  # it kept that itself
    mine = Progress(tmp_path, "two", lines.append)
    assert mine.sift().load("z") is not None
    assert lines[1:] == [f"goes on with what was kept in {tmp_path}"]
    # One other bit is enough.
    file = tmp_path / "z.safetensors"
    found = bytearray(file.read_bytes())
    found[-9] ^= 1
    file.write_bytes(found)
    assert mine.load("z") is None
    assert lines[2:] == [f"z.safetensors in {tmp_path} is damaged and is discarded: its part begins anew"]
    assert not file.exists()
    file.write_bytes(b"half of a fi")
    mine.sift()
    assert not file.exists()
    assert len(lines) == 4


def test_only_what_belongs_to_the_same_merge_is_taken_up(tmp_path):
    first = Progress(tmp_path / "p", "one")
    first.save("x", {"a": torch.tensor([0.1, float("nan")])}, {"rate": 0.1 + 0.2, "lost": float("inf")})
    kept = Progress(tmp_path / "p", "one").load("x")
    assert kept.told == {"rate": 0.1 + 0.2, "lost": float("inf")}
    assert kept.tensors["a"].isnan().tolist() == [False, True]
    assert first.holds()
    other = Progress(tmp_path / "p", "two")
    assert other.load("x") is None
    assert not other.holds()
    assert first.load("y") is None
    file = tmp_path / "p" / "x.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    assert first.load("x") is None
    assert not first.holds()


def test_nothing_is_kept_nowhere_and_what_others_put_there_stays(tmp_path):
    nowhere = Progress()
    nowhere.save("x", {"a": torch.ones(1)})
    assert nowhere.load("x") is None
    assert not nowhere.due()
    assert not nowhere.holds()
    nowhere.clear()
    progress = Progress(tmp_path / "p", "key")
    progress.save("x", {"a": torch.ones(1)})
    (tmp_path / "p" / "mine.txt").write_text("mine")
    progress.clear()
    assert [file.name for file in (tmp_path / "p").iterdir()] == ["mine.txt"]
