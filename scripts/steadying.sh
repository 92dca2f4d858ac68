#!/usr/bin/env bash
# What steadies SQUID's training: the published row and one remedy at a time, on ZhangLab (30 epochs, two seeds), or with
# --quick on DigitAnatomy. Every run has averaged weights and every epoch's scores, for all rules for the checkpoint.
#   scripts/steadying.sh [options]; --help lists them
set -euo pipefail
cd "$(dirname "$0")/.."
source ./environment.sh
# last.pt is 0.75 GB here: save_seconds
on="zhang_best precision=bf16 epochs=30 record_scores=true average_decay=0.999 save_seconds=600"
quick="digit_quick precision=bf16 record_scores=true average_decay=0.99"
seeds=0,1 name=steadying
case " $* " in *" --quick "*) seeds=0,1,2 name=steadying_quick ;; esac
batch() {
    "$PYTHON" tools/batch.py --name steadying --script scripts/steadying.sh --default-seeds $seeds "$@" <<LIST
"as published"            $on | $quick
"re-estimated batch norm" $on reestimate_batch_norm=true | $quick reestimate_batch_norm=true
"cosine memories"         $on cosine_addressing=true | $quick cosine_addressing=true
"skip dropout"            $on skip_dropout=0.5 | $quick skip_dropout=0.5
R1                        $on r1_weight=10 | $quick r1_weight=10
"all four"                $on reestimate_batch_norm=true cosine_addressing=true skip_dropout=0.5 r1_weight=10 | $quick reestimate_batch_norm=true cosine_addressing=true skip_dropout=0.5 r1_weight=10
LIST
}
batch "$@"
case " $* " in *" --help "* | *" -h "* | *" --dry-run "* | *" --slurm "* | *" --only"* | *" --finished "*) exit ;; esac
finished=$(batch "$@" --finished)
[ -n "$finished" ] || exit 0 # all of it runs elsewhere
"$PYTHON" tools/rules.py --exp $finished --figure "results/${name}_epochs".{png,pdf}
where=()
for ((i = 1; i <= $#; i++)); do
    case "${!i}" in
        --data-root | --device) next=$((i + 1)) && where+=("${!i}" "${!next}") ;;
        --data-root=* | --device=*) where+=("${!i}") ;;
    esac
done
asked=$(batch "$@" --dry-run | sed -n 's/^# \(.*\): done$/\1/p')
[ -n "$asked" ] || exit 0
# of 800 images eleven interventions take minutes an experiment
for checkpoint in last averaged; do
    "$PYTHON" tools/influence.py --exp $asked --checkpoint "$checkpoint" --images 100 ${where[@]+"${where[@]}"}
done
