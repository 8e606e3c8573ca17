#!/bin/sh
# Installs the Debian packages minictr needs, and says nothing when they are all there.
#
#     scripts/bootstrap.sh [run|test|matrix|bench|report]...    default: run
#     scripts/bootstrap.sh --python               prints the first python3 in PATH that will do (3.11 or later)
#
# apt is not called when nothing is missing; its lists are fetched only when it knows no such package.
set -eu

build='gcc libc6-dev libcap-dev make python3-dev python3-venv'
use='iproute2 libcap2-bin libseccomp2 mmdebstrap ncurses-base ncurses-bin nftables passt procps uidmap util-linux'
check='bzip2 clang-format fuse-overlayfs fuse3 mount strace tmux xz-utils zstd'
cross='gcc-aarch64-linux-gnu libc6-dev-arm64-cross'
guest='apparmor kmod secilc user-mode-linux' # tests/guests; Debian has it for x86 only
cloud='busybox-static cpio e2fsprogs qemu-system-x86' # tests/guests as well; virtiofsd is a package since Debian 13
machine='e2fsprogs kmod qemu-system-x86 zstd' # the bench's virtual machine: its disks, modules and itself
peers='bubblewrap crun lxc runc'
daemons='docker.io podman systemd-container'
client='bzip2 openssh-client openssl socat wget xz-utils zstd' # the far end of the bench's workloads, and the check of results
draw='chromium fonts-dejavu-core' # the report's pictures, and the tests that look at it

say() { printf 'bootstrap: %s\n' "$*" >&2; }

find_python() {
    IFS=:
    for directory in $PATH; do
        for name in python3 python3.14 python3.13 python3.12 python3.11; do
            [ -x "$directory/$name" ] || continue
            "$directory/$name" -I -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
            printf '%s\n' "$directory/$name"
            return 0
        done
    done
    say 'no python3 of version 3.11 or later with the venv module in PATH; install one (Debian 12 and later: python3-venv)'
    return 1
}

wanted() {
    for set in "$@"; do
        case $set in
            run) echo "$build $use" ;;
            test)
                echo "$build $use $check $peers $client"
                case $(uname -m) in x86_64) echo "$cross $guest" ;; esac
                ;;
            matrix)
                echo "$build $use $check $peers $client"
                case $(uname -m) in x86_64) echo "$cross $guest $cloud $(apt-cache show virtiofsd >/dev/null 2>&1 && echo virtiofsd)" ;; esac
                ;;
            bench)
                echo "$build $use $peers $daemons $client $draw"
                case $(uname -m) in x86_64) echo "$machine" ;; esac
                ;;
            report) echo "$build $use $peers docker.io" ;;
            *)
                say "no such set: $set (run, test, matrix, bench, report)"
                return 2
                ;;
        esac
    done
}

missing() {
    # A package dpkg has never heard of is answered on stderr only, so ask which are installed and take the rest.
    there=" $(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' | tr '\n' ' ')"
    for package in "$@"; do
        case $there in *" $package "*) ;; *) printf '%s ' "$package" ;; esac
    done
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

if [ "${1-}" = --python ]; then
    find_python
    exit
fi

packages=$(wanted "${@:-run}")
if ! command -v dpkg-query >/dev/null; then
    say "not a Debian system; taken on trust: $(echo $packages)"
    exit 0
fi
need=$(missing $packages)
[ -n "$need" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    say "missing: $need"
    say "as root: apt-get install -y --no-install-recommends $need"
    exit 1
fi
say "installing $need"
apt_install $need || { say 'fetching the package lists'; apt-get update -q; apt_install $need; }
