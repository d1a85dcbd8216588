"""What local learning promises in a loop of one's own."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import backbones, heads, losses, registry
from repertoire.data import Batch
from repertoire.errors import ConfigError, NonFiniteLoss, ShapeError, UnknownName
from repertoire.local import Local, LocalLearning
from repertoire.methods import Classifier, Embedding, Method, Normalize, Supervised


def sgd(block: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(block.parameters(), lr=0.1, momentum=0.9)


def mlp(*, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Linear(6, 6), nn.Tanh(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(6, 3))


def small(classes: int = 3) -> Classifier:
    torch.manual_seed(0)
    net = backbones.ResNet(8, in_channels=1, width=4)
    return Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, classes))


def images(count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 1, 8, 8, generator=generator), torch.arange(count) % 3


def test_a_step_is_what_the_formula_says():
    """Every block's weights move by the gradient of its own loss alone, at the input that the blocks before it gave."""
    net = mlp().double()
    x, y = torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 3
    learner = LocalLearning(net, "all", "linear", sgd, example=x)
    reference, readouts = copy.deepcopy(net), copy.deepcopy(learner.auxiliaries)
    learner.step(x, y)
    h = x
    parts = [reference[0:3], reference[3:6], reference[6:9], reference[9:]]
    for index, part in enumerate(parts):
        out = part(h)
        logits = readouts[index](out) if index < 3 else out
        parameters = [*part.parameters(), *(readouts[index].parameters() if index < 3 else ())]
        gradients = torch.autograd.grad(F.cross_entropy(logits, y), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.1 * gradient
        h = out.detach()
    for mine, theirs in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(learner.auxiliaries.parameters(), readouts.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_a_block_learns_the_same_whatever_follows_it():
    x, y = images()
    first, second = small(), small()
    with torch.no_grad():
        for parameter in second.backbone.blocks[-1].parameters():
            parameter.mul_(3)
        second.head.linear.weight.mul_(-1)
    for net in (first, second):
        torch.manual_seed(5)
        learner = LocalLearning(net, 3, "linear", sgd, at=("blocks.0", "blocks.2"), example=x)
        learner.step(x, y)
    for block in range(3):
        for a, b in zip(
            first.backbone.blocks[block].parameters(), second.backbone.blocks[block].parameters(), strict=True
        ):
            assert torch.equal(a, b)


def test_one_block_is_back_propagation():
    x, y = images()
    net, reference = small(), small()
    logs = LocalLearning(net, 1, "linear", sgd, example=x).step(x, y)
    loss = F.cross_entropy(reference(x), y)
    optimizer = sgd(reference)
    loss.backward()
    optimizer.step()
    assert torch.equal(logs["loss"], loss.detach())
    for a, b in zip(net.state_dict().values(), reference.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_graph_is_gone_before_the_next_block_begins():
    """When a block runs, nothing that the blocks before it saved is alive, and none of them has a gradient."""
    x, y = images()
    net = small()
    learner = LocalLearning(net, "all", "linear", sgd, example=x)
    inner: list[weakref.ref[Tensor]] = []
    alive, gradients = [], []

    def look(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        gc.collect()
        alive.append(sum(ref() is not None for ref in inner))
        gradients.append(sum(p.grad is not None for b in learner.trainer.blocks for p in b.parameters()))

    def record(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        inner.append(weakref.ref(output))

    for block in net.backbone.blocks:
        block.register_forward_pre_hook(look)
        for layer in block.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(record)
    learner.step(x, y)
    assert alive == [0] * len(net.backbone.blocks)
    assert gradients == [0] * len(net.backbone.blocks)


def test_pieces_add_up_to_the_batch():
    """Without batch normalisation, accumulation changes nothing but rounding."""
    x, y = torch.randn(9, 6, dtype=torch.float64), torch.arange(9) % 3
    weights = []
    for pieces in (1, 3):
        net = mlp().double()
        torch.manual_seed(3)
        learner = LocalLearning(net, 2, "linear", sgd, example=x, accumulate=pieces)
        for _ in range(3):
            logs = learner.step(x, y)
        weights.append([*net.parameters(), *learner.auxiliaries.parameters(), logs["loss"], logs["block1_loss"]])
    for a, b in zip(*weights, strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_of_a_block_depends_on_step_and_block_alone():
    x, y = torch.randn(64, 6), torch.arange(64) % 3
    masks: list[Tensor] = []
    net = mlp(dropout=0.5)
    net[5].register_forward_hook(lambda module, args, output: masks.append(output == 0))
    learner = LocalLearning(net, "all", "linear", sgd, example=x)
    masks.clear()
    torch.manual_seed(7)
    learner.step(x, y)
    learner.step(x, y)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    learner.step(x, y)
    assert torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(state, torch.get_rng_state())


def test_clipping_is_by_block():
    x, y = images()
    net = small()
    learner = LocalLearning(net, 2, "linear", lambda b: torch.optim.SGD(b.parameters(), lr=1.0), clip=1e-3, example=x)
    before = [[p.detach().clone() for p in block.parameters()] for block in learner.trainer.blocks]
    learner.step(x, y)
    for old, block in zip(before, learner.trainer.blocks, strict=True):
        moved = torch.stack([(a - b).norm() for a, b in zip(old, block.parameters(), strict=True)]).norm()
        assert 0.9e-3 < moved < 1.01e-3


@pytest.mark.parametrize(
    "loss", [losses.Focal(), losses.SupCon(), losses.AlignUniform(), nn.CrossEntropyLoss(label_smoothing=0.1)]
)
def test_any_loss_can_be_the_local_one(loss):
    x, y = images(24)
    net = small()
    if isinstance(loss, losses.AlignUniform):
        method: Method = Embedding(net, loss, dimensions=8)
        batch = Batch((x, x.flip(3)), y, torch.arange(24))
        rule = Local(blocks=2, auxiliary="linear")
        rule.setup(method, sgd, example=x)
        values = [rule.step(method, batch) for _ in range(15)]
    elif isinstance(loss, losses.SupCon):
        method = Embedding(net, loss, dimensions=8)
        batch = Batch((x, x.flip(3)), y, torch.arange(24))
        rule = Local(blocks=2, auxiliary="linear")
        rule.setup(method, sgd, example=x)
        values = [rule.step(method, batch) for _ in range(15)]
        assert "readout_loss" in values[0]
    else:
        learner = LocalLearning(net, 2, "linear", sgd, loss=loss, example=x)
        values = [learner.step(x, y) for _ in range(15)]
    assert values[-1]["block1_loss"] < values[0]["block1_loss"]
    assert values[-1]["loss"] < values[0]["loss"]


def test_state_goes_on_where_it_was():
    x, y = images()
    net = small()
    learner = LocalLearning(net, 2, "linear", sgd, example=x)
    learner.step(x, y)
    other = small()
    again = LocalLearning(other, 2, "linear", sgd, example=x)
    other.load_state_dict(net.state_dict())
    again.load_state_dict(copy.deepcopy(learner.state_dict()))
    for _ in range(2):
        learner.step(x, y)
        again.step(x, y)
    for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ConfigError, match=r"cut into 2 blocks .* this one has 3"):
        LocalLearning(small(), 3, "linear", sgd, example=x).load_state_dict(learner.state_dict())


def test_exits_are_the_auxiliary_classifiers_and_the_network():
    x, y = images()
    net = small()
    learner = LocalLearning(net, 3, "linear", sgd, example=x)
    learner.step(x, y)
    learner.eval()
    found = learner.exits(x)
    assert [e.shape for e in found] == [(12, 3)] * 3
    torch.testing.assert_close(found[-1], net(x))
    assert not torch.equal(found[0], found[1])


def test_blocks_can_be_compiled():
    x, y = images()
    torch.manual_seed(0)
    net, reference = small(), small()
    torch.manual_seed(2)
    compiled = LocalLearning(net, 2, "linear", sgd, example=x, compile="aot_eager")
    torch.manual_seed(2)
    plain = LocalLearning(reference, 2, "linear", sgd, example=x)
    for _ in range(2):
        a, b = compiled.step(x, y), plain.step(x, y)
        torch.testing.assert_close(a["loss"], b["loss"], rtol=1e-4, atol=1e-5)


def test_bf16_and_channels_last():
    from lightning_fabric import Fabric

    x, y = images(24)
    net = small().to(memory_format=torch.channels_last)
    learner = LocalLearning(net, 2, "linear", sgd, example=x, fabric=Fabric(accelerator="cpu", precision="bf16-mixed"))
    kinds = []
    net.backbone.blocks[-1].register_forward_pre_hook(lambda module, args: kinds.append(args[0].dtype))
    values = [float(learner.step(x.to(memory_format=torch.channels_last), y)["loss"]) for _ in range(15)]
    assert set(kinds) == {torch.bfloat16}, "what passes between blocks stays in the precision it was computed in"
    assert values[-1] < 0.7 * values[0]
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_a_nan_names_its_block_and_spares_its_weights():
    """Finite weights, and a loss that is not: only the forward pass can tell, when the block before has taken its step,
    by a loss of its own that was in order."""
    x, y = images()
    net = small()
    learner = LocalLearning(net, 3, "linear", sgd, at=("blocks.0", "blocks.1"), example=x)
    with torch.no_grad():
        net.backbone.blocks[1].norm2.weight.fill_(3e38)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(
        NonFiniteLoss,
        match=r"block 2 of 3 \(blocks.1 to blocks.1\) became (nan|inf).*blocks 1 to 1 have taken this step",
    ):
        learner.step(x, y)
    changed = {name for name, _ in net.named_parameters() if not torch.equal(before[name], net.state_dict()[name])}
    assert changed
    assert all(name.startswith("backbone.blocks.0.") for name in changed), (
        "the block itself and all after it are spared"
    )
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("block", [1, 2])
def test_a_nan_that_is_there_before_the_step_changes_nothing(block: int):
    x, y = images()
    net = small()
    learner = LocalLearning(net, 3, "linear", sgd, at=("blocks.0", "blocks.1"), example=x)
    with torch.no_grad():
        net.backbone.blocks[block].conv1.weight[0, 0, 0, 0] = torch.nan
    before = copy.deepcopy([net.state_dict(), learner.auxiliaries.state_dict()])
    with pytest.raises(NonFiniteLoss, match=rf"weights of block {block + 1} of 3 \(.*\) are not finite; no weight was"):
        learner.step(x, y)
    net.backbone.blocks[block].conv1.weight.data.nan_to_num_()
    with pytest.raises(NonFiniteLoss, match=r"the loss of block 1 of 3 .* became nan"):
        learner.step(x * torch.nan, y)
    for old, module in zip(before, (net, learner.auxiliaries), strict=True):
        for name, parameter in module.named_parameters():
            assert torch.equal(old[name].nan_to_num(), parameter), name


def test_bad_input_is_refused_before_any_weight_changes():
    x, y = images()
    net = small()
    learner = LocalLearning(net, 2, "linear", sgd, example=x)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ShapeError, match=r"labels must be 0 to 2, for the network's 3 outputs; found 0 to 3"):
        learner.step(x, torch.tensor([*y[:-1].tolist(), 3]))
    with pytest.raises(ShapeError, match=r"labels must be integers \[12\]"):
        learner.step(x, y[:5])
    with pytest.raises(ShapeError, match=r"found torch\.float32"):
        learner.step(x, y.float())
    with pytest.raises(ConfigError, match="a batch of 1 image"):
        learner.step(x[:1], y[:1])
    with pytest.raises(ConfigError, match="takes images and labels"):
        learner.step(x)
    learner.eval()
    with pytest.raises(ConfigError, match="the model is in eval mode"):
        learner.step(x, y)
    net.train()
    with pytest.raises(ConfigError, match="auxiliary networks are in eval mode"):
        learner.step(x, y)
    for a, b in zip(before.values(), net.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_what_cannot_be_built_is_refused():
    x, _ = images()
    with pytest.raises(ConfigError, match=r"blocks is 9, and this network can be cut into no more than 4"):
        LocalLearning(small(), 9, "linear", sgd, example=x)
    with pytest.raises(UnknownName, match="did you mean 'linear'"):
        LocalLearning(small(), 2, "liner", sgd, example=x)
    with pytest.raises(UnknownName, match=r"blocks\.3"):
        LocalLearning(small(), 2, "linear", sgd, example=x, at=("blocks.33",))
    with pytest.raises(ConfigError, match="optimizer="):
        LocalLearning(small(), 2, "linear")
    shared = nn.Linear(6, 6)
    with pytest.raises(ConfigError, match=r"blocks 1 and 2 share"):
        LocalLearning(
            nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(6, 3)), 3, "linear", sgd, example=torch.zeros(2, 6)
        )


def test_a_block_without_anything_to_train_is_refused():
    x, _ = images()
    net = small()
    for parameter in [*net.backbone.blocks[-1].parameters(), *net.head.parameters()]:
        parameter.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"block 4 of 4 \(blocks.3 to blocks.3\) has no parameters to train"):
        LocalLearning(net, "all", "linear", sgd, example=x)
    with pytest.raises(ConfigError, match="has no parameters: there is nothing to train"):
        LocalLearning(nn.Sequential(nn.Flatten(), nn.ReLU()), 2, "linear", sgd, example=x)


def test_a_batch_of_one_is_refused_only_where_it_meets_batch_normalisation():
    x, y = torch.randn(3, 6), torch.arange(3)
    LocalLearning(mlp(), 2, "linear", sgd, example=x).step(x[:1], y[:1])
    x, y = images(3)
    net = small()
    learner = LocalLearning(net, 2, "linear", sgd, example=x, accumulate=2)
    before = copy.deepcopy(net.state_dict())
    learner.step(x, y)  # three images are not cut into pieces of one and two
    assert not torch.equal(before["head.linear.weight"], net.state_dict()["head.linear.weight"])


def test_a_state_of_another_network_is_refused_before_anything_is_loaded():
    x, y = images()
    learner = LocalLearning(small(), 2, "linear", sgd, example=x)
    learner.step(x, y)
    for other in (
        LocalLearning(small(), 2, "conv", sgd, example=x),
        LocalLearning(small(), 3, "linear", sgd, example=x),
    ):
        before = copy.deepcopy(other.auxiliaries.state_dict())
        with pytest.raises(
            ConfigError, match=r"other auxiliary networks: 0\.classifier|cut into 2 blocks .* this one has 3"
        ):
            other.load_state_dict(learner.state_dict())
        for a, b in zip(before.values(), other.auxiliaries.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_labels_outside_the_head_are_refused_by_the_rule():
    x, y = images()
    for method, labels in (
        (Supervised(small(), losses.CrossEntropy()), torch.where(y == 0, -1, y)),
        (Supervised(small(), losses.CrossEntropy()), y + 1),
        (Embedding(small(), losses.SupCon(), dimensions=8), y + 1),
    ):
        rule = Local(blocks=2, auxiliary="linear")
        rule.setup(method, sgd, example=x)
        before = copy.deepcopy(method.state_dict())
        with pytest.raises(ShapeError, match=r"labels must be (0|-1) to 2, for the network's 3 outputs"):
            rule.step(method, Batch((x,) * method.needs.view_count, labels, torch.arange(12)))
        for name, value in method.state_dict().items():
            assert torch.equal(value, before[name])


def test_blocks_are_built_at_the_first_step():
    x, y = images()
    learner = LocalLearning(small(), 2, "linear", sgd)
    with pytest.raises(ConfigError, match="not been cut yet"):
        _ = learner.optimizers
    learner.step(x, y)
    assert len(learner.optimizers) == 2


def test_a_method_that_does_not_split_is_refused():
    rule = Local(blocks=2, auxiliary="linear")
    for name, why in (("byol", "makes a step of its own"), ("simsiam", "none that a block could be trained by alone")):
        with pytest.raises(ConfigError, match=f"rule 'local' cannot train method '{name}': .*{why}"):
            rule.setup(registry.build("methods", name, model=small()), sgd, example=images()[0])
    with pytest.raises(ConfigError, match="must know the shape"):
        rule.setup(Supervised(small(), losses.CrossEntropy()), sgd)


def test_an_average_of_the_weights_holds_the_auxiliary_networks():
    method = Supervised(small(), losses.CrossEntropy())
    rule = Local(blocks=2, auxiliary="linear")
    x, y = images()
    rule.setup(method, sgd, example=x)
    twin = copy.deepcopy(method)
    rule.step(method, Batch((x,), y, torch.arange(12)))
    names = [name for name in method.state_dict() if name.startswith("local.")]
    assert names
    assert set(names) <= set(twin.state_dict())
    assert not torch.equal(twin.local[0].classifier.weight, method.local[0].classifier.weight)
