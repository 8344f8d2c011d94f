#!/bin/bash
# Run by Snakemake inside the new environment, from a copy in its folder of environments.
set -euo pipefail
uv pip install --python "$(command -v python)" --require-hashes -r "$SSLTRANSFER_PIPELINE/envs/requirements.lock"
bash "$SSLTRANSFER_PIPELINE/envs/link_package.sh"
