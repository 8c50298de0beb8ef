"""Finds parameters that have elements in common: the same parameter under two names, or views of one tensor."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


def shared_memory(parameters: Mapping[str, nn.Parameter]) -> dict[str, list[str]]:
    """By name, the other parameters that have elements in common with a parameter; those that share none are left out.

    Views of one tensor that do not overlap share none. Parameters that are not in memory share only if they are the same object.
    """
    together: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
    for name, parameter in parameters.items():
        if parameter.is_meta or type(parameter.data) is not torch.Tensor or parameter.layout is not torch.strided:
            together.setdefault(("", id(parameter)), []).append((0, 1, name))
        elif parameter.numel():
            last = sum((size - 1) * stride for size, stride in zip(parameter.shape, parameter.stride(), strict=True))
            first = parameter.data_ptr()
            memory = str(parameter.device), parameter.untyped_storage().data_ptr()
            together.setdefault(memory, []).append((first, first + (last + 1) * parameter.element_size(), name))
    shared: dict[str, list[str]] = {}
    for spans in together.values():
        spans.sort()
        for place, (_, end, name) in enumerate(spans):
            for start, _, other in spans[place + 1 :]:
                if start >= end:
                    break
                if _have_common(parameters[name], parameters[other]):
                    shared.setdefault(name, []).append(other)
                    shared.setdefault(other, []).append(name)
    return shared


def _have_common(one: nn.Parameter, other: nn.Parameter) -> bool:
    """Whether two parameters whose memory overlaps have an element in common: columns of one matrix have none."""
    if one is other or one.dtype != other.dtype or (one.is_contiguous() and other.is_contiguous()):
        return True
    elements = one.untyped_storage().nbytes() // one.element_size()
    mark = torch.zeros(elements, dtype=torch.bool)
    mark.as_strided(one.shape, one.stride(), one.storage_offset()).fill_(True)
    return bool(mark.as_strided(other.shape, other.stride(), other.storage_offset()).any())
