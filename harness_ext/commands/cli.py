"""The command ``harness-ext``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Pruned-model experiments with lm-evaluation-harness.")


@app.callback()
def main() -> None:
    """Pruned-model experiments with lm-evaluation-harness: lm_eval --model pruned-hf --model_args sparsity=0.7 --tasks icl_linear"""
    from harness_ext.engine.terminal import show_log

    show_log()


@app.command()
def plugins(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List every plugin, what it registers, its version, and what failed to load and why."""
    from harness_ext.plugins import Plugins

    found = Plugins()
    rows = [
        {
            "plugin": origin.entry_point,
            "distribution": origin.distribution,
            "version": origin.version,
            "pruners": [name for name, (_, of) in found.pruners.items.items() if of == origin],
            "calibrations": [name for name, (_, of) in found.calibrations.items.items() if of == origin],
            "allocations": [name for name, (_, of) in found.allocations.items.items() if of == origin],
            "models": [name for name, (_, of) in found.models.items.items() if of == origin],
            "tasks": [str(folder) for folder, of in found.task_folders if of == origin],
        }
        for origin in found.origins.values()
    ]
    broken = [
        {"plugin": b.origin.entry_point, "distribution": b.origin.distribution, "version": b.origin.version, "reason": b.reason}
        for b in found.broken
    ]
    console = Console(markup=False, emoji=False)
    if json:
        console.print_json(data={"plugins": rows, "not loaded": broken})
        return
    table = Table(title="Plugins")
    for column in ("plugin", "distribution", "registers"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(str(row["plugin"]), f"{row['distribution']} {row['version']}", _registers(row))
    console.print(table)
    if broken:
        table = Table(title="Not loaded")
        for column in ("plugin", "distribution", "why"):
            table.add_column(column, overflow="fold")
        for entry in broken:
            table.add_row(entry["plugin"], f"{entry['distribution']} {entry['version']}", entry["reason"])
        console.print(table)


@app.command()
def models() -> None:
    """List the short names that pretrained= takes, and their folders."""
    from harness_ext.plugins import Plugins

    plugins = Plugins()
    for name, (path, origin) in plugins.models.items.items():
        missing = "" if path.is_dir() else f"\tnot here yet: {plugins.how_to_get.get(name) or 'the plugin names no command that brings it'}"
        typer.echo(f"{name}\t{path}\t({origin}){missing}")


@app.command()
def known_facts(
    out: Annotated[Path, typer.Option(help="The file to write.")],
    task: Annotated[str, typer.Option(help="A closed-book task.")] = "lab_facts_closed",
    model: Annotated[str, typer.Option(help="As for lm_eval.")] = "pruned-hf",
    model_args: Annotated[str, typer.Option("--model_args", "--model-args", help="As for lm_eval, e.g. pretrained=lab-s.")] = "",
    metadata: Annotated[str, typer.Option(help="As for lm_eval, a JSON object.")] = "{}",
    batch_size: Annotated[int, typer.Option("--batch_size", "--batch-size")] = 1,
    limit: Annotated[Optional[int], typer.Option(help="Ask for so many facts only.", min=1)] = None,  # noqa: UP045 (typer on Python 3.10)
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write the list of facts that a model knows; a fact task takes it as --metadata '{"facts_known": "FILE"}'."""
    from harness_ext.errors import HarnessExtError
    from harness_ext.host import known_facts as listing
    from harness_ext.host import registration

    try:
        listing.check_output(out, force=force)
        registration.register()
        asked = listing.closed_task(task, listing.options_from(metadata))
        found = listing.known_facts(listing.load_model(model, model_args, batch_size), asked, limit=limit)
        listing.write(found, out)
    except HarnessExtError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{out}: {len(found['known'])} of {found['asked']} facts known")


@app.command()
def prune(
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    sparsity: Annotated[str, typer.Option(help="A ratio such as 0.5, or a pattern such as 2:4.")],
    pretrained: Annotated[str, typer.Option(help="A registered model, a folder, or OWNER/NAME on the hub.")] = "lab-m",
    pruner: Annotated[Optional[str], typer.Option(help="The method; by default sparsegpt.")] = None,  # noqa: UP045 (typer on Python 3.10)
    modules: Annotated[Optional[str], typer.Option(help="all, attention, ffn, or a glob such as '*.q_proj'.")] = None,  # noqa: UP045
    allocation: Annotated[Optional[str], typer.Option(help="How the sparsity is spread over the layers.")] = None,  # noqa: UP045
    calibration: Annotated[Optional[str], typer.Option(help="self, hub, or a text or JSONL file.")] = None,  # noqa: UP045
    precision: Annotated[Optional[str], typer.Option(help="float32 or float64, of statistics and arithmetic.")] = None,  # noqa: UP045
    option: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--option", "-o", help="An option of pruner, allocation or calibration, such as pruner.block_size=64; repeatable."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[Optional[str], typer.Option(help="Such as cuda; by default that, where there is one.")] = None,  # noqa: UP045
    masks_only: Annotated[bool, typer.Option("--masks-only", help="Write masks, one bit a weight, for pruner=stored.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Hold one decoder block in memory, for models that are larger.")] = False,
    true_sequential: Annotated[
        bool, typer.Option("--true-sequential", help="Measure each layer behind those of its own block that are pruned before it as well.")
    ] = False,
    resume: Annotated[Optional[Path], typer.Option(help="Keep a checkpoint of each block here, and go on from them.")] = None,  # noqa: UP045
    force: Annotated[bool, typer.Option("--force", help="Replace the folder if it was written by this command.")] = False,
    revision: Annotated[Optional[str], typer.Option(help="Of the model on the hub.")] = None,  # noqa: UP045
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run the code that comes with the model.")] = False,
) -> None:
    """Prune a model and write a checkpoint that AutoModelForCausalLM.from_pretrained loads."""
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
    given |= {"precision": precision, "resume": resume, "true_sequential": true_sequential or None}
    try:
        arguments = {name: value for name, value in given.items() if value is not None} | parse_options(option or [])
        job = prune_command.PruneJob(
            pretrained, out, arguments, dtype=dtype, device=device, masks_only=masks_only, stream=stream, force=force, revision=revision,
            trust_remote_code=trust_remote_code,
        )  # fmt: skip
        record = prune_command.run(job)
    except HarnessExtError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(prune_command.summary(record, out))


@app.command()
def sweep(
    out: Annotated[Optional[Path], typer.Option(help="The folder for the records; what is done in it is not done again.")] = None,  # noqa: UP045
    config: Annotated[Optional[Path], typer.Option(help="A YAML file with these fields; the command line overrides it.")] = None,  # noqa: UP045
    pretrained: Annotated[Optional[list[str]], typer.Option(help="A model, as for prune; repeatable.")] = None,  # noqa: UP045
    pruner: Annotated[Optional[list[str]], typer.Option(help="A method; repeatable. By default sparsegpt.")] = None,  # noqa: UP045
    sparsity: Annotated[Optional[list[str]], typer.Option(help="0.5, 2:4, or 0:0.9:0.1; commas or repeated.")] = None,  # noqa: UP045
    allocation: Annotated[Optional[list[str]], typer.Option(help="Repeatable. By default uniform.")] = None,  # noqa: UP045
    modules: Annotated[Optional[list[str]], typer.Option(help="all, attention, ffn, or a glob; repeatable.")] = None,  # noqa: UP045
    calibration: Annotated[Optional[list[str]], typer.Option(help="self, hub, or a file; repeatable.")] = None,  # noqa: UP045
    seeds: Annotated[Optional[list[str]], typer.Option(help="Seeds of the calibration, such as 0,1,2.")] = None,  # noqa: UP045
    option: Annotated[Optional[list[str]], typer.Option("--option", "-o", help="Such as pruner.block_size=64; repeatable.")] = None,  # noqa: UP045
    precision: Annotated[Optional[str], typer.Option(help="float32 or float64, of statistics and arithmetic.")] = None,  # noqa: UP045
    tasks: Annotated[Optional[list[str]], typer.Option(help="As for lm_eval; commas or repeated.")] = None,  # noqa: UP045
    metadata: Annotated[Optional[str], typer.Option(help="Options of tasks, a JSON object, as for lm_eval.")] = None,  # noqa: UP045
    include_path: Annotated[Optional[list[str]], typer.Option(help="A further folder of tasks; repeatable.")] = None,  # noqa: UP045
    limit: Annotated[Optional[float], typer.Option(help="Items of each task, or a share of them below 1.")] = None,  # noqa: UP045
    batch_size: Annotated[Optional[str], typer.Option(help="A number, or auto; by default by the size of the model.")] = None,  # noqa: UP045
    device: Annotated[Optional[str], typer.Option(help="Such as cuda; by default that, where there is one.")] = None,  # noqa: UP045
    dtype: Annotated[Optional[str], typer.Option(help="auto, float32, bfloat16 or float16.")] = None,  # noqa: UP045
    revision: Annotated[Optional[str], typer.Option(help="Of models on the hub.")] = None,  # noqa: UP045
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run the code that comes with a model.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the trials and what they cost; write nothing.")] = False,
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    address: Annotated[Optional[str], typer.Option(help="Of the Ray cluster, such as auto or ray://HOST:10001.")] = None,  # noqa: UP045
    cpus_per_trial: Annotated[float, typer.Option(help="For --engine ray.", min=0)] = 1,
    gpus_per_trial: Annotated[float, typer.Option(help="For --engine ray.", min=0)] = 0,
) -> None:
    """Prune and evaluate over a grid; each trial gives the numbers of its own lm_eval run, and is done once."""
    import os

    os.environ.setdefault("TQDM_DISABLE", "1")  # the bars of lm-eval would write over ours; read when tqdm is imported
    from harness_ext.commands import sweep as sweep_command
    from harness_ext.errors import HarnessExtError

    given: dict[str, Any] = {
        "out": str(out) if out else None, "pretrained": pretrained, "pruner": pruner, "sparsity": sparsity, "allocation": allocation,
        "modules": modules, "calibration": calibration, "seeds": seeds, "options": option, "precision": precision, "tasks": tasks,
        "metadata": metadata, "include_path": include_path, "limit": limit, "batch_size": batch_size, "device": device, "dtype": dtype,
        "revision": revision, "trust_remote_code": trust_remote_code,
    }  # fmt: skip
    share = {"cpus": cpus_per_trial, "gpus": gpus_per_trial}
    try:
        code = sweep_command.sweep(given, config, dry_run=dry_run, engine=engine, address=address, share=share)
    except HarnessExtError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        typer.echo("interrupted; the trials that were done are kept, and the same command goes on from them", err=True)
        raise typer.Exit(130) from error
    raise typer.Exit(code)


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="Sweep folders, or results_*.json of lm_eval --model pruned-hf and folders with them.")
    ],
    out: Annotated[Optional[Path], typer.Option(help="The folder to write; by default report in the first folder.")] = None,  # noqa: UP045
    recall: Annotated[Optional[list[str]], typer.Option(help="Tasks that recall; repeatable, or with commas. By default *_closed.")] = None,  # noqa: UP045
    in_context: Annotated[Optional[list[str]], typer.Option(help="Tasks that use the context. By default all that do not recall.")] = None,  # noqa: UP045
    metric: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="The score of a task is the first of these; by default acc, exact_match, ..."),
    ] = None,
    limit: Annotated[Optional[str], typer.Option(help="Only results of this --limit; all is those without one.")] = None,  # noqa: UP045
    resamples: Annotated[int, typer.Option(help="Of the bootstrap.")] = 2000,
) -> None:
    """Write one page with figures, tables and what was and was not shown."""
    from harness_ext import report as reports
    from harness_ext.errors import HarnessExtError

    lists = [[name for part in given or [] for name in part.split(",") if name] for given in (recall, in_context, metric)]
    try:
        made = reports.report(folders, out, recall=lists[0], in_context=lists[1], metrics=lists[2], limit=limit, resamples=resamples)
    except HarnessExtError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error
    for gap in made.gaps:
        typer.echo(f"not computed: {gap}", err=True)
    typer.echo(str(made.page))


@app.command()
def new_plugin(
    name: Annotated[str, typer.Argument(help="What users will type, such as first-columns.")],
    kind: Annotated[str, typer.Option(help="pruner, allocation, calibration or tasks.")] = "pruner",
    out: Annotated[Path, typer.Option(help="The folder to write the package into.")] = Path(),
) -> None:
    """Write a package with a plugin and its test, to begin with."""
    from harness_ext import new_plugin as skeleton
    from harness_ext.errors import HarnessExtError

    try:
        folder = skeleton.write(name, kind, out)
    except HarnessExtError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{folder}: pip install -e '{folder}[test]' && pytest {folder}")


def _registers(row: dict[str, Any]) -> str:
    parts = [f"{kind}: {', '.join(row[kind])}" for kind in ("pruners", "calibrations", "allocations", "models", "tasks") if row[kind]]
    return "\n".join(parts) or "nothing"
