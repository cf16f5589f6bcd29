#!/bin/sh
# Writes the golden archives in test/data/images/{ova,xva,gzip} anew: the same on every run but for the content ids that qemu-img makes
# up. Needs qemu-img (qemu-utils 7.2), GNU tar, gzip, python3 and the project's node_modules.
#
#   sh test/data/generate/ova-xva-gzip.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
script=$here/ova-xva-gzip-images.ts
out=$here/../images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/../../../node_modules/.bin/rolldown" "$script" --platform node --format esm --file "$work/run.mjs" > /dev/null
node "$work/run.mjs" "$out"
