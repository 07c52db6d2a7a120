#!/bin/sh
# The rows of Fedus et al. 2022, table 6, for the pair of scripts/reproduce/pretrain_pair.sh: how much of what a sparse
# teacher gains over a dense model of equal FLOPs a dense student keeps, and sparse and pruned students beside it.
#
#   scripts/reproduce/distill.sh OUT
#
# Students train as long as the dense model did and on the same batches: what was set for pretrain_pair.sh (see
# scripts/reproduce/pair_settings.sh) has to be set here too. Runs lie in OUT/students; one that was stopped goes on. Prints
# a Markdown table; figures are negative log perplexity on the whole of OUT/heldout.swt.
set -eu
[ $# -eq 1 ] || { sed -n '5s/^#   /usage: /p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
PATH=$here/../../${BUILD:-build/release}/bin:$PATH
# shellcheck source-path=SCRIPTDIR
. "$here/pair_settings.sh"
out=$1
mkdir -p "$out/students"

# name options...
student() {
  name=$1
  shift
  # shellcheck disable=SC2086,SC2154
  sw-distill $training --teacher "$out/switch" --data "$out/train.swt" --run "$out/students/$name" \
    --quiet "$@" >/dev/null
}
student distilled --init fresh --soft-weight 1
student distilled-init --soft-weight 1
student distilled-init-mix --soft-weight 0.25
student init --soft-weight 0
student sparse2 --keep-experts 2
student pruned2 --keep-experts 2 --steps 0
student pruned4 --keep-experts 4 --steps 0

# checkpoint: value and parameters
figures() {
  sw-eval "$1" --data "$out/heldout.swt" --json | perl -MJSON::PP -0777 -ne '
    printf "%.6f", decode_json($_)->{results}[0]{neg_log_perplexity}'
}
dense=$(figures "$out/dense")
teacher=$(figures "$out/switch")
echo '| model | neg. log perplexity | share of the gain kept |'
echo '|---|---:|---:|'
row() {
  awk -v name="$1" -v value="$2" -v dense="$dense" -v teacher="$teacher" 'BEGIN {
    kept = teacher > dense ? sprintf("%.0f %%", 100 * (value - dense) / (teacher - dense)) : "no gain to keep"
    printf "| %s | %.4f | %s |\n", name, value, kept }'
}
row 'dense, from labels' "$dense"
row 'Switch, 8 experts: the teacher' "$teacher"
for name in distilled distilled-init distilled-init-mix init sparse2 pruned2 pruned4; do
  row "$name" "$(figures "$out/students/$name")"
done
