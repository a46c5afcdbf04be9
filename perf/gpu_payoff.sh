#!/usr/bin/env bash
# What a GPU shows of compressed linears and of 2:4, in at most 8 minutes: perf/results/gpu_*.json and a table each.
#
#     bash perf/gpu_payoff.sh [CHECKPOINT]      CHECKPOINT: a pruned folder, for tokens/s from end to end (optional);
#                                               FORMS=compressed,dense,2:4 where it is 2:4
#
# Needs CUDA, Triton (it comes with torch for CUDA) and this package; no network.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-perf/results}
mkdir -p "$OUT"
timeout 120 python -m pytest -q -m gpu tests/kernels -p no:cacheprovider
timeout 150 python perf/gpu_kernels.py --out "$OUT/gpu_kernels.json"
if [ $# -gt 0 ]; then
  timeout 180 python -m tamp_lightning bench "$1" --forms "${FORMS:-compressed,dense}" --prompt 512 --repeats 5 --out "$OUT/gpu_bench.json"
fi
