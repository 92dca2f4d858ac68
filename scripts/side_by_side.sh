#!/usr/bin/env bash
# DigitAnatomy side by side: test images, and what every method that gives pictures makes of them, seed 0 (or the first
# of --seeds) of scripts/benchmark.sh zhang --quick, which is done first as far as it is missing.
#   scripts/side_by_side.sh [options]; --help lists them
set -euo pipefail
cd "$(dirname "$0")/.."
source ./environment.sh
batch() { scripts/benchmark.sh zhang --quick --default-seeds 0 "$@"; }
batch "$@"
case " $* " in *" --help "* | *" -h "* | *" --dry-run "* | *" --slurm "* | *" --only"* | *" --finished "*) exit ;; esac
finished=$(batch "$@" --finished)
seed=$(batch "$@" --dry-run | sed -n '1s/.*_s\([0-9]*\): .*/\1/p') shown=()
for method in SQUID SimSID AE AE-U MemAE VAE AE-PL f-AnoGAN GANomaly IGD IF PaDiM PatchCore RD4AD M-KD FAE-SSIM; do
    experiment=benchmark_zhang_quick_${method}_s$seed
    if grep -qx "$experiment" <<<"$finished"; then shown+=("$method=$experiment"); fi
done
[ ${#shown[@]} -eq 0 ] || "$PYTHON" tools/side_by_side.py "${shown[@]}" --out results/side_by_side.{png,pdf}
