"""Text that the embedded model ``lab-m`` writes, for scripts that want a calibration file.

python scripts/lab_text.py FILE --samples 8
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness_ext.plugins import Plugins


def folder() -> Path:
    """Where the embedded model is."""
    return Path(Plugins().models.get("lab-m")[0])


def ids(samples: int, seed: int = 0, length: int | None = None) -> torch.Tensor:
    """Tokens that the dense model samples: int64 [samples, length]."""
    source = Plugins().calibrations.get("self")[0].from_options({"samples": samples, "seed": seed, "length": length})
    model = AutoModelForCausalLM.from_pretrained(folder(), dtype=torch.float32).eval()
    found: torch.Tensor = source.input_ids(model, AutoTokenizer.from_pretrained(folder()))
    return found


def main(path: Path, samples: Annotated[int, typer.Option(help="Sequences of the model's full length.")] = 8, seed: int = 0) -> None:
    """Writes them as one text file."""
    tokenizer = AutoTokenizer.from_pretrained(folder())
    path.write_text("\n".join(tokenizer.batch_decode(ids(samples, seed), skip_special_tokens=True)), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
