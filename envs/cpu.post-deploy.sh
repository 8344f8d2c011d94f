#!/bin/bash
# Run by Snakemake inside the new environment, from a copy in its folder of environments.
set -euo pipefail
bash "$SSLTRANSFER_PIPELINE/envs/link_package.sh"
