#!/usr/bin/env bash
# SQUID's hyper-parameters, one varied at a time, on ZhangLab, or with --quick on DigitAnatomy: a table and a figure.
#   scripts/hyperparameters.sh [options]; --help lists them. The default is a point of every curve, and trained once.
set -euo pipefail
cd "$(dirname "$0")/.."
source ./environment.sh
on="zhang_best precision=bf16" quick="digit_quick precision=bf16 epochs=4"
case " $* " in *" --quick "*) grids="1 2 3 6" sides="48 72" ;; *) grids="1 2 4" sides="64 128 256" ;; esac
"$PYTHON" tools/batch.py --name hyperparameters --script scripts/hyperparameters.sh "$@" <<LIST
"slots of a place@20"              $on queue_slots=20 matrix_slots=20 | $quick queue_slots=20 matrix_slots=20
"slots of a place@50"              $on queue_slots=50 matrix_slots=50 | $quick queue_slots=50 matrix_slots=50
"slots of a place@100"             $on queue_slots=100 matrix_slots=100 | $quick queue_slots=100 matrix_slots=100
"slots of a place@200"             $on queue_slots=200 matrix_slots=200 | $quick queue_slots=200 matrix_slots=200
"slots of a place@500"             $on queue_slots=500 matrix_slots=500 | $quick queue_slots=500 matrix_slots=500
"k of the shrinkage@2"             $on gumbel_top_k=2 | $quick gumbel_top_k=2
"k of the shrinkage@3"             $on gumbel_top_k=3 | $quick gumbel_top_k=3
"k of the shrinkage@5"             $on gumbel_top_k=5 | $quick gumbel_top_k=5
"k of the shrinkage@10"            $on gumbel_top_k=10 | $quick gumbel_top_k=10
"k of the shrinkage@50"            $on gumbel_top_k=50 | $quick gumbel_top_k=50
"share that reads the memory@0.5"  $on mask_ratio=0.5 | $quick mask_ratio=0.5
"share that reads the memory@0.8"  $on mask_ratio=0.8 | $quick mask_ratio=0.8
"share that reads the memory@0.95" $on mask_ratio=0.95 | $quick mask_ratio=0.95
"share that reads the memory@1"    $on mask_ratio=1 | $quick mask_ratio=1
$(for value in $grids; do echo "'patches per side@$value' $on patches_per_side=$value | $quick patches_per_side=$value"; done)
$(for value in $sides; do echo "'image side in pixels@$value' $on image_size=$value | $quick image_size=$value"; done)
LIST
