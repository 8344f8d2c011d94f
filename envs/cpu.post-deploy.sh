#!/bin/bash
# Run by Snakemake inside the new environment.
set -euo pipefail
python -m pip install --no-deps "$(dirname "$0")/.."
