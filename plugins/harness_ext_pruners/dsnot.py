"""Dynamic sparse no training (Zhang et al., arXiv 2310.08915)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch

from harness_ext import BadOptionError, ChannelNorms, Hessian, Pruned, Pruner, Sparsity, Statistic


class _Sums(Statistic):
    """The mean and the variance of every input channel over the calibration tokens.

    The sums are float64: in float32, the variance of an input with a large mean cancels.
    """

    additive: ClassVar[tuple[str, ...]] = ("sums", "sums_of_squares")

    def __init__(self, in_features: int, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(in_features, device, dtype)
        self.sums, self.sums_of_squares = (torch.zeros(in_features, dtype=torch.float64, device=device) for _ in range(2))

    def update(self, inputs: torch.Tensor) -> None:
        super().update(inputs)  # type: ignore[safe-super]  # of the statistic that this is combined with
        exact = inputs.double()
        self.sums += exact.sum(0)
        self.sums_of_squares += exact.square().sum(0)

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The means and the variances of the inputs: [in] each, float64."""
        tokens = max(1, self.tokens)
        means = self.sums / tokens
        return means, (self.sums_of_squares / tokens - means.square()).clamp(min=0)


class ChannelMoments(_Sums, ChannelNorms):
    """The L2 norm, the mean and the variance of every input channel over the calibration tokens."""

    additive: ClassVar[tuple[str, ...]] = (*ChannelNorms.additive, *_Sums.additive)


class HessianMoments(_Sums, Hessian):
    """The Hessian, and the mean and the variance of every input channel over the calibration tokens."""

    additive: ClassVar[tuple[str, ...]] = (*Hessian.additive, *_Sums.additive)


