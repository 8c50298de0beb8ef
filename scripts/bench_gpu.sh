#!/usr/bin/env bash
# Pruning and evaluation on one H100 in one call of less than 9 minutes:
#
#   scripts/bench_gpu.sh [--toy] [--sparsegpt DIR] [--wanda DIR] [FOLDER]
#
# DIR are clones of IST-DASLab/sparsegpt and locuslab/wanda; what needs one that is not given is left out. Results go to FOLDER, or to
# $OUT: a JSON file and a log for each part, and results.md. Each part has its own time limit, so that a slow one does not lose the others.
# --toy runs all of it at a tiny size on the CPU.
set -u

out=${OUT:-} python=${PYTHON:-python} here=$(dirname "$0") toy='' sparsegpt='' wanda=''
while [ $# -gt 0 ]; do
  case $1 in
    --toy) toy=--toy ;;
    --sparsegpt | --wanda)
      [ $# -gt 1 ] || { echo "$1: want the folder of a clone" >&2; exit 2; }
      declare "${1#--}=$2"
      shift
      ;;
    -*) echo "$1: want --toy, --sparsegpt DIR, --wanda DIR or a folder for the results" >&2; exit 2 ;;
    *) out=$1 ;;
  esac
  shift
done
[ -n "$out" ] || { echo "want a folder for the results, as an argument or in OUT" >&2; exit 2; }
mkdir -p "$out"

part() { # NAME SECONDS WORDS...
  local name=$1 limit=$2
  shift 2
  if timeout -k 2 "$limit" "$python" "$here/bench_gpu.py" "$@" $toy --out "$out/$name.json" > "$out/$name.log" 2>&1; then
    echo "$name: done in $SECONDS s since the start"
  else
    rm -f "$out/$name.json"
    echo "$name: failed, or took more than $limit s; see $out/$name.log"
  fi
}

part sparsegpt-ours 60 prune --method sparsegpt --blocks 4
[ -n "$sparsegpt" ] && part sparsegpt-authors 95 prune --method sparsegpt --blocks 4 --reference "$sparsegpt"
part wanda-ours 60 prune --method wanda
[ -n "$wanda" ] && part wanda-authors 45 prune --method wanda --reference "$wanda"
part experts-wanda 50 experts --method wanda
part experts-sparsegpt 60 experts --method sparsegpt
part evaluate 50 evaluate
part evaluate-32-blocks 70 evaluate --blocks 32
timeout 30 "$python" "$here/bench_gpu.py" table "$out"
