#!/usr/bin/env bash
# Run the style checks and the tests: ./test.sh [pytest options]
set -euo pipefail
cd "$(dirname "$0")"
TEST_PACKAGES="pytest, ruff"
source ./environment.sh
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m pytest "$@"
