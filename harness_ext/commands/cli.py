"""The command ``harness-ext``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from harness_ext.commands import cache as cache_command
from harness_ext.commands import compare, methods, plugin_list
from harness_ext.commands import perplexity as perplexity_command
from harness_ext.commands.cache import NO_CACHE
from harness_ext.commands.errors import told
from harness_ext.commands.examples import add_examples
from harness_ext.commands.group import Commands

Text = Optional[str]  # noqa: UP045 - typer on Python 3.10 does not read ``str | None``
Texts = Optional[list[str]]  # noqa: UP045

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
    metadata: Annotated[str, typer.Option(help="Task options as a JSON object, as for lm_eval.")] = "{}",
    batch_size: Annotated[int, typer.Option("--batch_size", "--batch-size", help="Batch size.")] = 1,
    limit: Annotated[
        Optional[int],  # noqa: UP045 (typer on Python 3.10)
        typer.Option(help="Number of facts to ask for. Default: all.", min=1),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write the list of facts that a model knows. Give it to a fact task by --metadata '{"facts_known": "FILE"}'."""
    from harness_ext.errors import HarnessExtError
    from harness_ext.host import known_facts as listing
    from harness_ext.host import registration

    try:
        listing.check_output(out, force=force)
        registration.register()
        asked = listing.closed_task(task, listing.options_from(metadata))
        found = listing.known_facts(listing.load_model(model, model_args, batch_size), asked, limit=limit)
        listing.write(found, out)
    except (HarnessExtError, OSError) as error:
        typer.echo(told(error), err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{out}: {len(found['known'])} of {found['asked']} facts known")


@app.command()
def prune(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    sparsity: Annotated[str, typer.Option(help="Share of weights to remove, such as 0.5, or a pattern such as 2:4.")],
    pretrained: Annotated[str, typer.Option(help="Short model name, folder, or OWNER/NAME on the hub.")] = "lab-m",
    pruner: Annotated[Optional[str], typer.Option(help="Pruning method. Default: sparsegpt.")] = None,  # noqa: UP045 (typer on Python 3.10)
    modules: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Linear layers to prune: all, attention, ffn, or a glob such as '*.q_proj'. Join several with +, and exclude with !: "
            "'all+!model.layers.0.*'. Default: all."
        ),
    ] = None,
    allocation: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="How to choose the sparsity of each linear layer. Default: uniform."),
    ] = None,
    calibration: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Calibration text: self, hub, or a text or JSONL file. Default: self."),
    ] = None,
    precision: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Precision of the pruning arithmetic: float32 or float64. Default: float32."),
    ] = None,
    option: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--option", "-o", help="Option of the pruner, allocation or calibration, such as pruner.block_size=64. Repeatable."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Dtype of the model: auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Device, such as cpu or cuda. Default: cuda if there is one."),
    ] = None,
    masks_only: Annotated[bool, typer.Option("--masks-only", help="Write only masks, one bit per weight, for pruner=stored.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Hold one decoder block in memory at a time, for models larger than memory.")
    ] = False,
    true_sequential: Annotated[
        bool,
        typer.Option(
            "--true-sequential",
            help="Prune the linear layers of a block in order of use, each calibrated on the outputs of the pruned layers before it.",
        ),
    ] = False,
    experts: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Tokens that experts are calibrated on: routed (those sent to each) or all. Default: routed."),
    ] = None,
    min_expert_tokens: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="The record names experts that were calibrated on fewer tokens. Default: 256."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if an expert gets no token. Default: prune it by magnitude.")] = False,
    dense_limit: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Largest share of a block's selected weights that may stay dense, outside linear layers. Default: 0.02."),
    ] = None,
    resume: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for a checkpoint after each decoder block. A killed run resumes from it."),
    ] = None,
    no_calibration_cache: Annotated[bool, NO_CACHE] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder if this command wrote it.")] = False,
    revision: Annotated[Optional[str], typer.Option(help="Revision of the model on the hub.")] = None,  # noqa: UP045
    gguf_file: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="GGUF file in the folder or repository. Its weights are dequantised."),
    ] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")] = False,
) -> None:
    """Prune a model and write a checkpoint that AutoModelForCausalLM.from_pretrained can load."""
    from harness_ext.commands import prune as prune_command
    from harness_ext.errors import HarnessExtError
    from harness_ext.host.arguments import parse_options

    given: dict[str, Any] = {
        "pruner": pruner,
        "sparsity": sparsity,
        "modules": modules,
        "allocation": allocation,
        "calibration": calibration,
    }
    given |= {"precision": precision, "resume": resume, "true_sequential": true_sequential or None, "experts": experts}
    given |= {"min_expert_tokens": min_expert_tokens, "strict": strict or None, "dense_limit": dense_limit}
    given |= {"calibration_cache": False if no_calibration_cache else None}
    try:
        arguments = {name: value for name, value in given.items() if value is not None} | parse_options(option or [])
        job = prune_command.PruneJob(
            pretrained=pretrained, out=out, arguments=arguments, dtype=dtype, device=device, masks_only=masks_only, stream=stream,
            force=force, revision=revision, trust_remote_code=trust_remote_code, gguf_file=gguf_file,
        )  # fmt: skip
        record = prune_command.run(job)
    except (HarnessExtError, OSError) as error:
        typer.echo(told(error), err=True)
        raise typer.Exit(1) from error
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
    config: Annotated[Optional[Path], typer.Option(help="YAML file with these options. The command line overrides it.")] = None,  # noqa: UP045
    pretrained: Annotated[Texts, typer.Option(help="Model, as for prune. Repeatable.")] = None,
    pruner: Annotated[Texts, typer.Option(help="Pruning method. Repeatable. Default: sparsegpt.")] = None,
    sparsity: Annotated[Texts, typer.Option(help="Sparsities: 0.5, 2:4, or a range 0:0.9:0.1. Repeatable, or with commas.")] = None,
    allocation: Annotated[Texts, typer.Option(help="Allocation of the sparsity. Repeatable. Default: uniform.")] = None,
    modules: Annotated[
        Texts, typer.Option(help="Linear layers to prune, as for prune, such as 'all+!model.layers.0.*'. Repeatable. Default: all.")
    ] = None,
    calibration: Annotated[Texts, typer.Option(help="Calibration text: self, hub, or a file. Repeatable. Default: self.")] = None,
    seeds: Annotated[Texts, typer.Option(help="Calibration seeds, such as 0,1,2.")] = None,
    options: Annotated[
        Texts, typer.Option("--option", "-o", help="Option, such as pruner.block_size=64, for the methods that take it. Repeatable.")
    ] = None,
    precision: Annotated[Text, typer.Option(help="Precision of the pruning arithmetic: float32 or float64. Default: float32.")] = None,
    true_sequential: Annotated[
        bool,
        typer.Option(
            "--true_sequential",
            "--true-sequential",
            help="Prune the linear layers of a block in order of use, each calibrated on the outputs of the pruned layers before it.",
        ),
    ] = False,
    model_args: Annotated[
        Texts, typer.Option("--model_args", "--model-args", help="Other model arguments, as for lm_eval, such as add_bos_token=True.")
    ] = None,
    tasks: Annotated[Texts, typer.Option(help="Tasks, as for lm_eval. Repeatable, or with commas.")] = None,
    metadata: Annotated[Texts, typer.Option(help="Task options, as for lm_eval: a JSON object, or NAME=VALUE.")] = None,
    include_path: Annotated[Texts, typer.Option("--include_path", "--include-path", help="Another folder of tasks. Repeatable.")] = None,
    limit: Annotated[Text, typer.Option(help="Items per task, or a share of them if below 1. Default: all.")] = None,
    num_fewshot: Annotated[
        Text, typer.Option("--num_fewshot", "--num-fewshot", help="Examples in each prompt, as for lm_eval. Default: what the task says.")
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
        Text, typer.Option("--system_instruction", "--system-instruction", help="System instruction before each prompt, as for lm_eval.")
    ] = None,
    gen_kwargs: Annotated[
        Texts, typer.Option("--gen_kwargs", "--gen-kwargs", help="Generation arguments, as for lm_eval, such as temperature=0.")
    ] = None,
    perplexity: Annotated[
        Text, typer.Option(help="Text file, or wikitext2 or c4 from the hub: also measure the perplexity on it, as harness-ext perplexity.")
    ] = None,
    perplexity_window: Annotated[
        Text, typer.Option("--perplexity_window", "--perplexity-window", help="Tokens in a window. Default: 2048, or what the model takes.")
    ] = None,
    perplexity_bos: Annotated[
        Text, typer.Option("--perplexity_bos", "--perplexity-bos", help="BOS tokens: text, window or none. Default: text.")
    ] = None,
    batch_size: Annotated[
        Text,
        typer.Option("--batch_size", "--batch-size", help="Batch size: a number or auto. Default: chosen by the size of the model."),
    ] = None,
    device: Annotated[Text, typer.Option(help="Device, such as cpu or cuda. Default: cuda if there is one.")] = None,
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

    os.environ.setdefault("TQDM_DISABLE", "1")  # tqdm reads it when it is imported; lm-eval's bars would overwrite ours
    from harness_ext.errors import HarnessExtError
    from harness_ext.extras import require_extra

    of_the_run = ("config", "dry_run", "engine", "address", "cpus_per_trial", "gpus_per_trial")
    fields = {name: value for name, value in ctx.params.items() if name not in of_the_run and value not in (None, [], (), False)}
    share = {"cpus": cpus_per_trial, "gpus": gpus_per_trial}
    try:
        require_extra("sweep", "harness-ext sweep")
        from harness_ext.commands import sweep as sweep_command

        code = sweep_command.sweep(fields, config, dry_run=dry_run, engine=engine, address=address, share=share)
    except (HarnessExtError, OSError) as error:
        typer.echo(told(error), err=True)
        raise typer.Exit(1) from error
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
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--out", "-o", help="Folder to write, or a page NAME.html with its files in NAME. Default: report in the first folder."
        ),
    ] = None,
    recall: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Tasks that count as recall. Repeatable, or with commas. Default: what tasks declare, or a table."),
    ] = None,
    in_context: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Tasks that count as in-context. Default: what tasks declare, or a table."),
    ] = None,
    metric: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Metrics; a task is scored by the first that it has. Default: acc, exact_match, ..."),
    ] = None,
    limit: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Use only results with this --limit; all means results without a limit."),
    ] = None,
    axis: Annotated[
        str, typer.Option(help="Draw against sparsity, size (parameters that are not zero) or bytes (of these parameters).")
    ] = "sparsity",
    replicates: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Models that were trained alike with different seeds, with commas. Repeatable, for other groups."),
    ] = None,
    resamples: Annotated[int, typer.Option(help="Number of bootstrap resamples.")] = 2000,
) -> None:
    """Write one page with figures, tables, and what was shown and not shown."""
    from harness_ext.errors import HarnessExtError
    from harness_ext.extras import require_extra

    lists = [[name for part in given or [] for name in part.split(",") if name] for given in (recall, in_context, metric)]
    try:
        require_extra("report", "harness-ext report")
        from harness_ext import report as reports

        made = reports.report(
            folders, out, recall=lists[0], in_context=lists[1], metrics=lists[2], limit=limit, axis=axis, resamples=resamples,
            replicates=[[name for name in group.split(",") if name] for group in replicates or []],
        )  # fmt: skip
    except (HarnessExtError, OSError) as error:
        typer.echo(told(error), err=True)
        raise typer.Exit(1) from error
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
    from harness_ext.errors import HarnessExtError

    try:
        folder = skeleton.write(name, kind, out)
    except (HarnessExtError, OSError) as error:
        typer.echo(told(error), err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{folder}: pip install -e '{folder}[test]' && pytest {folder}")


app.command()(perplexity_command.perplexity)
app.command()(cache_command.cache)
add_examples(app)
