#!/usr/bin/env bash
# SimSID's table: its three datasets, with every kind and disease that they name, and its hierarchical variant on the
# first; or with --quick on DigitAnatomy.
#   scripts/simsid.sh [options]; --help lists them. --data-root is the folder that holds all three, or --lines one of them.
set -euo pipefail
cd "$(dirname "$0")/.."
source ./environment.sh
digit="simsid dataset=digit precision=bf16 image_size=64 base_channels=16 learning_rate=2e-4 recon_weight=10 main_score=reconstruction epochs=4 cosine_epochs=4"
case " $* " in
    *" --quick "*) list="DigitAnatomy simsid | $digit" ;;
    *) list="ZhangLab simsid_zhang precision=bf16
COVIDx   simsid_covidx precision=bf16
CheXpert simsid_chexpert precision=bf16
ZhangLab-hierarchical simsid_hierarchical precision=bf16" ;;
esac
"$PYTHON" tools/batch.py --name simsid --script scripts/simsid.sh "$@" <<<"$list"
