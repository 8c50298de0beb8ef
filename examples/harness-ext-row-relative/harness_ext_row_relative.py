"""A pruner in one line: the score of each weight."""

from harness_ext import ChannelNorms, Pruner, hookimpl


class RowRelative(Pruner):
    """Keeps the weights with the largest share of the L1 norm of their row, times the norm of their input."""

    name = "row-relative"
    statistic = ChannelNorms

    def score(self, weight, statistic):
        return weight.abs() / weight.abs().sum(1, keepdim=True).clamp_min(1e-30) * statistic.norms


@hookimpl
def register_pruners(register):
    register(RowRelative)
