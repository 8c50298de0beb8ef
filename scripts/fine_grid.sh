#!/usr/bin/env bash
# Measures where the abilities of lab-m fail on a fine grid of sparsities, with all facts and items, and writes docs/fine-grid.md.
#
#   scripts/fine_grid.sh [OUT]
#
# What is done in OUT (runs/fine-grid) is not done again. The two sweeps go at once, one thread each.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
if [ $# -gt 1 ] || [[ ${1:-} == -* ]]; then
  echo "usage: scripts/fine_grid.sh [OUT]" >&2
  exit 2
fi
out=${1:-runs/fine-grid}

export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$out"
export root out
printf '%s\n' facts context | xargs -P "${JOBS:-2}" -I NAME harness-ext sweep --config "$root/scripts/fine_grid/NAME.yaml" --out "$out/NAME"

python "$root/scripts/fine_grid.py" page "$out" --page "$root/docs/fine-grid.md"
