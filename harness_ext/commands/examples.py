"""The examples at the end of each ``harness-ext COMMAND --help``."""

from __future__ import annotations

import typer

EXAMPLES = {
    "allocations": ("harness-ext allocations",),
    "cache": ("harness-ext cache", "harness-ext cache --clear"),
    "calibrations": ("harness-ext calibrations --json",),
    "compare": (
        "harness-ext compare runs/sparsegpt runs/wanda",
        "harness-ext compare runs/first:pruner=wanda runs/first:pruner=sparsegpt --csv wanda_sparsegpt.csv",
    ),
    "known-facts": ("harness-ext known-facts --model_args pretrained=lab-s --out known.json",),
    "models": ("harness-ext models",),
    "new-plugin": ("harness-ext new-plugin first-columns --kind pruner",),
    "perplexity": ("harness-ext perplexity --text book.txt --sparsity 0.5 --pruner wanda",),
    "plugins": ("harness-ext plugins",),
    "prune": (
        "harness-ext prune --pretrained lab-s --sparsity 0.5 --out lab-s-half",
        "harness-ext prune --pruner wanda --sparsity 2:4 --modules ffn -o calibration.samples=128 --out lab-m-24",
        "harness-ext prune --pruner gptq --bits 4 -o pruner.group_size=64 --out lab-m-4bit",
    ),
    "pruners": ("harness-ext pruners",),
    "report": ("harness-ext report runs/first", "harness-ext report runs/first runs/second --out report"),
    "sweep": (
        "harness-ext sweep --pruner wanda --pruner sparsegpt --sparsity 0:0.8:0.2 --tasks lab_facts_closed,icl_linear --out runs/first",
        "harness-ext sweep --pruner gptq --pruner rtn --bits 2,3,4,8 --tasks lab_facts_closed,icl_linear --out runs/bits",
        "harness-ext sweep --config sweep.yaml --dry-run",
    ),
}


def add_examples(app: typer.Typer) -> None:
    """Puts the examples below the options of each command."""
    for command in app.registered_commands:
        name = command.name or (command.callback.__name__.replace("_", "-") if command.callback else "")
        if name in EXAMPLES:
            command.epilog = "\n\n".join(["Examples:", *EXAMPLES[name]])
