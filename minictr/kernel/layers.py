"""The layers of an overlay as mount options, whatever they are called and however many they are. overlayfs.rst."""

from __future__ import annotations

import os

from minictr.errors import StepFailed
from minictr.kernel.handles import Handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Layers"]

FSCONFIG_VALUE = 255  # fsconfig(2) takes strings shorter than 256 bytes
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
