#!/bin/sh
# Pre-trains the pair of models that the other scripts of this folder tune and distil: a Switch Transformer (mini, 8
# experts) and its dense twin of equal FLOPs, on the same batches.
#
#   scripts/reproduce/pretrain_pair.sh OUT HELDOUT.jsonl[.zst|.gz] TRAIN.jsonl[.zst|.gz] ...
#
# Corpora are JSON lines with the text in "text". Makes OUT/vocab.model, train.swt, heldout.swt, switch/ and dense/; a
# run that was stopped goes on. VOCAB and what stands in scripts/reproduce/pair_settings.sh may be set. About a quarter of an
# hour a model on two cores.
set -eu
[ $# -ge 3 ] || { sed -n '5s/^#   /usage: /p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
PATH=$here/../../${BUILD:-build/release}/bin:$PATH
# shellcheck source-path=SCRIPTDIR
. "$here/pair_settings.sh"
out=$1
heldout=$2
shift 2
mkdir -p "$out"

[ -f "$out/vocab.model" ] || sw-tokenize --train-vocab "$out/vocab.model" --vocab-size "${VOCAB:-8000}" --jsonl text "$1"
[ -f "$out/train.swt" ] || sw-tokenize --vocab "$out/vocab.model" --jsonl text -o "$out/train.swt" "$@"
[ -f "$out/heldout.swt" ] || sw-tokenize --vocab "$out/vocab.model" --jsonl text -o "$out/heldout.swt" "$heldout"

# name experts
train() {
  # shellcheck disable=SC2086,SC2154
  sw-pretrain $training --preset "$PRESET" --experts "$2" --data "$out/train.swt" --run "$out/$1" \
    --eval-data "$out/heldout.swt" --eval-tokens 50000 --eval-every 250
}
train switch 8
train dense 0
sw-eval "$out/switch" --data "$out/heldout.swt" --max-tokens 1000000
sw-eval "$out/dense" --data "$out/heldout.swt" --max-tokens 1000000
