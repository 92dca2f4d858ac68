#!/usr/bin/env bash
# DDAD at several rates of anomalies among the unlabeled images: a table and a figure. No refinement: as of MICCAI 2022.
#   scripts/ddad_anomaly_rates.sh rsna|vindr|brain|lag [options]; --help lists them
# The normative module does not see unlabeled images, and is trained once a seed. There are as many unlabeled images at
# every rate: as published on RSNA, elsewhere as the smaller of the pools of normal and anomalous ones has.
set -euo pipefail
source "$(dirname "$0")/on_medad.sh"
case $on in rsna) unlabeled=4000 ;; vindr) unlabeled=3394 ;; brain) unlabeled=400 ;; lag) unlabeled=832 ;; esac
for rate in 0 0.2 0.4 0.6 0.8 1; do
    with="anomaly_rate=$rate refine_epochs=0"
    echo "'anomaly rate@$rate' ddad_${on}_ae $with extra_data=$unlabeled | ddad $quick $with"
done | "$PYTHON" tools/batch.py --name "ddad_anomaly_rates_$on" --script "scripts/ddad_anomaly_rates.sh $on" "$@"
