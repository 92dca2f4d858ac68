#!/usr/bin/env bash
# DDAD-ASR's table: its three auto-encoders and every score, on one Med-AD benchmark, or with --quick on DigitAnatomy;
# and the scores' histograms, of the first seed.
#   scripts/ddad_backbones.sh rsna|vindr|brain|lag [options]; --help lists them
set -euo pipefail
source "$(dirname "$0")/on_medad.sh"
batch() {
    "$PYTHON" tools/batch.py --name "ddad_backbones_$on" --script "scripts/ddad_backbones.sh $on" "$@" <<LIST
AE    ddad_${on}_ae precision=bf16    | ddad backbone=ae precision=bf16 $quick refine_epochs=2
AE-U  ddad_${on}_aeu precision=bf16   | ddad backbone=aeu precision=bf16 $quick refine_epochs=2
MemAE ddad_${on}_memae precision=bf16 | ddad backbone=memae precision=bf16 $quick refine_epochs=2
LIST
}
batch "$@"
case " $* " in *" --help "* | *" -h "* | *" --dry-run "* | *" --slurm "* | *" --only"* | *" --finished "*) exit ;; esac
finished=$(batch "$@" --finished)
seed=${finished%%$'\n'*} && seed=${seed##*_s} name=ddad_backbones_$on
case " $* " in *" --quick "*) name+=_quick ;; esac
shown=()
for experiment in $finished; do
    line=${experiment#"${name}_"}
    [ "${experiment##*_s}" != "$seed" ] || shown+=("${line%_s*}=$experiment")
done
[ ${#shown[@]} -eq 0 ] || "$PYTHON" tools/histograms.py "${shown[@]}" --out "results/${name}_histograms".{png,pdf}
