"""A plugin whose author forgot the marker."""


def register_pruners(register):
    raise AssertionError("not a hook, so never called")
