"""A plugin with a hook that does not exist."""

from harness_ext import hookimpl


@hookimpl
def register_pruner(register):
    raise AssertionError("not a hook of ours, so never called")
