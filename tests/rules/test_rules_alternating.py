from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import Method, Needs, Step
from repertoire.ops import Queue
from repertoire.rules import Alternating, Backprop, Rule


class Game(Method):
    """A generator g and a critic d of scalars: L_d = (d - g)^2 + 3 d, L_g = (g + d) g; and what each pass saw."""

    needs = Needs(step="whole")

    def __init__(self, critic: float = 1.0, generator: float = 2.0) -> None:
        super().__init__()
        self.critic, self.generator = Scalar(critic), Scalar(generator)
        self.norm = nn.BatchNorm1d(1, affine=False)
        self.queue = Queue(8, 1)
        self.seen: list[tuple[float, float]] = []

    def parts(self) -> Mapping[str, nn.Module]:
        return {"critic": self.critic, "generator": self.generator}

    def step(self, batch: Batch) -> Step:
        d, g = self.critic.value, self.generator.value
        self.seen.append((float(d.detach()), float(torch.rand(()))))
        self.norm(batch.images.flatten(1))
        self.queue.see(batch.images.flatten(1))
        critic, generator = (d - g) ** 2 + 3 * d, (g + d) * g
        return Step(critic + generator, {"critic": critic.detach()}, {"critic": critic, "generator": generator})


class Scalar(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))


def batch_of(count: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 1, 1, 1, generator=generator)
    return Batch((images,), torch.zeros(count, dtype=torch.long), torch.arange(count))


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)


def set_up(method: Method, rule: Rule | None = None, **options: object) -> Rule:
    rule = rule or Alternating()
    rule.setup(method, sgd, **options)
    return rule


@pytest.mark.parametrize("pieces", [1, 2])
def test_parts_learn_in_turns_and_the_second_sees_what_the_first_became(pieces: int):
    method = Game()
    rule = set_up(method, accumulate=pieces)
    torch.manual_seed(0)
    d, g = 1.0, 2.0
    for _ in range(2):
        rule.step(method, batch_of())
    speed_d = speed_g = 0.0
    for _ in range(2):
        speed_d = 0.9 * speed_d + 2 * (d - g) + 3
        d -= 0.1 * speed_d
        speed_g = 0.9 * speed_g + 2 * g + d
        g -= 0.1 * speed_g
    assert float(method.critic.value) == pytest.approx(d, rel=1e-5)
    assert float(method.generator.value) == pytest.approx(g, rel=1e-5)
    assert all(p.grad is None and p.requires_grad for p in method.parameters())


def test_passes_draw_alike_and_only_the_first_counts():
    method = Game()
    rule = set_up(method)
    torch.manual_seed(7)
    rule.step(method, batch_of())
    after = torch.rand(())
    torch.manual_seed(7)
    torch.rand(())
    assert torch.equal(after, torch.rand(())), "the random state moves once a step"
    (_, first), (_, second) = method.seen
    assert first == second
    assert method.norm.num_batches_tracked == 1
    assert len(method.queue) == 4


def test_the_state_is_complete_between_two_steps():
    method = Game()
    rule = set_up(method)
    rule.step(method, batch_of())
    other_method = Game()
    other = set_up(other_method)
    other_method.load_state_dict(copy.deepcopy(method.state_dict()))
    other.load_state_dict(copy.deepcopy(rule.state_dict()))
    for each, trained in ((rule, method), (other, other_method)):
        each.step(trained, batch_of())
    assert len(rule.optimizers) == 2
    for a, b in zip(method.state_dict().values(), other_method.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_clipping_is_of_a_part():
    method = Game()
    rule = set_up(method, clip=1e-3)
    rule.step(method, batch_of())
    assert float(method.critic.value) == pytest.approx(1 - 0.1e-3, abs=1e-6)
    assert float(method.generator.value) == pytest.approx(2 - 0.1e-3, abs=1e-6)


def test_other_rules_refuse_parts_and_parts_must_be_all_of_it():
    with pytest.raises(ConfigError, match=r"rule 'backprop' cannot train method Game: .* Use rule alternating"):
        set_up(Game(), Backprop())
    method = Game()
    method.left = nn.Linear(1, 1)
    with pytest.raises(ConfigError, match=r"no part of method Game trains left\.weight, left\.bias"):
        set_up(method)
    method = Game()
    method.generator.twin = method.critic.value
    with pytest.raises(ConfigError, match="the parts 'critic' and 'generator' of method Game share twin"):
        set_up(method)
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(ConfigError, match="does not work in float16"):
        set_up(Game(), fabric=Fabric(accelerator="cpu", plugins=precision))

    class Silent(Game):
        def step(self, batch: Batch) -> Step:
            found = super().step(batch)
            return Step(found.loss, found.logs, {"critic": found.losses["critic"]})

    method = Silent()
    rule = set_up(method)
    with pytest.raises(ConfigError, match=r"gives no loss for its part 'generator': Step\.losses has critic"):
        rule.step(method, batch_of())
