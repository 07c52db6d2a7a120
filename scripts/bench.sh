#!/bin/sh
# The benchmarks of this machine: whole training steps by sw-bench, hot kernels by the programs of
# tests/bench. One JSON file each under BUILD_DIR/bench; a summary on stdout.
#
#   scripts/bench.sh [BUILD_DIR]      default build/release
set -eu

build=${1:-build/release}
out=$build/bench
mkdir -p "$out"

# step NAME OPTION...: one run of sw-bench; the result is complete or absent.
step() {
  name=$1
  shift
  echo "bench: sw-bench $*" >&2
  "$build/bin/sw-bench" "$@" --json >"$out/$name.json.tmp"
  mv "$out/$name.json.tmp" "$out/$name.json"
}

if [ -x "$build/bin/sw-bench" ]; then
  for dtype in fp32 bf16; do
    step "mini-$dtype" --preset mini --batch 8 --input-length 256 --target-length 64 --dtype $dtype
    step "switch-base-8-cut-$dtype" --preset switch-base-8-cut --batch 8 --input-length 512 \
      --target-length 114 --dtype $dtype
  done
fi
for program in "$build"/tests/*_bench; do
  [ -x "$program" ] || continue
  name=$(basename "$program")
  echo "bench: $name" >&2
  "$program" --benchmark_out="$out/$name.json" --benchmark_out_format=json
done

echo "results under $out:"
for file in "$out"/*.json; do
  [ -e "$file" ] && echo "  $file"
done
