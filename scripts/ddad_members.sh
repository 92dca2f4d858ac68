#!/usr/bin/env bash
# DDAD with more and fewer networks in its ensembles (K): a table and a figure. No refinement: as of MICCAI 2022.
#   scripts/ddad_members.sh rsna|vindr|brain|lag [options]; --help lists them
set -euo pipefail
case "${1:-}" in rsna | vindr | brain | lag) on="$1" && shift ;; *)
    echo "usage: scripts/ddad_members.sh rsna|vindr|brain|lag [--quick] [--seeds 0,1,2] [options]" >&2 && exit 2 ;;
esac
cd "$(dirname "$0")/.."
source ./environment.sh
for members in 2 3 5 7; do
    with="members=$members refine_epochs=0"
    echo "'networks@$members' ddad_${on}_ae $with | ddad dataset=digit digits_per_epoch=500 extra_data=500 epochs=20 $with"
done | "$PYTHON" tools/batch.py --name "ddad_members_$on" --script "scripts/ddad_members.sh $on" "$@"
