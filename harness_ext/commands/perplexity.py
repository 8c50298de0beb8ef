"""``harness-ext perplexity``: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from harness_ext.commands.cache import NO_CACHE
from harness_ext.commands.errors import errors_in_one_line

Text = Optional[str]  # noqa: UP045 - typer on Python 3.10 does not read ``str | None``
Texts = Optional[list[str]]  # noqa: UP045
Number = Optional[int]  # noqa: UP045


def perplexity(
    text: Annotated[str, typer.Option(help="Text file, or wikitext2 or c4 from the hub.")],
    window: Annotated[Number, typer.Option(help="Tokens in a window. Default: 2048, or what the model takes.")] = None,
    bos: Annotated[
        str,
        typer.Option(help="BOS tokens: text (one before the text if the tokenizer puts it there), window (one in each window), or none."),
    ] = "text",
    batch_size: Annotated[int, typer.Option("--batch_size", "--batch-size", help="Windows in a forward pass.", min=1)] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, with the loss of each window and the pruning record.")] = False,
    pretrained: Annotated[str, typer.Option(help="Short model name, folder, or OWNER/NAME on the hub.")] = "lab-m",
    sparsity: Annotated[str, typer.Option(help="Share of weights to remove first, such as 0.5, or a pattern such as 2:4.")] = "0",
    pruner: Annotated[Text, typer.Option(help="Pruning method. Default: sparsegpt.")] = None,
    modules: Annotated[
        Text, typer.Option(help="Linear layers to prune: all, attention, ffn, or a glob such as '*.q_proj'. Default: all.")
    ] = None,
    allocation: Annotated[Text, typer.Option(help="How to choose the sparsity of each linear layer. Default: uniform.")] = None,
    calibration: Annotated[Text, typer.Option(help="Calibration text: self, hub, or a text or JSONL file. Default: self.")] = None,
    precision: Annotated[Text, typer.Option(help="Precision of the pruning arithmetic: float32 or float64. Default: float32.")] = None,
    option: Annotated[
        Texts, typer.Option("--option", "-o", help="Option of the pruner, allocation or calibration, as for prune. Repeatable.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Dtype of the model: auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[Text, typer.Option(help="Device, such as cpu or cuda. Default: cuda if there is one.")] = None,
    true_sequential: Annotated[
        bool, typer.Option("--true-sequential", help="Prune the linear layers of a block in order of use, as for prune.")
    ] = False,
    experts: Annotated[Text, typer.Option(help="Tokens that experts are calibrated on: routed or all. Default: routed.")] = None,
    min_expert_tokens: Annotated[Number, typer.Option(help="As for prune. Default: 256.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if an expert gets no token, as for prune.")] = False,
    dense_limit: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Largest share of a block's selected weights that may stay dense, as for prune. Default: 0.02."),
    ] = None,
    resume: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for a checkpoint after each decoder block of the pruning, as for prune."),
    ] = None,
    no_calibration_cache: Annotated[bool, NO_CACHE] = False,
    revision: Annotated[Text, typer.Option(help="Revision of the model on the hub.")] = None,
    gguf_file: Annotated[Text, typer.Option(help="GGUF file in the folder or repository. Its weights are dequantised.")] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")] = False,
) -> None:
    """Measure the perplexity of a model on a text, in the protocol of the pruning papers. With --sparsity, prune the model first."""
    from harness_ext.commands.measure import MeasureJob, run, summary
    from harness_ext.host.arguments import parse_options

    of_plan: dict[str, Any] = {
        "pruner": pruner, "sparsity": sparsity, "modules": modules, "allocation": allocation, "calibration": calibration,
        "precision": precision, "true_sequential": true_sequential or None, "experts": experts, "min_expert_tokens": min_expert_tokens,
        "strict": strict or None, "dense_limit": dense_limit, "resume": resume,
        "calibration_cache": False if no_calibration_cache else None,
    }  # fmt: skip
    with errors_in_one_line():
        arguments = {name: value for name, value in of_plan.items() if value is not None} | parse_options(option or [])
        job = MeasureJob(
            pretrained=pretrained, arguments=arguments, dtype=dtype, device=device, revision=revision, gguf_file=gguf_file,
            trust_remote_code=trust_remote_code, text=text, window=window, bos=bos, batch_size=batch_size,
        )  # fmt: skip
        measured = run(job)
        if json:
            from rich.console import Console

            Console(markup=False, emoji=False, highlight=False).print_json(data=measured, default=str)
        else:
            typer.echo(summary(measured))
