#!/bin/sh
# Writes the golden VMDKs in test/data/images/vmdk anew: the same on every run but for the content ids that qemu-img makes up.
# Needs qemu-img and qemu-io (qemu-utils 7.2) and the project's node_modules.
#
#   sh test/data/generate/vmdk.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
script=$here/vmdk-images.ts
out=$here/../images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/../../../node_modules/.bin/rolldown" "$script" --platform node --format esm --file "$work/run.mjs" > /dev/null
node "$work/run.mjs" "$out"
