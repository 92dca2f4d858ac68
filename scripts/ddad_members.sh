#!/usr/bin/env bash
# DDAD with more and fewer networks in its ensembles (K): a table and a figure. No refinement: as of MICCAI 2022.
#   scripts/ddad_members.sh rsna|vindr|brain|lag [options]; --help lists them
set -euo pipefail
source "$(dirname "$0")/on_medad.sh"
for members in 2 3 5 7; do
    with="members=$members refine_epochs=0"
    echo "'networks@$members' ddad_${on}_ae $with | ddad $quick $with"
done | "$PYTHON" tools/batch.py --name "ddad_members_$on" --script "scripts/ddad_members.sh $on" "$@"
