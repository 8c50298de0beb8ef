#!/usr/bin/env bash
# Trains models that were told some facts rarely and others often, prunes them, and writes docs/exposure.md (which says what is measured).
#
#   scripts/exposure.sh [OUT]
#
# What is done in OUT (runs/exposure) is not done again. JOBS runs go at a time, one thread each.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
if [ $# -gt 1 ] || [[ ${1:-} == -* ]]; then
  echo "usage: scripts/exposure.sh [OUT]" >&2
  exit 2
fi
out=${1:-runs/exposure}

export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$out"
python "$root/scripts/train_family.py" --out "$out/family" --sets zipf --steps 2000 --jobs "${JOBS:-2}"
python "$root/scripts/exposure.py" facts "$out"

sweep() {
  local more=()
  for model in "$out"/family/lab-xs-zipf-*/model; do more+=(--pretrained "$model"); done
  if [ "$1" != context ]; then more+=(--metadata "{\"facts_known\": \"$out/$1.json\"}"); fi
  harness-ext sweep --config "$root/scripts/exposure/$1.yaml" --out "$out/$1" "${more[@]}"
}
export -f sweep
export root out
printf '%s\n' recall ranking context | xargs -P "${JOBS:-2}" -I NAME bash -euo pipefail -c 'sweep NAME'

python "$root/scripts/exposure.py" page "$out" --page "$root/docs/exposure.md"
