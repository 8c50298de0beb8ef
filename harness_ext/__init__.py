"""What does a language model lose when it is made smaller? An extension of lm-evaluation-harness.

The public names below are imported on first use, so that ``import harness_ext`` costs next to nothing. It happens at every start of a
Python in whose environment this package is installed (``harness_ext.autoload``), also before pytest could rewrite its assertions. The next
word tells pytest not to try: PYTEST_DONT_REWRITE.
"""

TYPE_CHECKING = False  # typing.TYPE_CHECKING without the import of typing
if TYPE_CHECKING:
    from harness_ext.atomic import whole_folder as whole_folder
    from harness_ext.cache import cache_folder as cache_folder
    from harness_ext.engine.api import prune as prune
    from harness_ext.engine.calls import failing as failing
    from harness_ext.engine.global_state import kept_environment as kept_environment
    from harness_ext.engine.global_state import kept_generators as kept_generators
    from harness_ext.engine.global_state import seed_for as seed_for
    from harness_ext.engine.layers import DecoderBlock as DecoderBlock
    from harness_ext.engine.layers import LinearLayer as LinearLayer
    from harness_ext.engine.layers import find_blocks as find_blocks
    from harness_ext.engine.terminal import progress as progress
    from harness_ext.errors import BadOptionError as BadOptionError
    from harness_ext.errors import CalibrationError as CalibrationError
    from harness_ext.errors import HarnessExtError as HarnessExtError
    from harness_ext.errors import MissingExtraError as MissingExtraError
    from harness_ext.errors import NumericalError as NumericalError
    from harness_ext.errors import PluginError as PluginError
    from harness_ext.errors import UnknownNameError as UnknownNameError
    from harness_ext.errors import UnsupportedModelError as UnsupportedModelError
    from harness_ext.errors import one_line as one_line
    from harness_ext.errors import shortened as shortened
    from harness_ext.errors import shown as shown
    from harness_ext.extras import require_extra as require_extra
    from harness_ext.hookspecs import hookimpl as hookimpl
    from harness_ext.host.model import PrunedHFLM as PrunedHFLM
    from harness_ext.method.allocation import Allocation as Allocation
    from harness_ext.method.allocation import Measured as Measured
    from harness_ext.method.calibration import Calibration as Calibration
    from harness_ext.method.documents import Documents as Documents
    from harness_ext.method.grid import Grid as Grid
    from harness_ext.method.linalg import InverseFactor as InverseFactor
    from harness_ext.method.linalg import inverse_factor as inverse_factor
    from harness_ext.method.pruner import ModelPruner as ModelPruner
    from harness_ext.method.pruner import Pruned as Pruned
    from harness_ext.method.pruner import Pruner as Pruner
    from harness_ext.method.pruner import PruningMethod as PruningMethod
    from harness_ext.method.pruner import StructuredPruner as StructuredPruner
    from harness_ext.method.quantizer import Quantized as Quantized
    from harness_ext.method.quantizer import Quantizer as Quantizer
    from harness_ext.method.shapes import LayerShape as LayerShape
    from harness_ext.method.sparsity import Sparsity as Sparsity
    from harness_ext.method.sparsity import decimal_fraction as decimal_fraction
    from harness_ext.method.sparsity import lowest as lowest
    from harness_ext.method.sparsity import rounding_slack as rounding_slack
    from harness_ext.method.statistic import ChannelNorms as ChannelNorms
    from harness_ext.method.statistic import Hessian as Hessian
    from harness_ext.method.statistic import Statistic as Statistic
    from harness_ext.weights.masks import load_masks as load_masks

_HOMES = {
    "atomic": ("whole_folder",),
    "cache": ("cache_folder",),
    "method.allocation": ("Allocation", "Measured"),
    "method.shapes": ("LayerShape",),
    "engine.api": ("prune",),
    "method.calibration": ("Calibration",),
    "method.documents": ("Documents",),
    "errors": (
        "BadOptionError",
        "CalibrationError",
        "HarnessExtError",
        "MissingExtraError",
        "NumericalError",
        "PluginError",
        "UnknownNameError",
        "UnsupportedModelError",
        "one_line",
        "shortened",
        "shown",
    ),
    "engine.global_state": ("kept_environment", "kept_generators", "seed_for"),
    "extras": ("require_extra",),
    "hookspecs": ("hookimpl",),
    "engine.calls": ("failing",),
    "engine.layers": ("DecoderBlock", "LinearLayer", "find_blocks"),
    "method.grid": ("Grid",),
    "method.linalg": ("InverseFactor", "inverse_factor"),
    "host.model": ("PrunedHFLM",),
    "weights.masks": ("load_masks",),
    "method.pruner": ("ModelPruner", "Pruned", "Pruner", "PruningMethod", "StructuredPruner"),
    "method.quantizer": ("Quantized", "Quantizer"),
    "method.sparsity": ("Sparsity", "decimal_fraction", "lowest", "rounding_slack"),
    "method.statistic": ("ChannelNorms", "Hessian", "Statistic"),
    "engine.terminal": ("progress",),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)  # noqa: PLE0605 - a literal list would say it twice


def __getattr__(name: str) -> object:
    from importlib import import_module, metadata

    if name == "__version__":
        return metadata.version("lm-eval-pruned")
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"harness_ext.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'harness_ext' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
