#!/bin/sh
# Installs the build into a prefix, moves that prefix, and uses it from there as a stranger would:
# runs the tools, reads man pages and completions, and builds the program consumer.cpp against the
# library by CMake and by pkg-config.
#
#   tests/install/relocate.sh BUILD_DIR CXX TOOL...
set -eu

build=$1 cxx=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "relocate: $*" >&2; exit 1; }

cmake --install "$build" --prefix "$work/first" >"$work/install.log" ||
  { cat "$work/install.log"; fail "cmake --install failed"; }
mv "$work/first" "$work/moved"
prefix=$work/moved
unset LD_LIBRARY_PATH
# Text files are searched for the old prefix; the library and the tools by their dynamic section.
! grep -rIl "$work/first" "$prefix" || fail "the files above name the folder they were installed to"
build_path=$(cd "$build" && pwd)
for binary in "$prefix"/bin/* "$prefix"/lib/libswitch.so; do
  ! readelf -d "$binary" | grep -E 'RPATH|RUNPATH' | grep -F "$build_path" ||
    fail "$binary looks for libraries in the build folder"
done

for name; do
  "$prefix/bin/$name" --version >"$work/version" || fail "$name --version failed after the move"
  grep -q . "$work/version" || fail "$name --version printed nothing"
  for page in share/man/man1/$name.1 share/bash-completion/completions/$name \
    share/zsh/site-functions/_$name share/fish/vendor_completions.d/$name.fish; do
    [ -s "$prefix/$page" ] || fail "$page was not installed"
  done
  bash -n "$prefix/share/bash-completion/completions/$name" || fail "completion of $name is no bash"
done

for page in swt switch-checkpoint switch-teacher-logits; do
  [ -s "$prefix/share/man/man5/$page.5" ] || fail "$page(5) was not installed"
done
# Shells that are there take their completions, and presets are found from where they are now.
if command -v zsh >/dev/null; then
  zsh -n "$prefix/share/zsh/site-functions/_sw-pretrain" || fail "zsh refuses its completion"
fi
if command -v fish >/dev/null; then
  fish -c "source $prefix/share/fish/vendor_completions.d/sw-pretrain.fish
    complete -C'sw-pretrain --preset ti'" | grep -q '^tiny' || fail "fish does not complete presets"
fi
bash -c "source $prefix/share/bash-completion/completions/sw-pretrain
  COMP_WORDS=(sw-pretrain --preset ti) COMP_CWORD=2; _sw_pretrain; printf '%s\\n' \"\${COMPREPLY[@]}\"" |
  grep -qx tiny || fail "bash does not complete presets"
"$prefix/bin/sw-pretrain" --preset tiny --print-config | grep -q '^d_model = 128' ||
  fail "the preset tiny is not found after the move"

mkdir "$work/consumer"
cp "$here/consumer.cpp" "$work/consumer/"
cp "$here/consumer.cmake" "$work/consumer/CMakeLists.txt"
cmake -S "$work/consumer" -B "$work/consumer/build" -DCMAKE_PREFIX_PATH="$prefix" \
  -DCMAKE_CXX_COMPILER="$cxx" >"$work/log" 2>&1 &&
  cmake --build "$work/consumer/build" >>"$work/log" 2>&1 ||
  { cat "$work/log"; fail "the consumer does not build by CMake"; }
"$work/consumer/build/consumer" || fail "the consumer built by CMake does not run"

pc=$(find "$prefix" -name switch-transformers.pc)
[ -n "$pc" ] || fail "switch-transformers.pc was not installed"
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
# shellcheck disable=SC2046  # flags are words by intent
"$cxx" $(pkg-config --cflags switch-transformers) "$work/consumer/consumer.cpp" -o "$work/by_pc" \
  $(pkg-config --libs switch-transformers) || fail "the consumer does not build by pkg-config"
LD_LIBRARY_PATH=$(pkg-config --variable=libdir switch-transformers) "$work/by_pc" ||
  fail "the consumer built by pkg-config does not run"
echo "relocate: tools and consumers work from the moved prefix"
