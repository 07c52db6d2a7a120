#!/bin/sh
# Makes the pictures of README.md from a demo that has run (make demo): what the terminal shows as SVG,
# and, where Chromium is installed, the HTML report as PNG.
#
#   scripts/pictures.sh      writes into data/pictures
set -eu

cd "$(dirname "$0")/.."
PATH="$PWD/${BUILD:-build/release}/bin:$PATH"
demo=build/demo
out=data/pictures
[ -e "$demo/switch/latest" ] || { echo "pictures: $demo/switch has no checkpoint; run make demo first" >&2; exit 66; }

# shown FILE COMMAND...: a terminal's screen
shown() {
  file=$out/$1
  shift
  { "$@" --color always; } | scripts/ansi_svg "$*" >"$file"
}
shown router.svg sw-inspect-router $demo/switch --data $demo/heldout.swt
shown over-time.svg sw-inspect-router $demo/switch --over-time

browser=$(command -v chromium || command -v google-chrome || true)
if [ -z "$browser" ]; then
  echo "pictures: no Chromium; $out/report.png stays as it is" >&2
  exit 0
fi
page=$(mktemp --suffix .html)
trap 'rm -f "$page"' EXIT
sw-inspect-router -q $demo/switch --data $demo/heldout.swt --html "$page"
# As root, Chromium starts without its sandbox only.
"$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1180,900 \
  --screenshot="$PWD/$out/report.png" "file://$page" 2>/dev/null
