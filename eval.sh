#!/usr/bin/env bash
# Evaluate the default experiment, or any: ./eval.sh [EXP [eval.py options]]
set -euo pipefail
cd "$(dirname "$0")"
source ./environment.sh
exp=${1:-digit_quick}
shift $(($# < 1 ? $# : 1))
"$PYTHON" eval.py --exp "$exp" "$@"
