"""A pruner that refines a mask: it swaps removed and kept weights as long as the output error falls."""

import torch

from harness_ext import Hessian, Pruner, hookimpl


class Swap(Pruner):
    """Starts from the mask of Wanda in each row. ``rounds`` times, swaps the pair of weights that lowers the output error most.

    Let ``H`` be the Hessian of the inputs and ``d`` the removed weights of a row. The output error of the row is ``d H d^T``. Removing
    weight ``j`` adds ``2 w_j (d H)_j + w_j^2 H_jj``. Restoring weight ``i`` at the same time subtracts ``2 w_i (d H)_i - w_i^2 H_ii`` and
    ``2 w_i w_j H_ij``. A row in which no pair lowers the error stays unchanged. Kept weights keep their values. With an N:M pattern, both
    weights are in one group.
    """

    name = "swap"
    statistic = Hessian
    group = "row"
    rounds: int = 20

    def score(self, weight, statistic):
        return weight.abs() * statistic.norms

    def prune(self, weight, sparsity, statistic):
        hessian, removed = statistic.matrix, sparsity.mask(self.score(weight, statistic), "row")
        rows, columns = (torch.arange(size, device=weight.device) for size in weight.shape)
        groups = columns // (sparsity.pattern[1] if sparsity.pattern else len(columns))
        own = weight.square() * hessian.diagonal()
        for _ in range(self.rounds):
            pull = 2 * weight * ((weight * removed) @ hessian)
            gains = (pull - own).masked_fill(~removed, -torch.inf)
            back = gains.argmax(1)
            costs = pull + own - 2 * weight * weight[rows, back, None] * hessian[back]
            costs = costs.masked_fill(removed | (groups != groups[back, None]), torch.inf)
            out = costs.argmin(1)
            helps = costs[rows, out] < gains[rows, back]
            removed[rows[helps], back[helps]], removed[rows[helps], out[helps]] = False, True
        return weight.masked_fill(removed, 0)


@hookimpl
def register_pruners(register):
    register(Swap)
