"""Settings of the host that containers need: changed, remembered before that, and put back when the last user goes."""

from __future__ import annotations

import os

from minictr.errors import StateError, StepFailed
from minictr.kernel import ops, procfs
from minictr.runtime.network.networks import own_netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.runtime.network.networks import Networks

__all__ = ["forwarding", "put_back", "route_localnet"]

ENOENT = 2


def change(networks: Networks, key: str, value: str) -> None:
    """KEY ("net/ipv4/ip_forward") is VALUE; what it was is written down first. Raises StepFailed."""
    before = procfs.read("sys", key).strip()
    if before == value:
        return
    link = f"{networks.path}/sysctls/{own_netns()}:{key.replace('/', '+')}"
    try:
        os.symlink(before, link)
    except FileExistsError:
        pass  # somebody changed it meanwhile: what was before us counts
    except OSError as err:
        raise StateError(f"write {link}: {os.strerror(err.errno or 0)}") from err
    write(key, value)


def write(key: str, value: str) -> None:
    """KEY below /proc/sys is VALUE; of the calling thread's network namespace where it has one. Raises StepFailed."""
    path = f"/proc/sys/{key}"
    cure = "needs CAP_NET_ADMIN, and a /proc/sys that can be written"
    ops.execute("write_file", about=path, cure=cure, path=path, data=value.encode(), magic=procfs.MAGIC)


def forwarding(networks: Networks, *, ipv6: bool) -> None:
    """This host passes packets on. IPv6: too; then router advertisements are taken as before (accept_ra 2, for with
    forwarding on the kernel takes none). ip-sysctl.rst. Raises StepFailed."""
    change(networks, "net/ipv4/ip_forward", "1")
    if not ipv6:
        return
    for name in os.listdir("/proc/sys/net/ipv6/conf"):
        key = f"net/ipv6/conf/{name}/accept_ra"
        try:
            if name not in ("all", "default") and procfs.read("sys", key).strip() == "1":
                change(networks, key, "2")
        except StepFailed as err:
            if err.errno != ENOENT:  # the device has just gone
                raise
    change(networks, "net/ipv6/conf/all/forwarding", "1")


def route_localnet(device: str) -> None:
    """What this host sends from 127.0.0.1 may leave by DEVICE, ours, and its answer come back: it goes with DEVICE."""
    write(f"net/ipv4/conf/{device}/route_localnet", "1")


def put_back(networks: Networks) -> None:
    """All that was changed in this network namespace is as before; what others changed meanwhile too."""
    here = f"{own_netns()}:"
    for entry in sorted(os.listdir(f"{networks.path}/sysctls"), reverse=True):
        if not entry.startswith(here):
            continue
        link = f"{networks.path}/sysctls/{entry}"
        key, before = entry.removeprefix(here).replace("+", "/"), os.readlink(link)
        try:
            write(key, before)
        except StepFailed as err:
            if err.errno != ENOENT:
                raise
            try:
                write(key, before)  # a device that is gone: believed when it is said twice
            except StepFailed as again:
                if again.errno != ENOENT:
                    raise
        os.unlink(link)
