"""The files of a container that has a name: its root, its layers, its id map, taken from its instance.

The verbs ``cp``, ``diff`` and ``commit`` reach containers through :func:`find` alone, so that tests can put another in
its place.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from minictr.errors import MinictrError, SpecError
from minictr.runtime.copying import IdMap, live_root, stopped_root
from minictr.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL_IDS = ((0, 0, 0xFFFFFFFF),)  # the map of the initial user namespace: every id is itself


def find(word: str) -> Any:
    """The :class:`minictr.runtime.instance.Instance` called WORD."""
    from minictr.runtime.instance import find as found

    return found(word)


class Layers(Value):
    """What a container's root is made of. ``upper``: the layer that takes writes, "" where none is kept. ``lowers``:
    the root file system and what lies below it, topmost first. ``overlay``: whether writes go to a layer at all."""

    upper: str
    work: str
    lowers: tuple[str, ...]
    overlay: bool


def layers(instance: Any) -> Layers:
    """Of INSTANCE, whose state is read. Raises SpecError for one without a root of its own."""
    state = instance.state
    spec = state.spec
    if not spec.rootfs:
        raise SpecError(f"{instance.label}: it has no root of its own, it runs in the host's")
    overlay: Any = spec.get("overlay")
    if overlay is None:
        return Layers("", "", (spec.rootfs,), False)
    upper = state.upper or overlay.upper
    return Layers(upper, overlay.work_path, (spec.rootfs, *overlay.lower), True)


def id_map(instance: Any) -> IdMap:
    """The id map of INSTANCE: read from the kernel while it runs, else as it was asked for."""
    userns: Any = instance.state.spec.get("userns")
    if userns is None:
        return IdMap()
    if instance.pid:
        from minictr.kernel.users import read_map

        found = IdMap(*(read_map(instance.pid, kind=kind) for kind in ("uid", "gid")))
        return IdMap() if found.uid == ALL_IDS else found
    if userns.join:
        raise SpecError(
            f"{instance.label}: its user namespace is another one's, whose ids are not known: start it first"
        )
    own = IdMap(((0, os.geteuid(), 1),), ((0, os.getegid(), 1),))
    return IdMap(userns.uid_map, userns.gid_map) if userns.uid_map else own


@contextlib.contextmanager
def root(instance: Any) -> Iterator[int]:
    """A descriptor of the root of INSTANCE, running or not; of one that does not, nobody starts it meanwhile."""
    pid = instance.pid
    if pid:
        fd = live_root(pid)
        try:
            if not instance.process.alive:  # another process may have got its pid before it was opened
                raise MinictrError(f"{instance.label}: it ended just now: try again")
            yield fd
        finally:
            os.close(fd)
        return
    found = layers(instance)
    with instance.record() as record, record.editing():
        if instance.pid:
            raise MinictrError(f"{instance.label}: it was started just now: try again")
        thrown_away = found.overlay and not found.upper
        fd = stopped_root(found.lowers[0], found.upper, found.lowers[1:], work=found.work, readonly=thrown_away)
        try:
            yield fd
        finally:
            os.close(fd)
