#!/usr/bin/env bash
# DDAD-ASR's table: its three auto-encoders and every score, on one Med-AD benchmark, or with --quick on DigitAnatomy.
#   scripts/ddad_backbones.sh rsna|vindr|brain|lag [options]; --help lists them
set -euo pipefail
case "${1:-}" in rsna | vindr | brain | lag) on="$1" && shift ;; *)
    echo "usage: scripts/ddad_backbones.sh rsna|vindr|brain|lag [--quick] [--seeds 0,1,2] [options]" >&2 && exit 2 ;;
esac
cd "$(dirname "$0")/.."
source ./environment.sh
quick="dataset=digit digits_per_epoch=500 extra_data=500 epochs=20 refine_epochs=2"
"$PYTHON" tools/batch.py --name "ddad_backbones_$on" --script "scripts/ddad_backbones.sh $on" "$@" <<LIST
AE    ddad_${on}_ae precision=bf16    | ddad backbone=ae precision=bf16 $quick
AE-U  ddad_${on}_aeu precision=bf16   | ddad backbone=aeu precision=bf16 $quick
MemAE ddad_${on}_memae precision=bf16 | ddad backbone=memae precision=bf16 $quick
LIST
