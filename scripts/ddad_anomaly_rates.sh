#!/usr/bin/env bash
# DDAD at several rates of anomalies among the unlabeled images: a table and a figure. No refinement: as of MICCAI 2022.
#   scripts/ddad_anomaly_rates.sh rsna|vindr|brain|lag [options]; --help lists them
# The normative module does not see unlabeled images, and is trained once a seed.
set -euo pipefail
source "$(dirname "$0")/on_medad.sh"
for rate in 0 0.2 0.4 0.6 0.8 1; do
    with="anomaly_rate=$rate refine_epochs=0"
    echo "'anomaly rate@$rate' ddad_${on}_ae $with | ddad $quick $with"
done | "$PYTHON" tools/batch.py --name "ddad_anomaly_rates_$on" --script "scripts/ddad_anomaly_rates.sh $on" "$@"
