#!/usr/bin/env bash
# "Disease-free training requirement": training images of which 100 … 50 % are normal, the rest anomalous and unlabeled;
# on ZhangLab, or with --quick on DigitAnatomy. A table and a figure.
#   scripts/contamination.sh [options]; --help lists them
set -euo pipefail
cd "$(dirname "$0")/.."
source ./environment.sh
digit="dataset=digit" zhang="dataset=zhang"
case " $* " in *" --quick "*) shares="100 90 70 50" ;; *) shares="100 90 80 70 60 50" ;; esac
{
    for normal in $shares; do
        with="train_normal_fraction=$(printf %d.%02d $((normal / 100)) $((normal % 100)))"
        cat <<LINES
SQUID@$normal     zhang_best precision=bf16 $with | digit_quick precision=bf16 epochs=4 $with
SimSID@$normal    simsid_zhang precision=bf16 $with | simsid $digit precision=bf16 image_size=64 base_channels=16 learning_rate=2e-4 recon_weight=10 main_score=reconstruction epochs=4 cosine_epochs=4 $with
MemAE@$normal     memae_zhang $with | memae $digit epochs=30 $with
f-AnoGAN@$normal  fanogan $zhang $with | fanogan $digit image_size=32 base_channels=16 epoch_batches=50 epochs=6 encoder_epochs=2 $with
PatchCore@$normal patchcore $zhang $with | patchcore $digit backbone=efficientnet_lite0 image_size=96 $with
LINES
    done
} | "$PYTHON" tools/batch.py --name contamination --script scripts/contamination.sh \
    --axis "normal among the training images, %" "$@"
