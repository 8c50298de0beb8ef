"""The command ``harness-ext``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from harness_ext.commands import cache as cache_command
from harness_ext.commands import compare, methods, plugin_list
from harness_ext.commands import options as shared
from harness_ext.commands import perplexity as perplexity_command
from harness_ext.commands.errors import errors_in_one_line, listed
from harness_ext.commands.examples import add_examples
from harness_ext.commands.garbage import kept_garbage
from harness_ext.commands.group import Commands
from harness_ext.commands.options import File, Text, Texts, Whole

app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, help="Pruned-model experiments with lm-evaluation-harness.")


def _version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        typer.echo(f"lm-eval-pruned {metadata.version('lm-eval-pruned')}")
        raise typer.Exit


@app.callback()
def main(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    """Pruned-model experiments with lm-evaluation-harness: lm_eval --model pruned-hf --model_args sparsity=0.7 --tasks icl_linear"""
    from harness_ext.engine.terminal import show_log

    show_log()


@app.command()
def known_facts(
    out: Annotated[Path, typer.Option(help="File to write.")],
    task: Annotated[str, typer.Option(help="Closed-book task that asks for the facts.")] = "lab_facts_closed",
    model: Annotated[str, typer.Option(help="Model type, as for lm_eval.")] = "pruned-hf",
    model_args: Annotated[
        str, typer.Option("--model_args", "--model-args", help="Model arguments, as for lm_eval, such as pretrained=lab-s.")
    ] = "",
    metadata: Annotated[str, typer.Option(help="Task options, as for lm_eval: a JSON object, or NAME=VALUE.")] = "{}",
    batch_size: Annotated[int, typer.Option("--batch_size", "--batch-size", help="Batch size.")] = 1,
    limit: Annotated[Whole, typer.Option(help="Number of facts to ask for. Default: all.", min=1)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write the list of facts that a model knows. Give it to a fact task by --metadata '{"facts_known": "FILE"}'."""
    from harness_ext.host import known_facts as listing
    from harness_ext.host import registration
    from harness_ext.host.arguments import parse_mapping

    with errors_in_one_line():
        listing.check_output(out, force=force)
        registration.register()
        asked = listing.closed_task(task, parse_mapping("--metadata", metadata))
        found = listing.known_facts(listing.load_model(model, model_args, batch_size), asked, limit=limit)
        listing.write(found, out)
    typer.echo(f"{out}: {len(found['known'])} of {found['asked']} facts known")


@app.command()
def prune(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    sparsity: Annotated[Text, typer.Option(help="Share of weights to remove, such as 0.5, or a pattern such as 2:4.")] = None,
    bits: shared.Bits = None,
    pretrained: shared.Pretrained = "lab-m",
    pruner: shared.Pruner = None,
    modules: shared.Modules = None,
    allocation: shared.Allocation = None,
    calibration: shared.Calibration = None,
    precision: shared.Precision = None,
    option: shared.PluginOptions = None,
    dtype: shared.Dtype = "auto",
    device: shared.Device = None,
    masks_only: Annotated[bool, typer.Option("--masks-only", help="Write only masks, one bit per weight, for pruner=stored.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Hold one decoder block in memory at a time, for models larger than memory.")
    ] = False,
    true_sequential: shared.TrueSequential = False,
    experts: shared.Experts = None,
    min_expert_tokens: shared.MinExpertTokens = None,
    strict: shared.Strict = False,
    dense_limit: shared.DenseLimit = None,
    resume: shared.Resume = None,
    no_calibration_cache: shared.NoCalibrationCache = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder if this command wrote it.")] = False,
    revision: shared.Revision = None,
    gguf_file: shared.GgufFile = None,
    trust_remote_code: shared.TrustRemoteCode = False,
) -> None:
    """Prune or quantise a model and write a checkpoint that AutoModelForCausalLM.from_pretrained can load."""
    from harness_ext.commands import prune as prune_command

    if sparsity is None and (bits is None or bits.strip().lower() == "none"):
        raise typer.BadParameter("want a share of weights such as 0.5, or --bits 4 with --pruner gptq", param_hint="'--sparsity'")
    with errors_in_one_line():
        arguments = shared.plan_arguments(
            option, pruner=pruner, sparsity=sparsity, bits=bits, modules=modules, allocation=allocation, calibration=calibration,
            precision=precision, true_sequential=true_sequential, experts=experts, min_expert_tokens=min_expert_tokens, strict=strict,
            dense_limit=dense_limit, resume=resume, no_calibration_cache=no_calibration_cache,
        )  # fmt: skip
        job = prune_command.PruneJob(
            pretrained=pretrained, out=out, arguments=arguments, dtype=dtype, device=device, masks_only=masks_only, stream=stream,
            force=force, revision=revision, trust_remote_code=trust_remote_code, gguf_file=gguf_file,
        )  # fmt: skip
        record = prune_command.run(job)
    typer.echo(prune_command.summary(record, out))


