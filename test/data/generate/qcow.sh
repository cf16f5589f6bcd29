#!/bin/sh
# Writes the golden QCOW2 and QCOW images in test/data/images anew (times of snapshots differ from run to run).
# Needs qemu-img and qemu-io (qemu-utils 7.2) and the project's node_modules.
#
#   sh test/data/generate/qcow.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
script=$here/qcow-images.ts
out=$here/../images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/../../../node_modules/.bin/rolldown" "$script" --platform node --format esm --file "$work/run.mjs" > /dev/null
node "$work/run.mjs" "$out"
