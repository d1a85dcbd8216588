"""The methods of papers on contrast between embeddings with labels."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import Classifier, DropoutViews, Embedding, Normalize, ReLUEmbedding


def classifier(classes: int = 4) -> Classifier:
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=8, width=8, depth=2)
    return Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, classes))


def batch_of(views: int, targets: list[int], seed: int = 0, start: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = tuple(torch.rand(len(targets), 1, 8, 8, generator=generator) for _ in range(views))
    return Batch(images, torch.tensor(targets), torch.arange(start, start + len(targets)))


class Recorder(losses.EmbeddingLoss):
    """Keeps what it was called with."""

    def forward(self, embeddings, labels, **known):
        self.embeddings, self.labels, self.known = embeddings, labels, known
        return embeddings.square().mean()


def test_dropout_makes_the_views():
    loss = Recorder()
    method = DropoutViews(classifier(), loss, rates=(0.0, 0.5, 0.5), dimensions=6)
    assert method.needs.view_count == 1
    batch = batch_of(1, [0, 1, 2])
    method.step(batch)
    assert loss.embeddings.shape == (9, 6)
    assert loss.labels.tolist() == [0, 1, 2] * 3
    first, second, third = loss.embeddings.split(3)
    assert not torch.equal(second, third)
    torch.testing.assert_close(first, method.projector(method.model.embed(batch.images)))
    method.eval()
    method.step(batch)
    first, second, third = loss.embeddings.split(3)
    assert torch.equal(first, second)
    assert torch.equal(second, third)


def test_the_rate_is_set_in_the_layers_of_the_backbone_and_put_back():
    model = classifier()

    class Spy(nn.Dropout):
        def forward(self, x):
            self.seen = [*getattr(self, "seen", []), self.p]
            return super().forward(x)

    spy = Spy(0.3)
    model.backbone.blocks.append(spy)
    DropoutViews(model, Recorder(), rates=(0.0, 0.1, 0.2)).step(batch_of(1, [0, 1]))
    assert spy.seen == [0.0, 0.1, 0.2]
    assert spy.p == 0.3


@pytest.mark.parametrize("rates", [(0.1,), (0.1, 1.0), (-0.1, 0.2)])
def test_rates_out_of_range(rates):
    with pytest.raises(ConfigError, match="rates must be two or more"):
        DropoutViews(classifier(), Recorder(), rates=rates)


def test_embeddings_have_no_negative_entries():
    loss = Recorder()
    method = ReLUEmbedding(classifier(), loss, bind=False)
    method.step(batch_of(2, [0, 1, 2, 3]))
    assert (loss.embeddings >= 0).all()
    assert (loss.embeddings == 0).any()
    assert loss.embeddings.shape == (8, 128)


def test_the_first_example_of_each_class_joins_every_batch():
    loss = Recorder()
    method = ReLUEmbedding(classifier(), loss, image_size=8)
    first = batch_of(2, [2, -1, 2, 0])
    method.step(first)
    assert loss.labels.tolist() == [2, -2, 2, 0] * 2  # nothing is bound yet
    method.after_update()
    assert method.bound_index.tolist() == [3, -1, 0, -1]
    assert torch.equal(method.bound[2], first.images[0])
    method.step(batch_of(2, [1, 0, 0], seed=1, start=10))
    assert loss.labels.tolist() == [1, 0, 0, 0, 2] * 2
    method.after_update()
    assert method.bound_index.tolist() == [3, 10, 0, -1]  # an example stays for good
    assert torch.equal(method.bound[0], first.images[3])


def test_evaluation_binds_nothing():
    method = ReLUEmbedding(classifier(), Recorder(), image_size=8).eval()
    method.step(batch_of(2, [0, 1]))
    method.after_update()
    assert (method.bound_index == -1).all()


def test_bound_examples_are_part_of_the_state():
    method = ReLUEmbedding(classifier(), losses.SupCon(), image_size=8)
    method.step(batch_of(2, [0, 1, 2, 3]))
    method.after_update()
    other = ReLUEmbedding(classifier(), losses.SupCon(), image_size=8)
    other.load_state_dict(method.state_dict())
    batch = batch_of(2, [0, 0, 1, 1], seed=2)
    assert torch.equal(copy.deepcopy(method).eval().step(batch).loss, other.eval().step(batch).loss)


def test_what_does_not_fit():
    with pytest.raises(ConfigError, match="dimensions must be 4"):
        ReLUEmbedding(classifier(), Recorder(), image_size=8, dimensions=3)
    with pytest.raises(ConfigError, match="binding needs image_size"):
        ReLUEmbedding(classifier(), Recorder())
    with pytest.raises(ConfigError, match=r"binding keeps images of \[1, 9, 9\]"):
        ReLUEmbedding(classifier(), Recorder(), image_size=9).step(batch_of(2, [0, 1]))


def test_a_loss_is_told_the_dimensions_the_samples_and_when_the_weights_have_changed():
    loss = losses.MemoryInfoNCE(queue=10)
    method = Embedding(classifier(), loss, dimensions=6)
    assert loss.queue.memory.shape == (10, 6)
    assert any(name.startswith("loss.queue") for name in method.state_dict())
    method.step(batch_of(2, [0, 1, 0, -1], start=20))
    method.after_update()
    # An unlabelled sample keeps a label of its own over the batches.
    assert sorted(loss.queue.labels.tolist()) == [-24, -24, 0, 0, 0, 0, 1, 1]

    loss = losses.SubclassContrastive(samples=20)
    method = Embedding(classifier(), loss)
    method.step(batch_of(2, [0, 1, 0, -1], start=5))
    method.after_update()
    assert loss.bank_labels[5:9].tolist() == [0, 1, 0, -1]


def test_what_a_loss_learns_is_a_parameter_of_the_method():
    method = Embedding(classifier(), losses.ProxyAnchor(num_classes=4), dimensions=6)
    method.step(batch_of(2, [0, 1, 0, 3])).loss.backward()
    parameter = dict(method.named_parameters())["loss.proxies"]
    assert parameter.shape == (4, 6)
    assert parameter.grad.any()
