"""The layers of an overlay as mount options, whatever they are called and however many they are. overlayfs.rst."""

from __future__ import annotations

import os

from minictr.errors import StepFailed, Unsupported
from minictr.kernel.handles import Handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["Layers", "overlay_of_user"]

FSCONFIG_VALUE = 255  # fsconfig(2) takes strings shorter than 256 bytes
IDS = 65536  # of a user namespace that nobody described
SPECIAL = frozenset(":\\,")


class Layers(Handle):
    """Descriptors of layers, and the options that name them.

    A plain path stands for itself. One with a character that means something in the option, or one of too many, is
    named /proc/self/fd/N instead, of a descriptor that is open until ``close()``; so are all ``by_descriptor``.
    """

    def __init__(self, lower: Sequence[str], upper: str, work: str, *, by_descriptor: bool = False) -> None:
        self._fds: list[int] = []
        self._open = True
        paths = [*lower, *filter(None, (upper, work))]
        plain = not any(SPECIAL & set(path) for path in paths)
        plain = plain and len(os.fsencode(":".join(map(os.path.abspath, lower)))) <= FSCONFIG_VALUE
        plain = plain and all(len(os.fsencode(path)) <= FSCONFIG_VALUE for path in paths) and not by_descriptor
        try:
            self.lower = [os.path.abspath(path) if plain else self._name(path) for path in lower]
            self.rest = [
                f"{key}={os.path.abspath(path) if plain else self._name(path)}"
                for key, path in (("upperdir", upper), ("workdir", work))
                if path
            ]
        except BaseException:
            self.close()
            raise

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that options name."""
        return tuple(self._fds)

    def _name(self, path: str) -> str:
        try:
            self._fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as err:
            raise StepFailed(f"open layer {path}", err.errno or 0) from err
        return f"/proc/self/fd/{self._fds[-1]}"

    @property
    def joined(self) -> list[str]:
        """One ``lowerdir`` for all: what every kernel takes, up to a length."""
        return [f"lowerdir={':'.join(self.lower)}", *self.rest]

    @property
    def fits(self) -> bool:
        """Whether fsconfig(2) takes ``joined``."""
        return len(os.fsencode(":".join(self.lower))) <= FSCONFIG_VALUE

    @property
    def single(self) -> list[str]:
        """One ``lowerdir+`` for each: any number. Linux 6.5."""
        return [*(f"lowerdir+={path}" for path in self.lower), *self.rest]

    def _close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def overlay_of_user(layers: Layers, at: str, options: Sequence[str], attr: int, what: str) -> int:
    """A descriptor of the root of an overlay with OPTIONS, for an ordinary user: mounted by a child in a user namespace
    with all ids that are delegated to him, at AT in mounts of its own, which are gone when this returns.

    ATTR: MOUNT_ATTR_*. Linux 5.11 with ``userxattr``. Raises StepFailed, Unsupported.
    """
    from minictr.kernel.child import Child
    from minictr.kernel.delegated import rows_of
    from minictr.kernel.handles import shut
    from minictr.kernel.trials import CLONE_NEWUSER, NEWNS
    from minictr.kernel.users import write_gid_map, write_uid_map

    try:
        maps = ["".join(f"{a} {b} {count}\n" for a, b, count in rows_of(kind, IDS)) for kind in ("uid", "gid")]
    except Unsupported:
        maps = ["", ""]
    held, letting = os.pipe2(os.O_CLOEXEC)
    ops: list[tuple[str, dict[str, Any]]] = [
        ("fsmount", {"into": "overlay", "fstype": "overlay", "options": list(options), "attr": attr}),
        ("attach", {"tree": "overlay", "path": at, "flags": 0}),
        ("barrier", {"fd": held}),
    ]
    try:
        with Child(CLONE_NEWUSER | NEWNS, ops, [*layers.fds, held]) as child:
            write_uid_map(child.pid, maps[0])
            write_gid_map(child.pid, maps[1], "allow" if maps[1] else "deny")
            failed = child.halt()
            if failed is not None:
                raise StepFailed(f"mount {what} in a user namespace: {failed[0]}", failed[1])
            return os.open(f"/proc/{child.pid}/root{at}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:
        if isinstance(err, StepFailed):
            raise
        raise StepFailed(f"open {what}", err.errno or 0) from err
    finally:
        shut(held)
        shut(letting)