class DSnoT(Pruner):
    """Exchanges removed and kept weights until the mean output of each row is what it was; no weight changes its value (algorithm 1).

    The mask to start from removes the lowest scores of each row: of Wanda, of magnitude, or of the optimal brain surgeon,
    ``W_ij^2 / [H^-1]_jj``, by which SparseGPT chooses. With ``a_j`` and ``v_j`` the mean and the variance of input ``j`` over all tokens,
    the error of a row is the mean of what is missing from its output, ``e_i = sum of W_ij a_j over the removed j``. It is a mean over
    tokens, so that ``threshold`` means the same whatever the length of the sequences. As long as ``|e_i| > threshold``, at most
    ``max_cycles`` times, a row

    - takes back the removed weight with the largest ``sign(e_i) W_ij a_j / v_j^power``, if that is above 0, and
    - removes the kept weight with the lowest ``|W_ij| * ||X_j||_2`` of those with ``sign(e_i) W_ij a_j < 0``.

    A row without such a pair, or whose ``|e_i|`` the pair would not lower, stops. With a pattern, both are of one group of ``m`` inputs.
    Each row, or group, has as many zeros as at the start. The paper's public code leaves out the layers of the FFN by default; here
    ``modules=attention`` does.
    """

    name: ClassVar[str] = "dsnot"
    statistic: ClassVar[type[ChannelMoments]] = ChannelMoments
    group: ClassVar[Literal["row", "matrix"]] = "row"
    start: Literal["wanda", "magnitude", "sparsegpt"] = "wanda"
    max_cycles: int = 50
    threshold: float = 0.1
    power: float = 1.0
    damping: float = 0.01
    """Of the Hessian, for ``start=sparsegpt``: a fraction of its mean diagonal."""

    def __post_init__(self) -> None:
        if self.max_cycles < 0:
            raise BadOptionError(f"pruner.max_cycles={self.max_cycles}: want at least 0")
        if not 0 <= self.threshold < float("inf"):
            raise BadOptionError(f"pruner.threshold={self.threshold}: want a mean output error of at least 0, such as 0.1")
        if not 0 <= self.power < float("inf"):
            raise BadOptionError(f"pruner.power={self.power}: want a power of the variance of at least 0, such as 1")
        if not 0 < self.damping < float("inf"):
            raise BadOptionError(f"pruner.damping={self.damping}: want a fraction of the mean diagonal above 0, such as 0.01")

    def measures(self) -> type[ChannelMoments] | type[HessianMoments]:
        """The Hessian is measured only where the start needs it."""
        return HessianMoments if self.start == "sparsegpt" else ChannelMoments

    def score(self, weight: torch.Tensor, statistic: Any) -> torch.Tensor:
        """What the mask to start from is chosen by."""
        if self.start == "magnitude":
            return weight.abs()
        if self.start == "wanda":
            norms: torch.Tensor = statistic.norms
            return weight.abs() * norms
        diagonal: torch.Tensor = statistic.inverse_factor(self.damping).upper.square().sum(0)
        return (weight.square() / diagonal).masked_fill(statistic.dead, 0)

    def prune(self, weight: torch.Tensor, sparsity: Sparsity, statistic: Any) -> Pruned:
        """As in the base class; ``statistic`` is of the class that ``measures`` returns.

        Raises:
            NumericalError: the Hessian, for ``start=sparsegpt``, cannot be factorised.
        """
        removed = sparsity.mask(self.score(weight, statistic), "row")
        means, variances = (moment.to(weight.dtype) for moment in statistic.moments())
        outputs = weight * means
        before = _error(outputs, removed)
        swaps = self._refine(
            outputs, weight.abs() * statistic.norms, variances**self.power, removed, sparsity.pattern[1] if sparsity.pattern else 0
        )
        notes: dict[str, Any] = {
            "swaps": swaps,
            "mean_row_error_at_start": float(before.abs().mean()),
            "mean_row_error": float(_error(outputs, removed).abs().mean()),
        }
        if self.start == "sparsegpt":
            factor = statistic.inverse_factor(self.damping)
            notes |= {"damping": factor.damping, "damping_retries": factor.retries}
        return Pruned(weight.masked_fill(removed, 0), notes)

    def _refine(self, outputs: torch.Tensor, saliency: torch.Tensor, spread: torch.Tensor, removed: torch.Tensor, size: int) -> int:
        """Swaps entries of ``removed``, in place, in all rows at once.

        Args:
            outputs: [out, in], what each weight adds to the mean output.
            saliency: [out, in], the lowest is removed.
            spread: [in], what the regrowing criterion is divided by.
            size: of the groups within which entries are swapped; 0 for the whole row.

        Returns:
            how many swaps were made.
        """
        swaps, size = 0, size or outputs.shape[1]
        rows = torch.arange(len(outputs), device=outputs.device)
        errors = _error(outputs, removed)
        worth = outputs / spread  # infinite for an input that never changes, which then comes back first
        for _ in range(self.max_cycles):
            rows = rows[errors[rows].abs() > self.threshold]
            if len(rows) == 0:
                break
            sign, here, gone = errors[rows].sign()[:, None], outputs[rows], removed[rows]
            may_go = ~gone & (sign * here < 0)
            may_come = gone & (sign * here > 0)
            may_come &= may_go.view(len(rows), -1, size).any(2, keepdim=True).expand(-1, -1, size).reshape(may_go.shape)
            come = (sign * worth[rows]).masked_fill(~may_come, float("-inf")).argmax(1, keepdim=True)
            may_go &= torch.arange(outputs.shape[1], device=outputs.device) // size == come // size
            go = saliency[rows].masked_fill(~may_go, float("inf")).argmin(1, keepdim=True)
            after = errors[rows, None] - here.gather(1, come) + here.gather(1, go)
            better = (may_come.gather(1, come) & may_go.gather(1, go) & (after.abs() < errors[rows, None].abs())).squeeze(1)
            rows, come, go, after = rows[better], come[better, 0], go[better, 0], after[better, 0]
            removed[rows, come], removed[rows, go], errors[rows] = False, True, after
            swaps += len(rows)
        return swaps


def _error(outputs: torch.Tensor, removed: torch.Tensor) -> torch.Tensor:
    """What is missing from the mean output of each row: [out]."""
    return outputs.masked_fill(~removed, 0).sum(1)
