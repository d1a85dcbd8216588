from __future__ import annotations

import torch

from repertoire.heads import NearestMean


def test_the_nearest_mean_answers_once_it_is_told():
    torch.manual_seed(0)
    head, z, means = NearestMean(3, 4).eval(), torch.randn(20, 3), torch.randn(4, 3)
    torch.testing.assert_close(head(z), head.linear(z))
    head.set_means(means)
    unit, centre = torch.nn.functional.normalize(z), torch.nn.functional.normalize(means)
    distances = torch.stack([(unit - mean).square().sum(1) for mean in centre], 1)
    torch.testing.assert_close(head(z), -10 * distances)
    torch.testing.assert_close(head.train()(z), head.linear(z))
    head.eval().set_means(None)
    torch.testing.assert_close(head(z), head.linear(z))


def test_a_class_without_a_mean_is_never_the_answer_and_new_classes_have_none():
    torch.manual_seed(0)
    head, z = NearestMean(3, 2).eval(), torch.randn(50, 3)
    head.set_means(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert (head(z).argmax(1) == 0).all()
    before = head(z)
    head.grow(4)
    assert torch.equal(head(z)[:, :2], before)
    assert (head(z).argmax(1) == 0).all()
    twin = NearestMean(3, 4).eval()
    twin.load_state_dict(head.state_dict())
    assert torch.equal(twin(z), head(z))
