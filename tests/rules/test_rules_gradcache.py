from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from repertoire import backbones, heads, losses, ops
from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import nt_xent_loss, supcon_loss
from repertoire.methods import Classifier, Embedding, Method, Needs, Normalize
from repertoire.rules import Backprop, GradCache, Rule, cached_backward


def network(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3)).double()


def gradients(*modules: nn.Module) -> list[Tensor]:
    return [p.grad for module in modules for p in module.parameters()]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("chunk", [1, 3, 4, 11, 50])
def test_is_the_gradient_of_the_whole_batch(chunk):
    views = draw(0, 11, 5), draw(1, 11, 5)
    whole, parts = network(), network()
    expected = nt_xent_loss(*(whole(view) for view in views))
    expected.backward()
    found = cached_backward(parts, views, nt_xent_loss, chunk=chunk)
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(gradients(parts), gradients(whole), rtol=1e-9, atol=1e-12)
    assert not found.requires_grad


def test_mean_of_the_losses_of_pieces_is_another_gradient():
    """What plain accumulation would give, so that the test above could fail."""
    views = draw(0, 12, 5), draw(1, 12, 5)
    whole, parts = network(), network()
    nt_xent_loss(*(whole(view) for view in views)).backward()
    for start in (0, 6):
        (nt_xent_loss(*(parts(view[start : start + 6]) for view in views)) / 2).backward()
    assert not torch.allclose(gradients(parts)[0], gradients(whole)[0], rtol=1e-2)


class Scaled(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.scale * x @ y.T).logsumexp(1).mean() - self.scale * (x[: len(y)] * y[: len(x)]).sum()


def test_two_towers_of_different_lengths_and_a_loss_that_learns():
    x, y = draw(0, 9, 5), draw(1, 7, 5)[:, :4]
    torch.manual_seed(1)
    towers = network(), nn.Linear(4, 3).double()
    loss = Scaled()
    again = copy.deepcopy(towers)
    loss_again = copy.deepcopy(loss)

    def cut(z: Tensor, w: Tensor) -> Tensor:
        return loss_again(z[:7], w)

    loss(towers[0](x)[:7], towers[1](y)).backward()
    cached_backward(again, (x, y), cut, chunk=2)
    torch.testing.assert_close(gradients(*again, loss_again), gradients(*towers, loss))


def test_dropout_draws_the_same_numbers_twice_and_the_loss_its_own():
    """With chunks of the whole batch the masks are those of a plain pass, and so is what comes after them."""
    views = [draw(0, 10, 5)]
    whole, parts = network(0.5), network(0.5)

    def loss(z: Tensor) -> Tensor:
        return (z * torch.rand_like(z)).sum() + z.square().sum()

    torch.manual_seed(7)
    loss(whole(views[0])).backward()
    expected = torch.rand(3)
    torch.manual_seed(7)
    cached_backward(parts, views, loss, chunk=10)
    torch.testing.assert_close(gradients(parts), gradients(whole))
    assert torch.equal(torch.rand(3), expected)


def test_dropout_in_chunks_is_the_gradient_for_the_masks_that_were_drawn():
    class Recorded(nn.Module):
        def __init__(self, masks: list[Tensor] | None) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 3).double()
            self.masks, self.given = [], masks

        def forward(self, x: Tensor) -> Tensor:
            mask = torch.bernoulli(torch.full((len(x), 3), 0.5, dtype=x.dtype)) if self.given is None else self.given
            self.masks.append(mask)
            return self.layer(x) * mask

    labels = torch.arange(10) % 3
    x = draw(0, 10, 5)
    parts = Recorded(None)
    cached_backward(parts, [x], lambda z: supcon_loss(z, labels), chunk=4)
    first, second = torch.cat(parts.masks[:3]), torch.cat(parts.masks[3:])
    assert torch.equal(first, second)
    whole = Recorded(first)
    whole.load_state_dict(parts.state_dict())
    supcon_loss(whole(x), labels).backward()
    torch.testing.assert_close(gradients(parts), gradients(whole))


def test_running_statistics_move_once_for_each_chunk():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)).double()
    expected = copy.deepcopy(net)
    x = draw(0, 12, 5)
    for piece in x.split(4):
        expected(piece)
    cached_backward(net, [x], lambda z: z.pow(3).sum(), chunk=4)
    for name, buffer in expected.named_buffers():
        torch.testing.assert_close(dict(net.named_buffers())[name], buffer)
    assert net.training


