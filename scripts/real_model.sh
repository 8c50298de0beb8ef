#!/usr/bin/env bash
# Measures what SmolLM2-135M loses when it is pruned, and writes docs/real-model.md (which says what is measured).
#
#   scripts/real_model.sh [--first | --quick] RELATIONS [OUT]
#
# RELATIONS is a folder with relation files (task_configs/lre/README.md says which are published). What is done in OUT (runs/real,
# runs/real-first or runs/real-quick) is not done again. JOBS sweeps run at a time, one thread each, on DEVICE (cpu), with batches of BATCH
# sequences (by the size of the model): on a GPU of 80 GB as DEVICE=cuda JOBS=8 BATCH=128; with 16 sweeps at a time it ran out of memory.
# --first is a first look: two methods, one calibration seed, few items, no perplexity. --quick shows that everything runs; its page is
# OUT/real-model.md.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

grids=full
words=()
for word in "$@"; do
  case $word in
    --first) grids=first ;;
    --quick) grids=quick ;;
    -*) echo "usage: scripts/real_model.sh [--first | --quick] RELATIONS [OUT]" >&2; exit 2 ;;
    *) words+=("$word") ;;
  esac
done
if [ ${#words[@]} -lt 1 ] || [ ${#words[@]} -gt 2 ]; then
  echo "usage: scripts/real_model.sh [--first | --quick] RELATIONS [OUT]" >&2
  exit 2
fi
relations=${words[0]}
case $grids in
  quick) out=${words[1]:-runs/real-quick}; page=$out/real-model.md ;;
  first) out=${words[1]:-runs/real-first}; page=$root/docs/real-model.md ;;
  full) out=${words[1]:-runs/real}; page=$root/docs/real-model.md ;;
esac

export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$out"
# The text whose perplexity is measured comes with Python: its first characters, about 60,000 tokens.
characters=240000
if [ "$grids" = quick ]; then characters=20000; fi
python - "$out/text.txt" $characters <<'PYTHON'
import pathlib, pydoc_data.topics, sys

pathlib.Path(sys.argv[1]).write_text("\n\n".join(pydoc_data.topics.topics.values())[: int(sys.argv[2])])
PYTHON
sweep() { # GRID, or GRID-SEED
  local more=(--device "${DEVICE:-cpu}" ${BATCH:+--batch-size "$BATCH"})
  if [[ $1 == *-* ]]; then more+=(--seeds "${1##*-}"); fi
  if [ "$grids" != first ]; then more+=(--perplexity "$out/text.txt"); fi
  harness-ext sweep --config "$root/scripts/real_model/$grids/${1%-*}.yaml" --out "$out/$1" \
    --metadata "{\"relations\": \"$relations\"}" "${more[@]}"
}
export -f sweep
export root grids relations out
# Each calibration seed of a grid is a sweep.
names() {
  local file seed seeds
  for file in "$root/scripts/real_model/$grids"/*.yaml; do
    seeds=$(sed -n 's/#.*//; s/^seeds: *//p' "$file" | tr '[],' ' ')
    if [ -z "${seeds// /}" ]; then basename "$file" .yaml; fi
    for seed in $seeds; do echo "$(basename "$file" .yaml)-$seed"; done
  done
}
names | xargs -P "${JOBS:-2}" -I NAME bash -euo pipefail -c 'sweep NAME'

python "$root/scripts/real_model.py" page "$out" --page "$page" --grids "$grids"
sweeps=("$out"/*/trials)
harness-ext report "${sweeps[@]%/trials}" --out "$out/report"
