#!/usr/bin/env bash
# Train and evaluate the default experiment, or any: ./run.sh [EXP CONFIG [main.py options]]
set -euo pipefail
cd "$(dirname "$0")"
case " $* " in
*" --try "* | *" --seeds"*)
    echo "error: run.sh evaluates EXP, which --try and --seeds do not train: take main.py, then eval.py." >&2
    exit 1
    ;;
esac
source ./environment.sh
exp=${1:-digit_quick}
config=${2:-digit_quick}
shift $(($# < 2 ? $# : 2))
"$PYTHON" main.py --exp "$exp" --config "$config" "$@"
"$PYTHON" eval.py --exp "$exp"
