#!/usr/bin/env bash
# SQUID's table on ZhangLab in few epochs and some of it at smaller sizes, for a CPU; one seed.
# Features are EfficientNet-Lite0's, whose weights need no download. scripts/benchmark.sh zhang is the whole.
set -euo pipefail
cd "$(dirname "$0")/.."
source ./environment.sh
on="dataset=zhang" lite="dataset=zhang backbone=efficientnet_lite0"
"$PYTHON" tools/batch.py --name zhang_cpu --script scripts/zhang_cpu.sh --default-seeds 0 "$@" <<LIST
PaDiM       padim $lite
PatchCore   patchcore $lite
DN2         dn2 $lite
GANomaly    ganomaly $on epochs=20 val_every=5
VAE         vae $on epochs=50 val_every=10
AE          ae $on epochs=50 val_every=10
AE-U        aeu $on epochs=50 val_every=10
MemAE       memae_zhang epochs=20 val_every=5
M-KD        mkd $lite epochs=10 val_every=5
FAE-SSIM    fae_ssim $lite epochs=3
AE-PL       ae_pl $lite layers=layer2 epochs=20 val_every=5
PANDA       panda $lite epochs=5
RD4AD       rd4ad $lite image_size=128 epochs=5
CutPaste    cutpaste $on image_size=96 steps_per_epoch=32 epochs=10 cosine_epochs=10
f-AnoGAN    fanogan $on image_size=32 base_channels=16 epoch_batches=100 epochs=24 encoder_epochs=6
IF          implicit_field $on epochs=20 lr_steps=5,10,15 prior_epochs=20 val_every=20
IGD         igd $lite image_size=64 base_channels=32 epochs=10 local_epochs=2 poly_epochs=10 refresh_every=1
SQUID       zhang_best precision=bf16 epochs=10 val_every=1
SimSID      simsid_zhang precision=bf16 epochs=10
LIST
