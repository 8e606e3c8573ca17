#!/bin/sh
# `make demo`: builds ./demo-root from this machine's own files, without network, and looks at a container from inside.
#
#     scripts/demo.sh [--remove]      --remove only removes the ./demo-root of an earlier run
set -eu

root=demo-root
mark=$root/.made-by-make-demo # written last: a root without it is somebody's own, and is not touched

if [ -e "$mark" ]; then
    rm -rf --one-file-system "$root"
elif [ -e "$root" ] && [ "${1-}" != --remove ]; then
    echo "demo: ./$root is there and was not made by an earlier run: move it away first" >&2
    exit 1
fi
[ "${1-}" != --remove ] || exit 0

echo "== minictr rootfs minimal ./$root bash @coreutils @procps capsh findmnt grep sed"
minictr rootfs minimal "./$root" bash @coreutils @procps capsh findmnt grep sed
: >"$mark"

echo "== minictr run --rootfs ./$root --hostname demo --trace -- bash -c '...'"
exec minictr run --rootfs "./$root" --hostname demo --trace -- bash -c '
printf "\n-- host name:   %s\n" "$(uname -n)"
printf -- "-- this shell:  pid %s, user %s\n" "$$" "$(id -un)"
printf -- "-- pid 1:       %s\n" "$(cat /proc/1/comm)"
printf "\n-- every process here\n"
ps -e -o pid,ppid,user,comm
printf "\n-- every mount here\n"
findmnt --list -o TARGET,FSTYPE,OPTIONS
printf "\n-- capabilities\n"
capsh --decode="$(sed -n "s/^CapEff:[[:space:]]*//p" /proc/self/status)"
grep -E "^(NoNewPrivs|Seccomp):" /proc/self/status
printf "\n-- the time line of this start\n"
'
