"""A pruner that is one line: what the weights are ranked by."""

from harness_ext import ChannelNorms, Pruner, hookimpl


class RowRelative(Pruner):
    """Keeps the weights with the largest share of their row's L1 norm, times the norm of their input."""

    name = "row-relative"
    statistic = ChannelNorms

    def score(self, weight, statistic):
        return weight.abs() / weight.abs().sum(1, keepdim=True).clamp_min(1e-30) * statistic.norms


@hookimpl
def register_pruners(register):
    register(RowRelative)
