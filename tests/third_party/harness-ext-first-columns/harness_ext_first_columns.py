import torch
from harness_ext import Pruner, hookimpl

class FirstColumns(Pruner):
    """Keeps the first columns."""
    name = "first-columns"
    def score(self, weight, statistic):
        return -torch.arange(weight.shape[1]).float().expand_as(weight)

@hookimpl
def register_pruners(register):
    register(FirstColumns)
