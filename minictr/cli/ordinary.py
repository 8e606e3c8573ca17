"""What an ordinary user's container has that root's need not. Read for ordinary users only."""

from __future__ import annotations

from minictr.errors import Unsupported
from minictr.features.namespaces import UserNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.spec import Spec

__all__ = ["of_ordinary_user"]

PRIVILEGED = ("mnt", "pid", "net", "ipc", "uts", "cgroupns", "timens", "chroot")
IDS = 65536  # of a user namespace that nobody described, as for --userns auto


def of_ordinary_user(spec: Spec, opts: dict[str, Any]) -> Spec:
    """SPEC with a user namespace, unless OPTS name one: without it the kernel gives nobody but root any other.

    With the ids that are delegated to him, or his own alone. As it is where it neither makes a namespace nor changes
    its root, and for who may do so."""
    if spec.names.isdisjoint(PRIVILEGED) or not opts.keys().isdisjoint(("userns", "uidmap", "gidmap")):
        return spec
    from minictr.kernel import capabilities

    if "userns" in spec.names or "SYS_ADMIN" in capabilities.get().effective:
        return spec
    from minictr.kernel.delegated import rows_of

    try:
        return spec.with_(UserNamespace(rows_of("uid", IDS), rows_of("gid", IDS)))
    except Unsupported:
        return spec.with_(UserNamespace())
