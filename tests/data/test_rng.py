import numpy as np
import pytest
import torch
from scipy import stats

from ssltransfer.data.rng import SampleRNG, seed_of
from tests.helpers.pretended_cuda import CUDA, on_gpu

MASK = 2**64 - 1
GOLDEN, MIX1, MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * MIX1) & MASK
    x = ((x ^ (x >> 27)) * MIX2) & MASK
    return x ^ (x >> 31)


def plain_bits(seed: int, epoch: int, sample: int, purpose: str, k: int) -> int:
    key = mix((sample * GOLDEN + seed_of(seed)) & MASK)
    key = mix(key ^ ((epoch * MIX1 + GOLDEN) & MASK))
    return mix((mix(key ^ seed_of(purpose)) + (k + 1) * GOLDEN) & MASK) >> 11


def many(n: int = 20_000, seed: int = 3) -> SampleRNG:
    return SampleRNG(seed, 0, torch.arange(n))


def test_bits_match_plain_python():
    found = SampleRNG(5, torch.tensor([0, 1, 2]), torch.tensor([7, 8, 10**12])).bits("x", 4)
    expected = [[plain_bits(5, e, i, "x", k) for k in range(4)] for e, i in [(0, 7), (1, 8), (2, 10**12)]]
    assert found.tolist() == expected


def test_mix_is_splitmix64_finalizer():
    # The first outputs of splitmix64 seeded with 1234567, a test vector in wide use.
    assert [mix(1234567 + k * GOLDEN & MASK) for k in (1, 2, 3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_sample_rng_is_independent_of_batch():
    ids, epochs = torch.tensor([4, 900, 17, 4]), torch.tensor([0, 3, 1, 5])
    batch = SampleRNG(1, epochs, ids)
    for row in range(4):
        alone = SampleRNG(1, int(epochs[row]), ids[row : row + 1])
        for name, args in [("bits", ("p", 9)), ("uniform", ("p", 9)), ("normal", ("p", 9)), ("permutation", ("p", 9))]:
            assert torch.equal(getattr(batch, name)(*args)[row], getattr(alone, name)(*args)[0])


@pytest.mark.parametrize(
    "other",
    [
        SampleRNG(4, 0, torch.arange(20_000)).uniform("a", 1),
        SampleRNG(3, 1, torch.arange(20_000)).uniform("a", 1),
        SampleRNG(3, 0, torch.arange(1, 20_001)).uniform("a", 1),
        SampleRNG(3, 0, torch.arange(20_000)).uniform("b", 1),
        SampleRNG(3, 0, torch.arange(20_000)).uniform("a", 2)[:, 1:],
    ],
    ids=["seed", "epoch", "id", "purpose", "column"],
)
def test_sample_rng_keys_give_independent_numbers(other: torch.Tensor):
    base = many().uniform("a", 1)
    table = np.histogram2d(base[:, 0].numpy(), other[:, 0].numpy(), bins=8, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(table.ravel()).pvalue > 1e-4


def test_sample_rng_has_expected_distributions():
    rng = many()
    assert stats.kstest(rng.uniform("u", 1)[:, 0].numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(rng.normal("n", 1)[:, 0].numpy(), "norm").pvalue > 1e-3
    assert stats.chisquare(torch.bincount(rng.integers("i", 1, 701)[:, 0], minlength=701).numpy()).pvalue > 1e-3
    assert rng.uniform("u", 50).min() >= 0 and rng.uniform("u", 50).max() < 1


def test_permutations_are_valid_and_uniform():
    perms = many().permutation("p", 4)
    assert torch.equal(perms.sort(dim=1).values, torch.arange(4).expand(len(perms), 4))
    codes = (perms * torch.tensor([64, 16, 4, 1])).sum(1)
    counts = np.unique(codes.numpy(), return_counts=True)[1]
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 1e-3


def test_permutations_have_no_ties():
    bits = many(2000).bits("p", 1000)
    ordered = bits.sort(dim=1).values
    assert (ordered[:, 1:] != ordered[:, :-1]).all()


@pytest.mark.gpu
def test_sample_rng_on_a_gpu_equals_the_cpu():
    ids = torch.arange(1000)
    with on_gpu() as cuda:
        cpu, gpu = SampleRNG(9, 2, ids), SampleRNG(9, 2, ids, CUDA)
        assert torch.equal(cpu.bits("x", 50), gpu.bits("x", 50).cpu())
        assert torch.equal(cpu.uniform("x", 50, -1, 1), gpu.uniform("x", 50, -1, 1).cpu())
        assert torch.equal(cpu.permutation("x", 50), gpu.permutation("x", 50).cpu())
        assert torch.allclose(cpu.normal("x", 50), gpu.normal("x", 50).cpu(), atol=1e-5)
    assert not cuda.faults
