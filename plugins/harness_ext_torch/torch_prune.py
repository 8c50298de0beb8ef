"""The methods of ``torch.nn.utils.prune`` for one weight."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from harness_ext import BadOptionError, LayerShape, Pruned, Pruner, Sparsity, seed_for
from harness_ext_torch.methods import Method, check_options, method_named


class TorchPrune(Pruner):
    """Zeroes what ``torch.nn.utils.prune`` would: ``pruner.method=l1_unstructured``, ``ln_structured`` or another of its methods.

    torch is given the number of weights to remove, ``floor(sparsity x weights)``, since it would round a ratio to the nearest number.

    Structured methods remove whole rows, ``pruner.dim=0``, or columns, ``pruner.dim=1``, of a matrix: ``floor(sparsity x number of them)``.
    In columns this is what every row loses, as with ``wanda``. In rows it may be fewer weights than either the rows or the matrix should
    lose; a sparsity at which that happens is refused.

    Methods that draw at random do so from ``seed`` and the layer's weight, and leave the global random state as it was.
    """

    name: ClassVar[str] = "torch"
    requires: ClassVar[tuple[str, ...]] = ("torch",)
    method: str = "l1_unstructured"
    n: int | float | str | None = None
    """The norm by which ``ln_structured`` compares: a number, ``inf``, ``-inf`` or ``fro``."""
    dim: int | None = None
    """0 for whole rows (outputs), 1 for whole columns (inputs); structured methods want one of them."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_options(self.method, self._given())
        if not 0 <= self.seed < 2**32:
            raise BadOptionError(f"pruner.seed={self.seed}: want a number of at least 0 and below 2^32")
        if self.seed and not method_named(self.method).draws:
            raise BadOptionError(f"pruner.seed={self.seed}: {self.method} of torch draws nothing at random")

    def check_sparsity(self, sparsity: Sparsity) -> None:
        """Refuses patterns.

        Raises:
            BadOptionError: a pattern.
        """
        if sparsity.pattern:
            raise BadOptionError(
                f"sparsity={sparsity}: torch.nn.utils.prune has no method for a pattern: want a ratio such as {sparsity.ratio:g}, "
                "or pruner=magnitude"
            )

    def check_layer(self, layer: LayerShape, sparsity: Sparsity) -> None:
        """Refuses what no whole rows of the layer come to, and patterns, which an allocation may ask for.

        Raises:
            BadOptionError: as :meth:`prune`.
        """
        self.check_sparsity(sparsity)
        if self.dim is not None:
            self._slices((layer.rows, layer.columns), sparsity, self.dim)

    def prune(self, weight: torch.Tensor, sparsity: Sparsity, statistic: None) -> Pruned:
        """Zeroes the weights that torch's mask removes.

        Raises:
            BadOptionError: a pattern, which an allocation may ask for, or a ratio that whole rows do not come to.
        """
        self.check_sparsity(sparsity)
        method = method_named(self.method)
        amount = self._slices(tuple(weight.shape), sparsity, self.dim) if self.dim is not None else sparsity.removed_of(weight.numel())
        return Pruned(weight.masked_fill(~self._mask(method, weight, amount), 0), {"torch": str(torch.__version__)})

    def _given(self) -> dict[str, Any]:
        options = {"n": self.n, "dim": self.dim}
        if self.n in ("inf", "-inf"):
            options["n"] = float(self.n)
        return {option: value for option, value in options.items() if value is not None}

    def _mask(self, method: Method, weight: torch.Tensor, amount: int) -> torch.Tensor:
        if not method.draws:
            return method.mask(weight, amount, self._given())
        on_host = weight.cpu()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_for(on_host, self.seed))
            return method.mask(on_host, amount, self._given()).to(weight.device)

    def _slices(self, shape: tuple[int, ...], sparsity: Sparsity, dim: int) -> int:
        """The number of rows or columns to remove."""
        count, (rows, columns) = sparsity.removed_of(shape[dim]), shape
        size = rows * columns // shape[dim]
        of_rows, of_matrix = rows * sparsity.removed_of(columns), sparsity.removed_of(rows * columns)
        if min(of_rows, of_matrix) <= count * size <= max(of_rows, of_matrix):
            return count
        near = " or ".join(f"{number / rows:g}" for number in (count, count + 1) if 0 < number < rows)
        raise BadOptionError(
            f"sparsity={sparsity}: {of_matrix} weights of {rows} rows of {columns} are no whole rows; "
            f"want pruner.dim=1, or for this layer {near}"
        )
