"""The command line, ``harness-ext``."""
