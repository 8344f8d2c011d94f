#!/bin/bash
# Run by Snakemake inside the new environment.
set -euo pipefail
here=$(dirname "$0")
uv pip install --python "$(command -v python)" --require-hashes -r "$here/requirements.lock"
uv pip install --python "$(command -v python)" --no-deps "$here/.."
