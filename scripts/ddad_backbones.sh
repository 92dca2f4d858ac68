#!/usr/bin/env bash
# DDAD-ASR's table: its three auto-encoders and every score, on one Med-AD benchmark, or with --quick on DigitAnatomy.
#   scripts/ddad_backbones.sh rsna|vindr|brain|lag [options]; --help lists them
set -euo pipefail
source "$(dirname "$0")/on_medad.sh"
"$PYTHON" tools/batch.py --name "ddad_backbones_$on" --script "scripts/ddad_backbones.sh $on" "$@" <<LIST
AE    ddad_${on}_ae precision=bf16    | ddad backbone=ae precision=bf16 $quick refine_epochs=2
AE-U  ddad_${on}_aeu precision=bf16   | ddad backbone=aeu precision=bf16 $quick refine_epochs=2
MemAE ddad_${on}_memae precision=bf16 | ddad backbone=memae precision=bf16 $quick refine_epochs=2
LIST
