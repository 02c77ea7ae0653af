#!/usr/bin/env bash
# Tests, benchmarks and a training per precision on this machine's GPU, without a network, in at most 8 minutes.
#
#   bash benchmarks/gpu_check.sh [--wheels DIR] [--data COCO] [--out DIR] [--cpu] [--seconds 480]
#
# --wheels: wheels of what this machine's Python lacks (the script lists it). --data: a COCO root; without it images are
# generated. --out: for all results, $OUT or gpu_check. --cpu: small sizes, to see that every part runs.
# The last lines are a table: what, value, goal. $PYTHON names another Python than python3.
set -euo pipefail
started=$SECONDS
out=${OUT:-gpu_check}
wheels=()
others=()
seconds=480
while (($#)); do
  case $1 in
    --wheels) wheels=("$(realpath "$2")"); shift 2 ;;
    --out) out=$2; shift 2 ;;
    --data) others+=(--data "$(realpath "$2")"); shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --cpu) others+=(--cpu); shift ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
mkdir -p "$out"
out=$(realpath "$out")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
"$python" benchmarks/gpu/wheels.py "$out/site" "${wheels[@]}"
export PYTHONPATH="$PWD:$out/site"
left=$((seconds - (SECONDS - started)))
exec "$python" -m benchmarks.gpu.check --out "$out" --seconds "$left" "${others[@]}"
