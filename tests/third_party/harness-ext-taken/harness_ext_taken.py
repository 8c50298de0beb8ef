"""A plugin that registers a name of its own, and one that is taken."""

from harness_ext import Pruner, hookimpl


class Second(Pruner):
    name = "harness-ext-taken-second"

    def score(self, weight, statistic):
        return weight.abs()


class Wanda(Pruner):
    name = "wanda"

    def score(self, weight, statistic):
        return weight.abs()


@hookimpl
def register_pruners(register):
    register(Second)
    register(Wanda)
