#!/usr/bin/env bash
# Trains models of one size with more and more facts to memorise, prunes them, and writes docs/memory-load.md (which says what is measured).
#
#   scripts/memory_load.sh [OUT]
#
# What is done in OUT (runs/memory-load) is not done again. JOBS runs go at a time, one thread each.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
if [ $# -gt 1 ] || [[ ${1:-} == -* ]]; then
  echo "usage: scripts/memory_load.sh [OUT]" >&2
  exit 2
fi
out=${1:-runs/memory-load}

export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$out"
python "$root/scripts/train_family.py" --out "$out/family" --sets loads --steps 2000 --jobs "${JOBS:-2}"
python "$root/scripts/memory_load.py" facts "$out"

sweep() { # recall-PEOPLE, or context
  local people=${1##*-} more=()
  if [ "$1" = context ]; then people='*'; else more=(--metadata "{\"facts_known\": \"$out/facts-$people.json\"}"); fi
  for model in "$out"/family/lab-xs-$people-people-*/model; do more+=(--pretrained "$model"); done
  harness-ext sweep --config "$root/scripts/memory_load/${1%%-*}.yaml" --out "$out/$1" "${more[@]}"
}
export -f sweep
export root out
names=(context)
for file in "$out"/facts-*.json; do
  file=${file##*/facts-}
  names+=("recall-${file%.json}")
done
printf '%s\n' "${names[@]}" | xargs -P "${JOBS:-2}" -I NAME bash -euo pipefail -c 'sweep NAME'

python "$root/scripts/memory_load.py" page "$out" --page "$root/docs/memory-load.md"
