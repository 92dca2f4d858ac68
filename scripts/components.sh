#!/usr/bin/env bash
# SQUID's component study: the method without one of its parts each, on ZhangLab, or with --quick on DigitAnatomy.
#   scripts/components.sh [options]; --help lists them. What each part is taken for: docs/papers.md
set -euo pipefail
cd "$(dirname "$0")/.."
source ./environment.sh
on="zhang_best precision=bf16" quick="digit_quick precision=bf16 epochs=4"
"$PYTHON" tools/batch.py --name components --script scripts/components.sh "$@" <<LIST
SQUID                       $on | $quick
"no memory"                 $on bottleneck=none decoder_memory=none,none,none,none | $quick bottleneck=none decoder_memory=none,none,none
"not space-aware"           $on space_aware=false queue_slots=800 matrix_slots=800 | $quick space_aware=false queue_slots=1800 matrix_slots=1800
"a matrix for the queue"    $on bottleneck=matrix | $quick bottleneck=matrix
"no in-painting"            $on inpaint_attention=false | $quick inpaint_attention=false
"hard shrinkage"            $on gumbel_top_k=0 shrink_threshold=0.0005 | $quick gumbel_top_k=0 shrink_threshold=0.0005
"no shrinkage"              $on gumbel_top_k=200 | $quick gumbel_top_k=200
"no masked shortcut"        $on mask_ratio=1 | $quick mask_ratio=1
"no teacher"                $on teacher=false | $quick teacher=false
"no discriminator"          $on adversarial_weight=0 main_score=reconstruction | $quick adversarial_weight=0
LIST
