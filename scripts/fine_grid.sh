#!/usr/bin/env bash
# Measures where the abilities of lab-m fail on a fine grid of sparsities, with all its facts, and writes docs/fine-grid.md.
#
#   scripts/fine_grid.sh [OUT]
#
# What is done in OUT (runs/fine-grid) is not done again. Each of the ten calibration seeds has two sweeps. The page is written when
# all are done. JOBS sweeps go at a time, one thread each, on DEVICE (cpu), with batches of BATCH sequences (by the size of the model).
# With DEVICE=cuda JOBS=20 BATCH=256 they took 12 minutes on one NVIDIA H100.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
if [ $# -gt 1 ] || [[ ${1:-} == -* ]]; then
  echo "usage: scripts/fine_grid.sh [OUT]" >&2
  exit 2
fi
out=${1:-runs/fine-grid}

export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$out"
sweep() { # facts-SEED, or context-SEED
  harness-ext sweep --config "$root/scripts/fine_grid/${1%-*}.yaml" --seeds "${1##*-}" --device "${DEVICE:-cpu}" \
    ${BATCH:+--batch-size "$BATCH"} --out "$out/$1"
}
export -f sweep
export root out
for seed in {0..9}; do printf '%s\n' "context-$seed" "facts-$seed"; done | xargs -P "${JOBS:-2}" -I NAME bash -euo pipefail -c 'sweep NAME'

python "$root/scripts/fine_grid.py" page "$out" --page "$root/docs/fine-grid.md"