def test_gradients_are_added_and_frozen_encoders_left_alone():
    net = network()
    cached_backward(net, [draw(0, 6, 5)], lambda z: z.sum(), chunk=2)
    once = [g.clone() for g in gradients(net)]
    cached_backward(net, [draw(0, 6, 5)], lambda z: z.sum(), chunk=4)
    torch.testing.assert_close(gradients(net), [2 * g for g in once])
    net.requires_grad_(False)
    cached_backward([net, nn.Identity()], [draw(0, 6, 5), draw(1, 6, 3)], lambda a, b: (a * b).sum(), chunk=4)
    torch.testing.assert_close(gradients(net), [2 * g for g in once])


def test_arguments_that_do_not_fit():
    with pytest.raises(ConfigError, match="chunk must be positive, found 0"):
        cached_backward(network(), [draw(0, 6, 5)], Tensor.sum, chunk=0)
    with pytest.raises(ConfigError, match="chunk must be positive, found -1"):
        GradCache(chunk=-1)
    with pytest.raises(ShapeError, match="2 for 1 inputs"):
        cached_backward([network(), network()], [draw(0, 6, 5)], Tensor.sum)


def method(loss: losses.Loss) -> Method:
    torch.manual_seed(0)
    net = backbones.ViT(in_channels=1, image_size=8, patch=4, dim=8, depth=1, heads=2)
    model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 3))
    return Embedding(model, loss, dimensions=4)


def batch(count: int = 10) -> Batch:
    generator = torch.Generator().manual_seed(1)
    views = tuple(torch.rand(count, 1, 8, 8, generator=generator) for _ in range(2))
    return Batch(views, torch.arange(count) % 3, torch.arange(count))


@pytest.mark.parametrize("loss", [losses.SupCon, losses.NTXent])
def test_the_rule_takes_the_step_of_backprop(loss):
    trained: list[Method] = []
    logs = []
    rules: list[Rule] = [Backprop(), GradCache(chunk=3)]
    for rule in rules:
        trained.append(method(loss()))
        rule.setup(trained[-1], lambda m: torch.optim.SGD(m.parameters(), lr=0.1))
        rule.step(trained[-1], batch())
        logs.append(rule.step(trained[-1], batch()))
    torch.testing.assert_close(dict(trained[1].state_dict()), dict(trained[0].state_dict()), rtol=1e-5, atol=1e-6)
    assert logs[0].keys() == logs[1].keys()
    torch.testing.assert_close(logs[1], logs[0], rtol=1e-5, atol=1e-6)


def test_a_method_with_a_step_of_its_own_is_refused():
    class Own(Method):
        needs = Needs(step="whole")

    with pytest.raises(ConfigError, match=r"rule 'gradcache' cannot train method Own: .* makes a step of its own"):
        GradCache().setup(Own(), lambda m: torch.optim.SGD(m.parameters(), lr=0.1))


def test_activations_of_a_chunk_are_all_that_is_kept():
    """Bytes that autograd saves at the same time, for a batch of one size and of eight times that."""

    def peak(count: int, chunk: int | None) -> int:
        net, x = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(4))), torch.randn(count, 16)
        alive, most = 0, 0

        class Saved:
            def __init__(self, tensor: Tensor) -> None:
                nonlocal alive, most
                self.tensor = tensor
                alive += tensor.numel()
                most = max(most, alive)

            def __del__(self) -> None:
                nonlocal alive
                alive -= self.tensor.numel()

        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            if chunk is None:
                net(x).square().sum().backward()
            else:
                cached_backward(net, [x], lambda z: z.square().sum(), chunk=chunk)
        return most

    assert peak(512, None) > 7 * peak(64, None)
    assert peak(512, 64) < 2 * peak(64, 64)


@pytest.mark.parametrize("how", ["module", "function", "bound method"])
def test_statistics_follow_one_pass_however_the_encoder_is_given(how: str):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.layer, self.queue = nn.BatchNorm1d(4), nn.Linear(4, 2), Queue(16, 4)

        def embed(self, x: Tensor) -> Tensor:
            self.queue(x)
            return self.layer(self.norm(x))

        forward = embed

    class Queue(ops.Queue):
        def forward(self, x: Tensor) -> None:
            self.see(x)

    net = Net()
    encoder = {"module": net, "function": lambda x: net(x), "bound method": net.embed}[how]
    cached_backward(encoder, [torch.randn(8, 4)], lambda z: z.square().sum(), chunk=4)
    assert net.norm.num_batches_tracked == 2
    net.queue.after_update()
    assert len(net.queue) == 8


def test_a_list_of_modules_is_an_encoder_for_each_input():
    towers = nn.ModuleList([nn.Linear(4, 2), nn.Linear(3, 2)])
    inputs = torch.randn(6, 4), torch.randn(6, 3)
    cached_backward(towers, inputs, lambda a, b: (a * b).sum(), chunk=4)
    expected = torch.autograd.grad((towers[0](inputs[0]) * towers[1](inputs[1])).sum(), list(towers.parameters()))
    for parameter, gradient in zip(towers.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
