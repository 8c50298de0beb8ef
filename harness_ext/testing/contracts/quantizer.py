"""The rules of quantizers, as tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch

from harness_ext.errors import PluginError
from harness_ext.method.pruner import PruningMethod
from harness_ext.method.quantizer import FEWEST_BITS, MOST_BITS, Quantized, Quantizer
from harness_ext.method.sparsity import Sparsity
from harness_ext.testing.contracts import given
from harness_ext.testing.contracts.given import fail, told_in_one_line
from harness_ext.testing.contracts.layerwise import FirstLayerDense, LayerwiseContract, layer_error

Record = Mapping[str, Any]

LOST_BY_EIGHT_BITS = 1e-3
"""The largest output error of the layers that 8 bits may have, as a share of the output."""


class QuantizerContract(LayerwiseContract):
    """Tests of a quantizer. A class whose name begins with ``Test`` inherits them:

        class TestMine(QuantizerContract):
            quantizer = Mine

    The engine quantises two small models, one with random weights and ``lab-xs``, as in a run. It checks that every weight is on the grid
    of its group.
    """

    quantizer: Any = None
    """The class, its registered name (which also tests the entry point), or a method that returns an instance."""
    bits: tuple[int, ...] = tuple(range(FEWEST_BITS, MOST_BITS + 1))
    group_sizes: tuple[int | Literal["row"], ...] = (1, 5, 8, "row")
    joint: bool = True
    """Whether the quantizer can also remove weights. If False, a sparsity is an error."""
    ratios: tuple[float, ...] = (0.29, 0.5)
    patterns: tuple[str, ...] = ("1:4", "2:4")
    quality_bits: int = 3
    """The bits at which the quantizer is compared with ``rtn``."""

    # --- the rules

    def test_it_takes_every_number_of_bits(self) -> None:
        for bits in self.bits:
            model = given.small_model()
            with told_in_one_line(f"bits={bits}"):
                self._run(model, bits=bits)
            self._check_output(model, f"with {bits} bits")

    def test_it_keeps_to_the_group_size(self) -> None:
        for size in self.group_sizes:
            with told_in_one_line(f"group_size={size}"):
                record = self._run(given.small_model(), group_size=size)
            for name, entry in record["layers"].items():
                columns = given.INNER if name.endswith("down_proj") else given.WIDTH
                groups = 1 if size == "row" else -(-columns // int(size))
                if entry["groups"] != groups:
                    fail(f"{self._who()} on {name}: want {groups} groups of {columns} inputs with group_size={size}, not {entry['groups']}")

    def test_more_bits_lose_less(self) -> None:
        few, more, most = (self._error(bits) for bits in (FEWEST_BITS, 4, MOST_BITS))
        if not few > more > most:
            fail(f"{self._who()}: the output error of {given.LAB} is {few:.3g} with 2 bits, {more:.3g} with 4 and {most:.3g} with 8")
        if most > LOST_BY_EIGHT_BITS:
            fail(f"{self._who()}: with 8 bits the output error of {given.LAB} is {most:.3g}: want at most {LOST_BY_EIGHT_BITS}")

    def test_it_removes_exactly_what_was_asked_for(self) -> None:
        asked: tuple[float | str, ...] = (*self.ratios, *self.patterns)
        for sparsity in asked:
            model = given.small_model()
            if not self.joint:
                self._check_refused(sparsity, model)
                continue
            with told_in_one_line(f"sparsity={sparsity}"):
                self._run(model, sparsity=sparsity)
            self._check_output(model, f"at sparsity {sparsity}")

    def test_it_removes_nothing_from_a_layer_whose_sparsity_is_zero(self) -> None:
        if not self.joint:
            return
        model = given.small_model()
        with told_in_one_line():
            record = self._run(model, sparsity=0.5, allocation=FirstLayerDense())
        first = given.layers_of(model)[0]
        if zeros := record["layers"][first.name]["zeros"]:
            fail(f"{self._who()} on {first.name}: sparsity 0 is 0 removed weights, it removed {zeros}")

    def test_it_is_no_worse_than_rounding_to_nearest(self) -> None:
        mine, floor = self._error(self.quality_bits), self._error(self.quality_bits, nearest=True)
        if not mine <= 1.1 * floor:
            fail(
                f"{self._who()}: with {self.quality_bits} bits the output error of the layers of {given.LAB} is {mine:.3g}, that of "
                f"rounding to nearest {floor:.3g}"
            )

    # --- how they are tested

    def _quantizer(self) -> Quantizer:
        made = given.make(PruningMethod, given.plugins().pruners, self.quantizer, self.options)
        if not isinstance(made, Quantizer):
            fail(f"{type(made).__qualname__}: want a subclass of harness_ext.Quantizer")
        return made

    def _plugin(self) -> Quantizer:
        return self._quantizer()

    def _run(
        self,
        model: Any,
        *,
        bits: int = 4,
        sparsity: float | str = 0,
        calibration: torch.Tensor | None = None,
        group_size: int | Literal["row"] | None = None,
        **options: Any,
    ) -> Record:
        ids = given.token_ids() if calibration is None else calibration
        quantizer = self._quantizer()
        if group_size is not None:
            quantizer = dataclasses.replace(quantizer, group_size=group_size)
        return given.prune(model, pruner=quantizer, bits=bits, sparsity=sparsity, calibration=ids, **options)

    def _by_layer(self) -> bool:
        return True

    def _takes_sparsity(self) -> bool:
        return self.joint

    def _call(self, weight: torch.Tensor, statistic: Any, sparsity: Sparsity | None = None) -> Quantized:
        quantizer, sparsity = self._quantizer(), sparsity or Sparsity(0)
        if quantizer.quantizes_together():
            result = quantizer.quantize_together([weight], 4, [sparsity], statistic)[0]
        else:
            result = quantizer.quantize(weight, 4, sparsity, statistic)
        if not isinstance(result, Quantized):
            raise PluginError(f"pruner {quantizer.name!r}: want a harness_ext.Quantized, not {type(result).__name__}")
        return result

    def _check_like(self, new: Quantized, weight: torch.Tensor) -> None:
        for name in ("codes", "scales", "zero_points"):
            if (where := getattr(new, name).device) != weight.device:
                fail(f"{self._who()}: a weight on {weight.device} came back with {name} on {where}")
        if new.scales.dtype != weight.dtype:
            fail(f"{self._who()}: a weight in {weight.dtype} came back with scales in {new.scales.dtype}")

    def _error(self, bits: int, *, nearest: bool = False) -> float:
        """The output error of the layers of the smallest embedded model, or that of rounding to nearest with the same groups."""
        model, mine = given.lab_model(), self._quantizer()
        quantizer = mine
        if nearest:
            groups = {"group_size": mine.group_size, "symmetric": mine.symmetric}
            quantizer = given.make(PruningMethod, given.plugins().pruners, "rtn", groups)  # type: ignore[assignment]
        with told_in_one_line(f"on {given.LAB}"):
            given.prune(model, pruner=quantizer, bits=bits, calibration=given.lab_text(0))
        return layer_error(model, given.lab_text(1))

    def _take(self, case: Callable[[], tuple[Any, torch.Tensor]]) -> None:
        model, ids = case()
        with told_in_one_line():
            self._run(model, calibration=ids, sparsity=0.5 if self.joint else 0)
        self._check_output(model, "quantised")
