#!/bin/sh
# Writes the golden raw images in test/data/images/raw anew, the same on every run.
# Needs split (coreutils) and the project's node_modules.
#
#   sh test/data/generate/raw.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
script=$here/raw-images.ts
out=$here/../images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/../../../node_modules/.bin/rolldown" "$script" --platform node --format esm --file "$work/run.mjs" > /dev/null
node "$work/run.mjs" "$out"
