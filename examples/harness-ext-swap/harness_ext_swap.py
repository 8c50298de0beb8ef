"""A pruner that refines a mask: weights that were removed and weights that were kept change places as long as that helps."""

import torch

from harness_ext import Hessian, Pruner, hookimpl


class Swap(Pruner):
    """Starts from the mask of Wanda in each row and swaps the pair that lowers the output error most, ``rounds`` times.

    With ``H`` the Hessian of the inputs and ``d`` the removed weights of a row, the output error of the row is ``d H d^T``. Removing
    weight ``j`` as well adds ``2 w_j (d H)_j + w_j^2 H_jj`` to it; that weight ``i`` comes back at the same time takes
    ``2 w_i (d H)_i - w_i^2 H_ii`` away, and ``2 w_i w_j H_ij`` besides. A row where no pair helps stays as it is, and no weight changes
    its value. With a pattern, both are of one group.
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
