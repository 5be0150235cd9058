import torch

from palmar.policies.normalize import Normalizer


def test_batches_give_the_statistics_of_all_data_at_once():
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 5 + 40
    norm = Normalizer(3)
    for part in x.split([1, 199, 300]):
        norm.update(part)
    assert torch.allclose(norm.mean, x.mean(0)) and torch.allclose(norm.var, x.var(0, correction=0))
    assert torch.allclose(norm.invert(norm(x.float())), x.float(), atol=1e-4)


def test_a_constant_component_stays_finite_and_a_frozen_copy_stays_put():
    norm = Normalizer(2)
    norm.update(torch.tensor([[1.0, 0.0], [1.0, 2.0]]))
    frozen = norm.frozen()
    norm.update(torch.full((10, 2), 100.0))
    assert torch.equal(frozen(torch.tensor([[1.0, 1.0]])), torch.zeros(1, 2))
    assert norm(torch.tensor([[1e9, -1e9]])).abs().max() == 10
