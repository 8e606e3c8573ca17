"""runc and crun for the same faults: a bundle of theirs in a place of ours, how it is run, and how it is cleaned.

The bundle is the bench's (bench/lifecycle/oci.py): the same namespaces, mounts, capabilities and size of filter as
minictr's default. runc makes a group in every hierarchy, below the place's. crun 1.8 refuses a host whose v2 hierarchy
stands beside v1 ones, whatever it is told: that one is hidden from it in a mount namespace of its own, and it makes no
groups.
"""

from __future__ import annotations

import shutil

from remains import Place

from bench.lifecycle import oci
from bench.lifecycle.peers import Crun
from bench.lifecycle.shape import Shape

__all__ = ["RUNTIMES", "Other"]

RUNTIMES = ("runc", "crun")
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE")
MASKS = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
HIDE = 'umount -l {0} && exec "$@"'


class Other:
    """One of RUNTIMES in PLACE. What is below ``state`` is its state of containers."""

    def __init__(self, place: Place, name: str) -> None:
        self.place, self.name = place, name
        self.state = place.directory / "home" / name
        self.begin = [shutil.which(name) or name, "--root", str(self.state)]
        if name == "crun":
            hide = ["unshare", "-m", "--propagation", "private", "sh", "-c", HIDE.format(*Crun.UNMOUNT), "sh"]
            self.begin = [*hide, *self.begin, *Crun.GLOBAL]

    def run(self, identity: str, *argv: str) -> list[str]:
        """The command that runs ARGV as container IDENTITY."""
        bundle = self.place.directory / "cache" / self.name
        group = f"{self.place.mark}/{identity}" if self.name == "runc" else ""
        shape = Shape(CAPABILITIES, MASKS, ("/proc/sys",))
        oci.write_bundle(str(bundle), shape=shape, rootfs=str(self.place.rootfs), argv=argv, cgroups_path=group)
        return [*self.begin, "run", "--bundle", str(bundle), identity]

    def delete(self, identity: str) -> list[str]:
        """The command that cleans up after IDENTITY: all that this runtime offers for it."""
        return [*self.begin, "delete", "--force", identity]

    def left(self, patience: float) -> list[str]:
        """What is left of the containers so far, the empty directory of its state apart."""
        return [line for line in self.place.left(patience=patience) if line != f"file: {self.state}"]

    def clear(self) -> None:
        """What it left goes, so that the next try begins with nothing."""
        self.place.clear()
        shutil.rmtree(self.state, ignore_errors=True)
