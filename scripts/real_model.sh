#!/usr/bin/env bash
# Measures what SmolLM2-135M loses when it is pruned, and writes docs/real-model.md (which says what is measured).
#
#   scripts/real_model.sh [--quick] RELATIONS [OUT]
#
# RELATIONS is a folder with relation files (task_configs/lre/README.md says which are published). What is done in OUT (runs/real, or
# runs/real-quick) is not done again. JOBS sweeps run at a time, one thread each. --quick shows that everything runs: one method, two
# sparsities, few items; its page is OUT/real-model.md.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

grids=full
words=()
for word in "$@"; do
  case $word in
    --quick) grids=quick ;;
    -*) echo "usage: scripts/real_model.sh [--quick] RELATIONS [OUT]" >&2; exit 2 ;;
    *) words+=("$word") ;;
  esac
done
if [ ${#words[@]} -lt 1 ] || [ ${#words[@]} -gt 2 ]; then
  echo "usage: scripts/real_model.sh [--quick] RELATIONS [OUT]" >&2
  exit 2
fi
relations=${words[0]}
if [ "$grids" = quick ]; then out=${words[1]:-runs/real-quick}; page=$out/real-model.md; else out=${words[1]:-runs/real}; page=$root/docs/real-model.md; fi

export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$out"
# The text whose perplexity is measured comes with Python.
python -c 'import pydoc_data.topics, sys; sys.stdout.write("\n\n".join(pydoc_data.topics.topics.values()))' > "$out/text.txt"
if [ "$grids" = quick ]; then
  python - "$out/text.txt" <<'PYTHON'
import pathlib, sys

path = pathlib.Path(sys.argv[1])
path.write_text(path.read_text()[:40000])
PYTHON
fi
sweep() {
  harness-ext sweep --config "$root/scripts/real_model/$grids/$1.yaml" --out "$out/$1" \
    --metadata "{\"relations\": \"$relations\"}" --perplexity "$out/text.txt"
}
export -f sweep
export root grids relations out
printf '%s\n' pruning modules | xargs -P "${JOBS:-2}" -I NAME bash -euo pipefail -c 'sweep NAME'

python "$root/scripts/real_model.py" "$out" --page "$page"
harness-ext report "$out/pruning" "$out/modules" --out "$out/report"
