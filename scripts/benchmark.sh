#!/usr/bin/env bash
# The benchmark tables of SQUID and SimSID, of the Med-AD datasets of DDAD, and of DigitAnatomy: every method on one
# dataset, over seeds. Where SQUID or SimSID have no published settings of a dataset, ZhangLab's are taken.
#   scripts/benchmark.sh zhang|chexpert|covidx|rsna|vindr|brain|lag|digit [options]; --help lists them
set -euo pipefail
on="dataset=${1:-}" squid="zhang_best $on" simsid="simsid_zhang $on" ae="ae $on" aeu="aeu $on" memae="memae $on"
vae="vae $on" ae_pl="ae_pl $on" ddad=""
case "${1:-}" in
    zhang) squid=zhang_best simsid=simsid_zhang memae=memae_zhang ;;
    chexpert) squid=chexpert_best simsid=simsid_chexpert memae=memae_chexpert ;;
    covidx) simsid=simsid_covidx ;;
    digit) squid=digit_best ;;
    rsna | vindr | brain | lag) # which have unlabeled images
        ae=ae_$1 aeu=aeu_$1 memae=memae_$1
        ddad="DDAD ddad_$1_ae | dataset=digit digits_per_epoch=500 extra_data=500 epochs=20 refine_epochs=2"
        if [ "$1" = brain ]; then vae+=" epochs=600" ae_pl+=" epochs=600"; fi # as published
        ;;
    *)
        echo "usage: $0 zhang|chexpert|covidx|rsna|vindr|brain|lag|digit [--quick] [--seeds 0,1,2] [options]" >&2
        exit 2
        ;;
esac
name="benchmark_$1" script="scripts/benchmark.sh $1"
shift
cd "$(dirname "$0")/.."
source ./environment.sh
lite="dataset=digit backbone=efficientnet_lite0" # the features that need no download
"$PYTHON" tools/batch.py --name "$name" --script "$script" "$@" <<LIST
SQUID       $squid                 | digit_quick
SimSID      $simsid                | dataset=digit image_size=64 base_channels=16 learning_rate=2e-4 recon_weight=10 main_score=reconstruction epochs=6 cosine_epochs=6
AE          $ae                    | dataset=digit epochs=30
AE-U        $aeu                   | dataset=digit epochs=30
MemAE       $memae                 | memae dataset=digit epochs=30
VAE         $vae                   | dataset=digit epochs=30
AE-PL       $ae_pl                 | $lite layers=layer2 epochs=10
FAE-SSIM    fae_ssim $on           | $lite image_size=96 layers=layer1,layer2 channels=32,48,64 epochs=3
f-AnoGAN    fanogan $on            | dataset=digit image_size=32 base_channels=16 epoch_batches=100 epochs=6 encoder_epochs=2
GANomaly    ganomaly $on           | dataset=digit base_channels=32 epochs=12
IGD         igd $on                | $lite image_size=64 base_channels=16 epochs=4 local_epochs=1 poly_epochs=4 refresh_every=1
IF          implicit_field $on     | dataset=digit image_size=48 width=128 code_size=64 frequencies=6 points=256 digits_per_epoch=300 epochs=40 prior_epochs=40 lr_steps=10,20,30 fit_iterations=50 fit_points=256
CutPaste    cutpaste $on           | dataset=digit image_size=48 steps_per_epoch=40 epochs=4 cosine_epochs=4
M-KD        mkd $on                | $lite image_size=64 epochs=4
DN2         dn2 $on                | $lite image_size=96
PANDA       panda $on              | $lite image_size=96 epochs=2 layers=layer2,layer4
PaDiM       padim $on              | $lite image_size=96
PatchCore   patchcore $on          | $lite image_size=96
RD4AD       rd4ad $on              | $lite image_size=96 epochs=2
$ddad
LIST
