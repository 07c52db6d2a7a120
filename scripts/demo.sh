#!/bin/sh
# The main job on real text, in minutes on two cores: trains a vocabulary, tokenises, pre-trains a
# `tiny` Switch Transformer and its dense twin of equal FLOPs on the same batches, evaluates both on
# held-out text and shows what the router does. Where scripts/demo.expected states the losses to
# expect, the last lines say whether they were met.
#
#   scripts/demo.sh [--corpus FILE]      everything it makes lies under build/demo
set -eu

cd "$(dirname "$0")/.."
bin=${BUILD:-build/release}/bin
out=build/demo
corpus=
case "${1:-}" in
  '') ;;
  --corpus) corpus=${2:?demo: --corpus needs a file} ;;
  *) echo "demo: unknown argument '$1'; usage: scripts/demo.sh [--corpus FILE]" >&2; exit 2 ;;
esac

# The run. Both models see the same batches: the data order depends on the seed and the data alone.
# Experts in every layer, large batches of short rows (each expert needs some hundred tokens a step),
# and T5's initialisation: the small one of large models only slows so short a run.
vocab_size=4000
training="--preset tiny --expert-every 1 --init-scale 1 --data $out/train.swt
  --eval-data $out/heldout.swt --eval-tokens 20000 --input-length 32 --batch 128 --steps 700
  --schedule linear --lr 0.04 --warmup 20 --eval-every 25 --save-every 0 --seed 1"

started=$(date +%s)
mkdir -p "$out"
: >"$out/commands.txt"
rm -rf "$out/dense" "$out/switch"

# Prints a command, notes it for the summary and runs it.
run() {
  echo "$*" >>"$out/commands.txt"
  printf '\n$ %s\n' "$*" >&2
  "$@"
}

PATH="$PWD/$bin:$PATH"
if [ -n "$corpus" ]; then
  run scripts/corpus.sh --corpus "$corpus" "$out"
else
  run scripts/corpus.sh "$out"
fi
run sw-tokenize --train-vocab "$out/vocab.model" --vocab-size $vocab_size "$out/train.txt"
run sw-tokenize --vocab "$out/vocab.model" -o "$out/train.swt" "$out/train.txt"
run sw-tokenize --vocab "$out/vocab.model" -o "$out/heldout.swt" "$out/heldout.txt"
# shellcheck disable=SC2086  # options are words by intent
run sw-pretrain $training --run "$out/dense" --experts 0
# shellcheck disable=SC2086
run sw-pretrain $training --run "$out/switch"
for model in dense switch; do
  run sw-eval "$out/$model" --data "$out/heldout.swt" --json >"$out/$model.json"
  cat "$out/$model.json"
done
run sw-inspect-router "$out/switch" --data "$out/heldout.swt"
run sw-inspect-router "$out/switch" --data "$out/heldout.swt" --html "$out/router.html"

printf '\nThe commands above:\n'
sed 's/^/  /' "$out/commands.txt"
echo
expected=
if [ -z "$corpus" ] && [ -f scripts/demo.expected ]; then
  expected=scripts/demo.expected
fi
perl scripts/demo_report.pl "$out" $expected && met=0 || met=$?
echo "time without set-up and build: $(($(date +%s) - started)) s"
exit $met
