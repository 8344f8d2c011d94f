#!/bin/bash
# Everything that only a GPU can show, in under 9 minutes: gpu_check.sh [WHEELS]
#
# The tests that compare a GPU with the CPU, then the benchmarks' cases on a GPU: results/gpu/results.json, which
# `ssltransfer estimate --benchmark-results` reads. With a folder of wheels (tools/gpu_wheels.py) it uses the torch of
# python3 and needs neither .venv nor a network.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# = 0 ]; then
    python=.venv/bin/python
else
    python=python3
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$1"/*.whl
    export PYTHONPATH="$site:src"
fi
"$python" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "gpu_check.sh: torch finds no GPU here.")'
failed=0
mapfile -t files < <(grep -rl --include='test_*.py' 'mark\.gpu' tests)
SSLTRANSFER_TEST_CUDA=1 "$python" -m pytest -m gpu --durations 5 "${files[@]}" || failed=1
"$python" -m benchmarks lloyd training extraction logistic neighbors labeling kmeans \
    --device cuda --rounds 2 --minutes 5 --out results/gpu || failed=1
exit $failed
