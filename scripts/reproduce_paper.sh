#!/usr/bin/env bash
# Measures the claims of Jin et al. (arXiv 2310.04680) on the embedded models, and writes docs/results.md (docs/results.md says what is measured).
#
#   scripts/reproduce_paper.sh [--quick] [OUT]
#
# What is done in OUT (runs/paper, or runs/paper-quick) is not done again. JOBS sweeps run at a time, one thread each.
# FAMILY is a folder of scripts/train_family.py: with it, the page also has the models of other training seeds, dense, pruned and quantised.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

grids=full out=
for word in "$@"; do
  case $word in
    --quick) grids=quick ;;
    -*) echo "usage: scripts/reproduce_paper.sh [--quick] [OUT]" >&2; exit 2 ;;
    *) out=$word ;;
  esac
done
if [ "$grids" = quick ]; then out=${out:-runs/paper-quick}; page=$out/results.md; else out=${out:-runs/paper}; page=$root/docs/results.md; fi

export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$out"
if [ ! -e "$out/texts/functions.txt" ]; then
  python "$root/scripts/calibration_texts.py" "$out/texts"
fi
cp "$root/scripts/reproduce_paper/$grids"/*.yaml "$out"

sweep() {
  local more=()
  if [ "$1" = calibration ]; then more=(--calibration "$2/texts/facts.txt" --calibration "$2/texts/functions.txt"); fi
  case $1 in
    family) for model in "$FAMILY"/lab-{xs,s,s4,m}-[0-9]/model; do more+=(--pretrained "$model"); done ;;
    bits | bits-sparse) for model in "$FAMILY"/lab-m-[0-9]/model; do more+=(--pretrained "$model"); done ;;
    bits-sizes) for model in "$FAMILY"/lab-{xs,s,s4}-[0-9]/model; do more+=(--pretrained "$model"); done ;;
  esac
  harness-ext sweep --config "$2/$1.yaml" --out "$2/$1" ${more[@]+"${more[@]}"}
}
export -f sweep
# The longest first, so that two at a time end at about the same time.
printf '%s\n' ${FAMILY:+family bits bits-sparse bits-sizes} pruning modules calibration ranking difficulty equal ladder | xargs -P "${JOBS:-2}" -I NAME bash -euo pipefail -c 'sweep NAME "$0"' "$out"

python "$root/scripts/paper_claims.py" "$out" --page "$page"
harness-ext report "$out"/{pruning,modules,ladder,equal,calibration} --out "$out/report"
