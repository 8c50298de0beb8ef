"""``harness-ext perplexity``: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from harness_ext.commands import options as shared
from harness_ext.commands.errors import errors_in_one_line
from harness_ext.commands.options import Whole


def perplexity(
    text: Annotated[str, typer.Option(help="Text file, or wikitext2 or c4 from the hub.")],
    window: Annotated[Whole, typer.Option(help="Tokens in a window. Default: 2048, or what the model takes.")] = None,
    bos: Annotated[
        str,
        typer.Option(help="BOS tokens: text (one before the text if the tokenizer puts it there), window (one in each window), or none."),
    ] = "text",
    batch_size: Annotated[int, typer.Option("--batch_size", "--batch-size", help="Windows in a forward pass.", min=1)] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, with the loss of each window and the pruning record.")] = False,
    pretrained: shared.Pretrained = "lab-m",
    sparsity: Annotated[str | None, typer.Option(help="Share of weights to remove first, such as 0.5, or a pattern such as 2:4.")] = None,
    bits: shared.Bits = None,
    pruner: shared.Pruner = None,
    modules: shared.Modules = None,
    allocation: shared.Allocation = None,
    calibration: shared.Calibration = None,
    precision: shared.Precision = None,
    option: shared.PluginOptions = None,
    dtype: shared.Dtype = "auto",
    device: shared.Device = None,
    true_sequential: shared.TrueSequential = False,
    experts: shared.Experts = None,
    min_expert_tokens: shared.MinExpertTokens = None,
    strict: shared.Strict = False,
    dense_limit: shared.DenseLimit = None,
    resume: shared.Resume = None,
    no_calibration_cache: shared.NoCalibrationCache = False,
    revision: shared.Revision = None,
    gguf_file: shared.GgufFile = None,
    trust_remote_code: shared.TrustRemoteCode = False,
) -> None:
    """Measure the perplexity of a model on a text, in the protocol of the pruning papers. With --sparsity or --bits, change it first."""
    from harness_ext.commands.measure import MeasureJob, run, summary

    with errors_in_one_line():
        arguments = shared.plan_arguments(
            option, pruner=pruner, sparsity=sparsity, bits=bits, modules=modules, allocation=allocation, calibration=calibration,
            precision=precision, true_sequential=true_sequential, experts=experts, min_expert_tokens=min_expert_tokens, strict=strict,
            dense_limit=dense_limit, resume=resume, no_calibration_cache=no_calibration_cache,
        )  # fmt: skip
        job = MeasureJob(
            pretrained=pretrained, arguments=arguments, dtype=dtype, device=device, revision=revision, gguf_file=gguf_file,
            trust_remote_code=trust_remote_code, text=text, window=window, bos=bos, batch_size=batch_size,
        )  # fmt: skip
        measured = run(job)
        if json:
            from harness_ext.commands.printing import console

            console().print_json(data=measured, default=str)
        else:
            typer.echo(summary(measured))
