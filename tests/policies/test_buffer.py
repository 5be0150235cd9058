import torch

from palmar.policies.rl.buffer import gae


def test_gae_by_hand_tells_truncation_from_termination():
    # gamma = lambda = 1/2, every value 2, every signal 1; columns: runs on, truncated, terminated at step 1.
    signal, value = torch.ones(3, 3, 1), torch.full((3, 3, 1), 2.0)
    next_value = torch.full((3, 3, 1), 2.0)
    next_value[1, 1] = 6.0  # the truncated episode's last observation is worth 6, not the next episode's 2
    terminated, truncated = torch.zeros(3, 3, dtype=torch.bool), torch.zeros(3, 3, dtype=torch.bool)
    truncated[1, 1], terminated[1, 2] = True, True
    advantage, returns = gae(signal, value, next_value, terminated, truncated, gamma=0.5, lam=0.5)
    # delta = 1 + 0.5 * 2 - 2 = 0 everywhere, but truncated: 1 + 0.5 * 6 - 2 = 2, terminated: 1 + 0 - 2 = -1.
    # One step earlier: delta + 0.25 * advantage: 0.5 and -0.25; nothing crosses the end of an episode.
    expected = torch.tensor([[0.0, 0.5, -0.25], [0.0, 2.0, -1.0], [0.0, 0.0, 0.0]])
    assert torch.equal(advantage[..., 0], expected)
    assert torch.equal(returns[..., 0], expected + 2)


def test_channels_do_not_mix():
    generator = torch.Generator().manual_seed(0)
    signal, value, next_value = torch.randn(3, 8, 4, 3, generator=generator)
    ended = torch.rand(8, 4, generator=generator) < 0.3
    cut = torch.rand(8, 4, generator=generator) < 0.3
    together, _ = gae(signal, value, next_value, ended, cut, gamma=0.9, lam=0.8)
    for k in range(3):
        one = slice(k, k + 1)
        alone, _ = gae(signal[..., one], value[..., one], next_value[..., one], ended, cut, gamma=0.9, lam=0.8)
        assert torch.equal(together[..., one], alone)


def test_gae_with_lambda_one_is_the_discounted_sum_of_what_follows():
    generator = torch.Generator().manual_seed(1)
    signal, value = torch.randn(2, 6, 1, 1, generator=generator)
    next_value = torch.cat([value[1:], torch.zeros(1, 1, 1)])
    ended = torch.zeros(6, 1, dtype=torch.bool)
    ended[-1] = True
    _, returns = gae(signal, value, next_value, ended, ~ended & False, gamma=0.9, lam=1.0)
    sums = [sum(0.9**k * signal[t + k] for k in range(6 - t)) for t in range(6)]
    assert torch.allclose(returns, torch.stack(sums), atol=1e-6)
