"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

# typer on Python 3.10 does not read ``str | None``
Text = Optional[str]  # noqa: UP045
Texts = Optional[list[str]]  # noqa: UP045
Whole = Optional[int]  # noqa: UP045
Real = Optional[float]  # noqa: UP045
File = Optional[Path]  # noqa: UP045

Pretrained = Annotated[str, typer.Option(help="Short model name, folder, or OWNER/NAME on the hub.")]
Pruner = Annotated[Text, typer.Option(help="Pruning method. Default: sparsegpt.")]
Bits = Annotated[Text, typer.Option(help="Bits of a weight, 2 to 8, for a quantizer such as gptq.")]
Modules = Annotated[
    Text,
    typer.Option(
        help="Linear layers to prune: all, attention, ffn, or a glob such as '*.q_proj'. Join several with +, and exclude with !: "
        "'all+!model.layers.0.*'. Default: all."
    ),
]
Allocation = Annotated[Text, typer.Option(help="How to choose the sparsity of each linear layer. Default: uniform.")]
Calibration = Annotated[Text, typer.Option(help="Calibration text: self, hub, or a text or JSONL file. Default: self.")]
Precision = Annotated[Text, typer.Option(help="Precision of the pruning arithmetic: float32 or float64. Default: float32.")]
PluginOptions = Annotated[
    Texts,
    typer.Option("--option", "-o", help="Option of the pruner, allocation or calibration, such as pruner.block_size=64. Repeatable."),
]
Dtype = Annotated[str, typer.Option(help="Dtype of the model: auto, float32, bfloat16 or float16.")]
Device = Annotated[Text, typer.Option(help="Device, such as cpu or cuda. Default: cuda if there is one.")]
TrueSequential = Annotated[
    bool,
    typer.Option(
        "--true-sequential",
        help="Prune the linear layers of a block in order of use, each calibrated on the outputs of the pruned layers before it.",
    ),
]
Experts = Annotated[Text, typer.Option(help="Tokens that experts are calibrated on: routed (those sent to each) or all. Default: routed.")]
MinExpertTokens = Annotated[Whole, typer.Option(help="The record names experts that were calibrated on fewer tokens. Default: 256.")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail if an expert gets no token. Default: prune it by magnitude.")]
DenseLimit = Annotated[
    Real, typer.Option(help="Largest share of a block's selected weights that may stay dense, outside linear layers. Default: 0.02.")
]
Resume = Annotated[File, typer.Option(help="Folder for a checkpoint after each decoder block. A killed run resumes from it.")]
NoCalibrationCache = Annotated[
    bool, typer.Option("--no-calibration-cache", help="Neither read nor keep calibration tokens in the cache (harness-ext cache).")
]
Revision = Annotated[Text, typer.Option(help="Revision of the model on the hub.")]
GgufFile = Annotated[Text, typer.Option(help="GGUF file in the folder or repository. Its weights are dequantised.")]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")]
Recall = Annotated[
    Texts, typer.Option(help="Tasks that count as recall. Repeatable, or with commas. Default: what tasks declare, or a table.")
]
InContext = Annotated[Texts, typer.Option(help="Tasks that count as in-context. Default: what tasks declare, or a table.")]
Metrics = Annotated[Texts, typer.Option(help="Metrics; a task is scored by the first that it has. Default: acc, exact_match, ...")]
Filters = Annotated[Texts, typer.Option("--filter", help="Filters of lm-eval; of several scores, that with the first counts.")]
Limit = Annotated[Text, typer.Option(help="Use only results with this --limit; all means results without a limit.")]
Resamples = Annotated[int, typer.Option(help="Number of bootstrap resamples.")]


def plan_arguments(options: Texts, *, true_sequential: bool, strict: bool, no_calibration_cache: bool, **others: Any) -> dict[str, Any]:
    """The arguments of a plan, by name. Options that were not given are left out.

    Args:
        options: ``NAME=VALUE`` texts of ``--option``.
        others: values of other options; None if they were not given.

    Raises:
        BadOptionError: a text is not of this form.
    """
    from harness_ext.host.arguments import parse_options

    flags = {"true_sequential": true_sequential or None, "strict": strict or None}
    cache = {"calibration_cache": False if no_calibration_cache else None}
    values = others | flags | cache
    return {name: value for name, value in values.items() if value is not None} | parse_options(options or [])
