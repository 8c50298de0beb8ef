import torch
from harness_ext_swap import Swap

from harness_ext import Hessian, Sparsity
from harness_ext.testing import PrunerContract


class TestSwap(PrunerContract):
    pruner = "swap"


def test_no_row_has_a_larger_output_error_than_with_the_mask_of_wanda_and_some_have_a_smaller_one():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(16, 24, generator=generator)
    inputs = torch.randn(100, 24, generator=generator) @ torch.randn(24, 24, generator=generator)
    statistic = Hessian(24, torch.device("cpu"))
    statistic.update(inputs)
    for sparsity in (Sparsity(0.5), Sparsity.parse("2:4")):
        first, last = (((weight - Swap(rounds=rounds).prune(weight, sparsity, statistic)) @ inputs.T).square().sum(1) for rounds in (0, 20))
        assert (last <= first * 1.001).all()
        assert last.sum() < 0.9 * first.sum()
