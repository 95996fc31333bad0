#!/bin/sh
# Say that the disk is too full before an installation of minutes fails on it, half done.
# room-on-disk.sh NEEDED_GIB WHAT
free_kib=$(df -Pk . | awk 'NR == 2 { print $4 }')
[ "$free_kib" -ge $(($1 * 1024 * 1024)) ] && exit 0
echo "$2 takes $1 GiB, and $PWD has $((free_kib / 1024 / 1024)) GiB free: make room, or clone trtq to a larger disk" >&2
exit 1
