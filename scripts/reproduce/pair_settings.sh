# shellcheck shell=sh disable=SC2034
# How the pair of pretrain_pair.sh and the students of distill.sh are trained; read by both. Each may be set: a preset
# or .toml file, steps, rows of a step, their input length, learning rate and the steps of its rise, seed, threads.
: "${PRESET:=mini}" "${STEPS:=3000}" "${BATCH:=32}" "${INPUT_LENGTH:=64}" "${LR:=0.03}" "${WARMUP:=100}"
: "${SEED:=1}" "${THREADS:=0}"
training="--threads $THREADS --input-length $INPUT_LENGTH --batch $BATCH --steps $STEPS --schedule linear
  --lr $LR --warmup $WARMUP --seed $SEED --save-every 250 --keep-last 2"
