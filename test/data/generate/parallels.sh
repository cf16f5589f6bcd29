#!/bin/sh
# Writes the golden Parallels images in test/data/images/parallels anew, the same on every run.
# Needs qemu-img (qemu-utils 7.2) and the project's node_modules.
#
#   sh test/data/generate/parallels.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
script=$here/parallels-images.ts
out=$here/../images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/../../../node_modules/.bin/rolldown" "$script" --platform node --format esm --file "$work/run.mjs" > /dev/null
node "$work/run.mjs" "$out"
