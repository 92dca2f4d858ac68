#!/usr/bin/env bash
# SQUID and SimSID on ZhangLab in their published length, in bfloat16 and float32, with averaged weights and every
# epoch's scores, for all rules for the checkpoint; or with --quick on DigitAnatomy. A table and a figure.
#   scripts/full_length.sh [options]; --help lists them. On one GPU --jobs 3 trains three at a time.
set -euo pipefail
trap 'exit 143' TERM # after the trainings have saved: without it nobody waits for them
cd "$(dirname "$0")/.."
source ./environment.sh
# last.pt is 0.75 GB here; a machine that is lent by minutes wants it often
on="record_scores=true average_decay=0.999 save_seconds=100"
simsid="simsid dataset=digit image_size=64 base_channels=16 learning_rate=2e-4 recon_weight=10 main_score=reconstruction epochs=4 cosine_epochs=4 record_scores=true average_decay=0.99"
squid="digit_quick record_scores=true average_decay=0.99"
name=full_length
case " $* " in *" --quick "*) name=full_length_quick ;; esac
batch() {
    "$PYTHON" tools/batch.py --name full_length --script scripts/full_length.sh "$@" <<LIST
SQUID          zhang_best precision=bf16 $on   | $squid precision=bf16
SimSID         simsid_zhang precision=bf16 $on | $simsid precision=bf16
SQUID-float32  zhang_best $on                  | $squid
SimSID-float32 simsid_zhang $on                | $simsid
LIST
}
batch "$@"
case " $* " in *" --help "* | *" -h "* | *" --dry-run "* | *" --slurm "* | *" --only"* | *" --finished "*) exit ;; esac
finished=$(batch "$@" --finished)
[ -n "$finished" ] || exit 0 # all of it runs elsewhere
"$PYTHON" tools/rules.py --exp $finished --figure "results/${name}_epochs".{png,pdf}
