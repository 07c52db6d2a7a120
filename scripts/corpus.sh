#!/bin/sh
# Makes the demo's text: English prose as one document a line, split into training and held-out part.
# Without --corpus it comes from two Debian packages, downloaded with apt-get but not installed:
#   sword-text-web      the World English Bible (public domain), a chapter a line
#   postgresql-doc-15   the PostgreSQL manual (PostgreSQL licence), a page a line
# Every 50th document is held out.
#
#   scripts/corpus.sh [--corpus FILE] OUT_DIR     writes OUT_DIR/train.txt and OUT_DIR/heldout.txt
#
# FILE is plain text (.gz and .zst too): documents are the lines or, where at least one line in
# twenty is blank, the paragraphs between blank lines.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
corpus=
if [ "${1:-}" = --corpus ]; then
  corpus=${2:-}
  [ $# -ge 2 ] && shift 2
fi
if [ $# -ne 1 ]; then
  echo "usage: scripts/corpus.sh [--corpus FILE] OUT_DIR" >&2
  exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)

# Downloads a package into $out and unpacks it there, once.
unpack() {
  [ -d "$out/$1" ] && return
  (
    rm -rf "$out/download" && mkdir "$out/download" && cd "$out/download"
    if ! apt-get download -q "$1" >log 2>&1; then
      # Machines without package lists have never heard of it.
      [ "$(id -u)" -ne 0 ] || apt-get update -qq >/dev/null 2>&1 || true
      apt-get download -q "$1" >log 2>&1 || {
        sed 's/^/  /' log >&2
        echo "corpus: apt-get cannot download $1 (try 'apt-get update', or give CORPUS=file)" >&2
        exit 66
      }
    fi
    dpkg-deb -x ./*.deb unpacked
    mv unpacked "$out/$1"
  )
  rm -rf "$out/download"
}

if [ -n "$corpus" ]; then
  [ -r "$corpus" ] || { echo "corpus: cannot read '$corpus'" >&2; exit 66; }
  case "$corpus" in
    *.gz) gzip -dc "$corpus" ;;
    *.zst) zstd -dc "$corpus" ;;
    *) cat "$corpus" ;;
  esac >"$out/source.txt"
  perl "$here/prose.pl" text "$out/source.txt" >"$out/documents.txt"
  rm "$out/source.txt"
else
  command -v apt-get >/dev/null 2>&1 || {
    echo "corpus: the demo's text comes from Debian packages and this system has no apt-get;" \
      "give CORPUS=file" >&2
    exit 69
  }
  unpack sword-text-web
  unpack postgresql-doc-15
  {
    perl "$here/prose.pl" sword "$out"/sword-text-web/usr/share/sword/modules/texts/ztext/*/
    perl "$here/prose.pl" html "$out"/postgresql-doc-15/usr/share/doc/postgresql-doc-15/html/
  } >"$out/documents.txt"
fi

rm -f "$out/train.txt" "$out/heldout.txt"
awk -v train="$out/train.txt" -v heldout="$out/heldout.txt" \
  '{ print > (NR % 50 == 0 ? heldout : train) }' "$out/documents.txt"
rm "$out/documents.txt"
if [ ! -s "$out/heldout.txt" ]; then
  echo "corpus: fewer than 50 documents in '$corpus'; expected prose of about 1 MB or more" >&2
  exit 65
fi
wc -lc "$out/train.txt" "$out/heldout.txt" |
  awk '$3 != "total" { sub(/.*\//, "", $3); printf "corpus: %s: %.1f MB in %d documents\n", $3, $2 / 1e6, $1 }'
