#!/usr/bin/env bash
# DigitAnatomy side by side: test images, and what every method that gives pictures makes of them, seed 0 of
# scripts/benchmark.sh zhang --quick, which is done first as far as it is missing.
#   scripts/side_by_side.sh [--device D] [--jobs N] [--data-root DIR] [--dry-run]
set -euo pipefail
cd "$(dirname "$0")/.."
source ./environment.sh
scripts/benchmark.sh zhang --quick --seeds 0 "$@"
case " $* " in *" --help "* | *" -h "* | *" --dry-run "* | *" --slurm "* | *" --only"*) exit ;; esac
shown=()
for method in SQUID SimSID AE AE-U MemAE VAE AE-PL f-AnoGAN GANomaly IGD IF PaDiM PatchCore RD4AD M-KD FAE-SSIM; do
    shown+=("$method=benchmark_zhang_quick_${method}_s0")
done
for kind in png pdf; do "$PYTHON" tools/side_by_side.py "${shown[@]}" --out "results/side_by_side.$kind"; done
