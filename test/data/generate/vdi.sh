#!/bin/sh
# Writes the golden VDIs in test/data/images/vdi anew: the same on every run but for the UUIDs that qemu-img makes up.
# Needs qemu-img (qemu-utils 7.2) and the project's node_modules.
#
#   sh test/data/generate/vdi.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
script=$here/vdi-images.ts
out=$here/../images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/../../../node_modules/.bin/rolldown" "$script" --platform node --format esm --file "$work/run.mjs" > /dev/null
node "$work/run.mjs" "$out"
