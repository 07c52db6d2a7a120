#!/bin/sh
# Does a Switch Transformer learn faster than its dense twin of equal FLOPs, step for step? Dense against 8 experts with
# three seeds each, and 2, 4 and 16 experts with one; models of one seed see the same batches.
#
#   scripts/reproduce/learning.sh OUT HELDOUT.jsonl[.zst|.gz] TRAIN.jsonl[.zst|.gz] ...
#
# Corpora are JSON lines with the text in "text". Everything lies in OUT; a run that was stopped goes on. STEPS, VOCAB,
# HELD_TOKENS and MODEL (a preset or a .toml file) may be set; THREADS is the number of threads of a run.
set -eu
[ $# -ge 3 ] || { sed -n '5s/^#   /usage: /p' "$0" >&2; exit 2; }
here=$(dirname "$0")
PATH=$(cd "$here/../.." && pwd)/${BUILD:-build/release}/bin:$PATH
model=${MODEL:-$here/learning.toml}
steps=${STEPS:-3000}
out=$1
heldout=$2
shift 2
mkdir -p "$out"

[ -f "$out/vocab.model" ] || sw-tokenize --train-vocab "$out/vocab.model" --vocab-size "${VOCAB:-4000}" --jsonl text "$1"
[ -f "$out/train.swt" ] || sw-tokenize --vocab "$out/vocab.model" --jsonl text -o "$out/train.swt" "$@"
[ -f "$out/heldout.swt" ] || sw-tokenize --vocab "$out/vocab.model" --jsonl text -o "$out/heldout.swt" "$heldout"

# name seed experts
train() {
  echo "$1: $3 experts, seed $2" >&2
  sw-pretrain --quiet --threads "${THREADS:-0}" --preset "$model" --experts "$3" --seed "$2" --data "$out/train.swt" \
    --eval-data "$out/heldout.swt" --eval-tokens "${HELD_TOKENS:-40000}" --eval-every $((steps / 24)) \
    --input-length 32 --batch 128 --schedule linear --lr 0.03 --warmup 100 --steps "$steps" --save-every 0 \
    --run "$out/$1"
}
for seed in 1 2 3; do
  train "dense-seed$seed" $seed 0
  train "switch8-seed$seed" $seed 8
done
for experts in 2 4 16; do
  train "switch$experts-seed1" 1 $experts
done
perl "$here/learning_table.pl" "$out" | tee "$out/table.md"
