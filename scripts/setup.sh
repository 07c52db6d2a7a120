#!/bin/sh
# Installs what building, testing and the demo need and this machine lacks: Debian packages, nothing
# else. Without anything missing it touches neither the network nor the system. The CUDA toolkit and
# NCCL are never installed; the build uses them where it finds them (SW_CUDA=AUTO).
#
#   scripts/setup.sh [--dry-run]      DRY=1 in the environment is --dry-run
set -eu

packages="
  build-essential perl cmake ninja-build ccache pkg-config clang-format
  libdnnl-dev libhwy-dev
  libhdf5-dev hdf5-tools
  libopenmpi-dev openmpi-bin
  libsentencepiece-dev sentencepiece
  libzstd-dev zstd zlib1g-dev libxxhash-dev
  libcxxopts-dev libtomlplusplus-dev nlohmann-json3-dev libfmt-dev libspdlog-dev
  libgtest-dev libgmock-dev libbenchmark-dev
  clang-14 libclang-rt-14-dev libomp-14-dev
"

dry=${DRY:-0}
case "${1:-}" in
  --dry-run) dry=1 ;;
  '') ;;
  *) echo "setup: unknown argument '$1'; usage: scripts/setup.sh [--dry-run]" >&2; exit 2 ;;
esac

# shellcheck disable=SC2086  # the list is words by intent
set -- $packages
if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
  {
    echo "setup: this is no Debian system (no apt-get), so nothing was installed."
    echo "setup: the build needs what these Debian 12 packages hold; install them your system's way,"
    echo "setup: then run 'make':"
    echo "setup:   $*"
  } >&2
  exit 69
fi

installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^[hi]i *//p')
missing=
for package; do
  printf '%s\n' "$installed" | grep -qxF "$package" || missing="$missing $package"
done
if [ -z "$missing" ]; then
  echo "setup: all $# packages are there"
  exit 0
fi

as_root=
if [ "$(id -u)" -ne 0 ]; then
  as_root=sudo
fi
install="env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends$missing"
if [ "$dry" != 0 ]; then
  echo "setup: missing:$missing"
  echo "setup: would run:"
  echo "  ${as_root:+$as_root }apt-get update"
  echo "  ${as_root:+$as_root }$install"
  exit 0
fi
if [ -n "$as_root" ] && ! command -v sudo >/dev/null 2>&1; then
  echo "setup: missing:$missing" >&2
  echo "setup: installing needs root or sudo; have an administrator run: apt-get install$missing" >&2
  exit 69
fi
echo "setup: installing$missing"
$as_root apt-get update -qq
# shellcheck disable=SC2086
$as_root $install
echo "setup: done"
