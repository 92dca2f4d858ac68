#!/usr/bin/env bash
# Contamination on ZhangLab in few epochs, for a CPU; one seed: methods of zhang_cpu.sh, with 100, 90, 70 and 50 % normal
# training images. A table and a figure. scripts/contamination.sh is the whole.
set -euo pipefail
cd "$(dirname "$0")/.."
source ./environment.sh
on="dataset=zhang" lite="dataset=zhang backbone=efficientnet_lite0"
{
    for normal in 100 90 70 50; do
        with="train_normal_fraction=$(printf %d.%02d $((normal / 100)) $((normal % 100)))"
        cat <<LINES
AE@$normal        ae $on epochs=50 val_every=10 $with
MemAE@$normal     memae_zhang epochs=20 val_every=5 $with
DN2@$normal       dn2 $lite $with
PatchCore@$normal patchcore $lite $with
SQUID@$normal     zhang_best precision=bf16 epochs=10 val_every=1 $with
LINES
    done
} | "$PYTHON" tools/batch.py --name contamination_cpu --script scripts/contamination_cpu.sh --default-seeds 0 \
    --axis "normal among the training images, %" "$@"
