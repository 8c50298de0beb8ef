import torch
from harness_ext_row_relative import RowRelative

from harness_ext import ChannelNorms
from harness_ext.testing import PrunerContract


class TestRowRelative(PrunerContract):
    pruner = "row-relative"


def test_the_scale_of_a_row_does_not_matter():
    statistic = ChannelNorms(4, torch.device("cpu"))
    statistic.update(torch.ones(2, 4))
    weight = torch.tensor([[1.0, 2, 3, 4]])
    assert torch.allclose(RowRelative().score(weight, statistic), RowRelative().score(100 * weight, statistic))
