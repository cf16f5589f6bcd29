#!/bin/sh
# Writes the golden images of ext2/3/4 in test/data/ext: small, the same on every run but for
# change times, needing e2fsprogs (1.47), attr and root.
#
#   sh test/data/generate/ext.sh
#
# What is in them is written down in test/unit/ext/golden.ts, from which the tests know it. Features that mke2fs -d can't make
# (a casefold directory, a directory that is its own descendant) are made with debugfs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$here/../ext
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
export E2FSPROGS_FAKE_TIME=1700000000 LC_ALL=C.UTF-8 TZ=UTC
uuid=11111111-2222-3333-4444-555555555555
seed=01234567-89ab-cdef-0123-456789abcdef

# The tree.
t=$work/tree
mkdir -p "$t/etc" "$t/srv/www" "$t/many" "$t/empty" "$t/a/b"
printf 'web01\n' > "$t/etc/hostname"
seq 1 2000 > "$t/srv/www/numbers"
printf 'x' > "$t/srv/www/$(printf '%0255d' 0)"
printf 'names' > "$t/srv/SLASHNAME"
printf 'names' > "$t/srv/DOTNAME"
# Holes before and between. (None at the end: mke2fs 1.47.0 loses that one with inline_data.)
printf 'middle' | dd of="$t/srv/sparse" bs=1 seek=50000 conv=notrunc status=none
printf 'end' | dd of="$t/srv/sparse" bs=1 seek=99997 conv=notrunc status=none
ln -s ../etc/hostname "$t/srv/link"
ln -s "$(printf '%0100d' 0)" "$t/srv/slow-link"
ln -s /srv/www "$t/www"
ln -s loop-b "$t/loop-a"
ln -s loop-a "$t/loop-b"
ln "$t/etc/hostname" "$t/etc/hostname-again"
printf 'latin' > "$t/$(printf 'caf\351')"
printf '0123456789%.0s' 1 2 3 4 5 6 7 8 9 10 > "$t/inline-100"
i=0
while [ $i -lt 200 ]; do : > "$t/many/file number $i"; i=$((i + 1)); done
setfattr -n user.comment -v 'golden' "$t/etc/hostname"
chown -R -h 1000:100 "$t"
chmod 640 "$t/etc/hostname"
chmod 4755 "$t/inline-100"
find "$t" -exec touch -h -d '2023-11-14 22:13:20.5 UTC' {} +

image() { # name size options...
  name=$1 size=$2
  shift 2
  rm -f "$work/$name"
  truncate -s "$size" "$work/$name"
  mke2fs -q -F -U "$uuid" -L golden -E "hash_seed=$seed,root_owner=0:0${extended:-}" -d "$t" "$@" "$work/$name"
}
edit() { # image commands on standard input
  debugfs -w -f - "$work/$1" > "$work/debugfs.log" 2>&1 || { cat "$work/debugfs.log"; exit 1; }
}
pack() {
  gzip -9 -n -c "$work/$1" > "$out/$1.gz"
}

image ext2-1k.img 1M -t ext2 -b 1024 -N 512
image ext3-4k.img 10M -t ext3 -b 4096 -J size=4 -N 512
image ext4-1k.img 2M -t ext4 -b 1024 -O ^has_journal -N 512
image ext4-inline.img 2M -t ext4 -b 1024 -O inline_data,^has_journal -N 512
# Twice as large as one group, for the copy of the superblock.
image ext4-two-groups.img 12M -t ext4 -b 1024 -O ^has_journal -N 1024

# Indexed directories: e2fsck -D builds the trees that mke2fs does not.
e2fsck -fyD "$work/ext4-1k.img" > /dev/null 2>&1 || [ $? -le 1 ]
e2fsck -fyD "$work/ext2-1k.img" > /dev/null 2>&1 || [ $? -le 1 ]

extended=,encoding=utf8 image ext4-casefold.img 1M -t ext4 -b 1024 -O casefold,^has_journal -N 512
printf 'set_inode_field /etc flags 0x40080000\n' | edit ext4-casefold.img

# A directory that is its own descendant, devices, and an inode flagged as encrypted by fscrypt.
cp "$work/ext4-1k.img" "$work/ext4-odd.img"
edit ext4-odd.img <<'END'
link /a /a/b/again
cd /empty
mknod null c 1 3
mknod disk b 259 60000
mknod pipe p
write /dev/null secret
set_inode_field secret flags 0x80800
END

for name in ext2-1k ext3-4k ext4-1k ext4-inline ext4-two-groups ext4-casefold ext4-odd; do pack $name.img; done
ls -l "$out"
