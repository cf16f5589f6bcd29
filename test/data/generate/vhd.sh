#!/bin/sh
# Writes the golden VHDs in test/data/images/vhd anew: the same on every run but for the UUIDs and times that qemu-img makes up.
# Needs qemu-img (qemu-utils 7.2), 7z (p7zip-full) and the project's node_modules.
#
#   sh test/data/generate/vhd.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
script=$here/vhd-images.ts
out=$here/../images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/../../../node_modules/.bin/rolldown" "$script" --platform node --format esm --file "$work/run.mjs" > /dev/null
node "$work/run.mjs" "$out"