class OptionalValues(TyperCommand):
    """Lets options be given without a value, as in lm-eval's own command line: they are then true."""

    names = ("--apply_chat_template", "--apply-chat-template", "--fewshot_as_multiturn", "--fewshot-as-multiturn")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = []
        for index, word in enumerate(args):
            words.append(word)
            if word in self.names and (index + 1 == len(args) or args[index + 1].startswith("-")):
                words.append("true")
        return super().parse_args(ctx, words)


@app.command(cls=OptionalValues)
def sweep(
    ctx: typer.Context,
    out: Annotated[Text, typer.Option(help="Folder for the records. Trials that are recorded there are not repeated.")] = None,
    config: Annotated[File, typer.Option(help="YAML file with these options. The command line overrides it.")] = None,
    pretrained: Annotated[Texts, typer.Option(help="Model, as for prune. Repeatable.")] = None,
    pruner: Annotated[Texts, typer.Option(help="Pruning method. Repeatable. Default: sparsegpt.")] = None,
    sparsity: Annotated[Texts, typer.Option(help="Sparsities: 0.5, 2:4, or a range 0:0.9:0.1. Repeatable, or with commas.")] = None,
    bits: Annotated[
        Texts, typer.Option(help="Bits of a weight for quantizers, such as 2,3,4,8. Repeatable. The default of --sparsity is then 0.")
    ] = None,
    allocation: Annotated[Texts, typer.Option(help="Allocation of the sparsity. Repeatable. Default: uniform.")] = None,
    modules: Annotated[
        Texts, typer.Option(help="Linear layers to prune, as for prune, such as 'all+!model.layers.0.*'. Repeatable. Default: all.")
    ] = None,
    calibration: Annotated[Texts, typer.Option(help="Calibration text: self, hub, or a file. Repeatable. Default: self.")] = None,
    seeds: Annotated[Texts, typer.Option(help="Calibration seeds, such as 0,1,2.")] = None,
    options: Annotated[
        Texts, typer.Option("--option", "-o", help="Option, such as pruner.block_size=64, for the methods that take it. Repeatable.")
    ] = None,
    precision: shared.Precision = None,
    true_sequential: Annotated[
        bool,
        typer.Option(
            "--true_sequential",
            "--true-sequential",
            help="Prune the linear layers of a block in order of use, each calibrated on the outputs of the pruned layers before it.",
        ),
    ] = False,
    model_args: Annotated[
        Texts,
        typer.Option("--model_args", "--model-args", help="Other model arguments, as for lm_eval, such as add_bos_token=True."),
    ] = None,
    tasks: Annotated[Texts, typer.Option(help="Tasks, as for lm_eval. Repeatable, or with commas.")] = None,
    metadata: Annotated[Texts, typer.Option(help="Task options, as for lm_eval: a JSON object, or NAME=VALUE.")] = None,
    include_path: Annotated[Texts, typer.Option("--include_path", "--include-path", help="Another folder of tasks. Repeatable.")] = None,
    limit: Annotated[Text, typer.Option(help="Items per task, or a share of them if below 1. Default: all.")] = None,
    num_fewshot: Annotated[
        Text,
        typer.Option("--num_fewshot", "--num-fewshot", help="Examples in each prompt, as for lm_eval. Default: what the task says."),
    ] = None,
    apply_chat_template: Annotated[
        Text,
        typer.Option(
            "--apply_chat_template",
            "--apply-chat-template",
            metavar="[NAME]",
            help="Put prompts into the tokenizer's chat template, or the one of this name.",
        ),
    ] = None,
    fewshot_as_multiturn: Annotated[
        Text,
        typer.Option(
            "--fewshot_as_multiturn",
            "--fewshot-as-multiturn",
            metavar="[BOOLEAN]",
            help="Give examples as turns of a conversation. Default: true with --apply_chat_template.",
        ),
    ] = None,
    system_instruction: Annotated[
        Text,
        typer.Option("--system_instruction", "--system-instruction", help="System instruction before each prompt, as for lm_eval."),
    ] = None,
    gen_kwargs: Annotated[
        Texts, typer.Option("--gen_kwargs", "--gen-kwargs", help="Generation arguments, as for lm_eval, such as temperature=0.")
    ] = None,
    perplexity: Annotated[
        Text,
        typer.Option(help="Text file, or wikitext2 or c4 from the hub: also measure the perplexity on it, as harness-ext perplexity."),
    ] = None,
    perplexity_window: Annotated[
        Text,
        typer.Option("--perplexity_window", "--perplexity-window", help="Tokens in a window. Default: 2048, or what the model takes."),
    ] = None,
    perplexity_bos: Annotated[
        Text, typer.Option("--perplexity_bos", "--perplexity-bos", help="BOS tokens: text, window or none. Default: text.")
    ] = None,
    batch_size: Annotated[
        Text,
        typer.Option("--batch_size", "--batch-size", help="Batch size: a number or auto. Default: chosen by the size of the model."),
    ] = None,
    device: shared.Device = None,
    dtype: Annotated[Text, typer.Option(help="Dtype of the model: auto, float32, bfloat16 or float16.")] = None,
    revision: Annotated[Text, typer.Option(help="Revision of the models on the hub.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust_remote_code", "--trust-remote-code", help="Run Python code that comes with a model.")
    ] = False,
    refine: Annotated[
        Text,
        typer.Option(
            metavar="WIDTH",
            help="After the grid, measure more sparsities where an ability fails, until the interval of each critical sparsity is at most "
            "this wide.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the trials and their cost in seconds, and write nothing.")] = False,
    engine: Annotated[str, typer.Option(help="Where trials run: local, or ray for a cluster.")] = "local",
    address: Annotated[Text, typer.Option(help="Address of the Ray cluster, such as auto or ray://HOST:10001.")] = None,
    cpus_per_trial: Annotated[float, typer.Option(help="CPUs per trial, for --engine ray.", min=0)] = 1,
    gpus_per_trial: Annotated[float, typer.Option(help="GPUs per trial, for --engine ray.", min=0)] = 0,
) -> None:
    """Prune and evaluate a model at every point of a grid. Each trial gives the same scores as its own lm_eval run."""
    import os
    from contextlib import nullcontext

    os.environ.setdefault("TQDM_DISABLE", "1")  # tqdm reads it when it is imported; lm-eval's bars would overwrite ours
    from harness_ext.extras import require_extra

    of_the_run = ("config", "dry_run", "engine", "address", "cpus_per_trial", "gpus_per_trial")
    fields = {name: value for name, value in ctx.params.items() if name not in of_the_run and value not in (None, [], (), False)}
    share = {"cpus": cpus_per_trial, "gpus": gpus_per_trial}
    try:
        with errors_in_one_line(), kept_garbage() if dry_run else nullcontext():
            require_extra("sweep", "harness-ext sweep")
            from harness_ext.commands import sweep as sweep_command

            code = sweep_command.sweep(fields, config, dry_run=dry_run, engine=engine, address=address, share=share)
    except KeyboardInterrupt as error:
        typer.echo("interrupted; finished trials are kept, and the same command resumes with the others", err=True)
        raise typer.Exit(130) from error
    raise typer.Exit(code)


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="Sweep folders, or results_*.json of lm_eval --model pruned-hf, or folders that contain them.")
    ],
    out: Annotated[
        File,
        typer.Option(
            "--out", "-o", help="Folder to write, or a page NAME.html with its files in NAME. Default: report in the first folder."
        ),
    ] = None,
    recall: shared.Recall = None,
    in_context: shared.InContext = None,
    metric: shared.Metrics = None,
    filters: shared.Filters = None,
    limit: shared.Limit = None,
    axis: Annotated[
        str,
        typer.Option(help="Draw against sparsity, size (parameters that are not zero), bytes (of these) or bits (of the model)."),
    ] = "sparsity",
    replicates: Annotated[
        Texts, typer.Option(help="Models that were trained alike with different seeds, with commas. Repeatable, for other groups.")
    ] = None,
    resamples: shared.Resamples = 2000,
) -> None:
    """Write one page with figures, tables, and what was shown and not shown."""
    from harness_ext.extras import require_extra

    with errors_in_one_line():
        require_extra("report", "harness-ext report")
        from harness_ext import report as reports

        made = reports.report(
            folders, out, recall=listed(recall), in_context=listed(in_context), metrics=listed(metric),
            filters=listed(filters), limit=limit, axis=axis,
            resamples=resamples, replicates=[listed([group]) for group in replicates or []],
        )  # fmt: skip
    for gap in made.gaps:
        typer.echo(f"not computed: {gap}", err=True)
    typer.echo(str(made.page))


for command in (compare.compare, plugin_list.plugins, plugin_list.models, methods.pruners, methods.allocations, methods.calibrations):
    app.command()(command)


@app.command()
def new_plugin(
    name: Annotated[str, typer.Argument(help="Name that users type, such as first-columns.")],
    kind: Annotated[str, typer.Option(help="Kind of plugin: pruner, allocation, calibration or tasks.")] = "pruner",
    out: Annotated[Path, typer.Option(help="Folder to write the package into.")] = Path(),
) -> None:
    """Write a plugin package from a template, with a test that passes."""
    from harness_ext import new_plugin as skeleton

    with errors_in_one_line():
        folder = skeleton.write(name, kind, out)
    typer.echo(f"{folder}: pip install -e '{folder}[test]' && pytest {folder}")


app.command()(perplexity_command.perplexity)
app.command()(cache_command.cache)
add_examples(app)
