#!/bin/bash
# Link this package into the active environment, so that its jobs run the code that runs the workflow.
# workflow/rules/common.smk sets SSLTRANSFER_PIPELINE, the folder `pipeline` of the installed package.
set -euo pipefail
packages=$(dirname "$(dirname "$SSLTRANSFER_PIPELINE")")
site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
ln -sfn "$packages/ssltransfer" "$packages/toyworld" "$site/"
command=$(dirname "$(command -v python)")/ssltransfer
cat > "$command" <<'END'
#!/bin/sh
exec "$(dirname "$0")/python" -P -m ssltransfer.cli "$@"
END
chmod +x "$command"
