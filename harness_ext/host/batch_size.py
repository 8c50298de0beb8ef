"""The batch size of ``pruned-hf`` where the user gave none."""

from __future__ import annotations


def is_default_batch_size(value: int | str) -> bool:
    """Whether the user gave no batch size. lm-eval's command line then passes the integer 1, and otherwise a string."""
    return isinstance(value, int) and value == 1


def default_batch_size(parameters: int) -> int:
    """64 sequences for models under 100 M parameters, 16 under 2 B, 8 above."""
    return 64 if parameters < 100e6 else 16 if parameters < 2e9 else 8
