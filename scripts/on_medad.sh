# What DDAD's scripts share, sourced by them: $on is the Med-AD benchmark that their first argument names, $quick what
# --quick trains on instead.
case "${1:-}" in rsna | vindr | brain | lag) on="$1" && shift ;; *)
    echo "usage: $0 rsna|vindr|brain|lag [--quick] [--seeds 0,1,2] [options]" >&2 && exit 2 ;;
esac
quick="dataset=digit digits_per_epoch=500 extra_data=500 epochs=20"
cd "$(dirname "$0")/.."
source ./environment.sh
