#!/bin/sh
# Writes the golden VHDXs in test/data/images/vhdx anew: the same on every run but for the GUIDs that QEMU makes up.
# Needs qemu-img and qemu-io (qemu-utils 7.2), libvhdi (python3-libvhdi 20210425) and the project's node_modules.
#
#   sh test/data/generate/vhdx.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
script=$here/vhdx-images.ts
out=$here/../images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/../../../node_modules/.bin/rolldown" "$script" --platform node --format esm --file "$work/run.mjs" > /dev/null
node "$work/run.mjs" "$out"
