"""The files of a container: its root, its layers, its id map, whether it runs or not; and standing still meanwhile."""

from __future__ import annotations

import contextlib
import os
from typing import IO, TYPE_CHECKING, Any

from minictr.errors import MinictrError, SpecError
from minictr.kernel.handles import shut
from minictr.runtime.copying import IdMap, live_root, stopped_root
from minictr.runtime.layerdiff import USER_MARKS
from minictr.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minictr.runtime.copying import Copied
    from minictr.runtime.instance import Instance

__all__ = ["Layers", "commit", "frozen", "id_map", "kept_layer", "layers", "root"]

ALL_IDS = ((0, 0, 0xFFFFFFFF),)  # the map of the initial user namespace: every id is itself


class Layers(Value):
    """What a container's root is made of. ``upper``: the layer that takes writes, "" where none is kept. ``lowers``:
    the root file system and what lies below it, topmost first. ``overlay``: whether writes go to a layer at all.
    ``prefix``: of the attributes that the kernel keeps in it, "" for what this process would mount it with."""

    upper: str
    work: str
    lowers: tuple[str, ...]
    overlay: bool
    prefix: str = ""


def layers(instance: Instance) -> Layers:
    """Of INSTANCE, whose state is read. Raises SpecError for one without a root of its own."""
    state = instance.state
    spec = state.spec
    if not spec.rootfs:
        raise SpecError(f"{instance.label}: it has no root of its own, it runs in the host's")
    overlay: Any = spec.get("overlay")
    if overlay is None:
        return Layers("", "", (spec.rootfs,), False)
    upper = state.upper or overlay.upper
    prefix = USER_MARKS if "userns" in spec.names else ""
    return Layers(upper, overlay.work_path, (spec.rootfs, *overlay.lower), True, prefix)


def id_map(instance: Instance) -> IdMap:
    """The id map of INSTANCE: read from the kernel while it runs, else as it was asked for."""
    userns: Any = instance.state.spec.get("userns")
    if userns is None:
        return IdMap()
    if not instance.pid and "idmap" in instance.state.spec.names:
        return IdMap()  # on disk they are the inside ones
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
def root(instance: Instance) -> Iterator[int]:
    """A descriptor of the root of INSTANCE, running or not; of one that does not, nobody starts it meanwhile."""
    pid = instance.pid
    if pid:
        fd = live_root(pid)
        try:
            if not instance.process.alive:  # another process may have got its pid before it was opened
                raise MinictrError(f"{instance.label}: it ended just now: try again")
            yield fd
        finally:
            shut(fd)
        return
    found = layers(instance)
    with instance.record() as record, record.editing():
        if instance.pid:
            raise MinictrError(f"{instance.label}: it was started just now: try again")
        thrown_away = found.overlay and not found.upper
        options = ("userxattr",) if found.prefix else ()
        fd = stopped_root(
            found.lowers[0], found.upper, found.lowers[1:], work=found.work, readonly=thrown_away, options=options
        )
        try:
            yield fd
        finally:
            shut(fd)


def kept_layer(instance: Instance) -> Layers:
    """Its layers, if one of them is kept. SpecError otherwise, with the cure."""
    found = layers(instance)
    if not found.overlay:
        raise SpecError(
            f"{instance.label}: it has no layer, it writes to {found.lowers[0]} itself: run with --upper DIR"
        )
    if not found.upper:
        raise SpecError(f"{instance.label}: its layer is thrown away and has no path: run with --upper DIR to keep it")
    return found


@contextlib.contextmanager
def frozen(instance: Instance) -> Iterator[None]:
    """INSTANCE stands still meanwhile, if it runs and is not paused already."""
    if instance.status != "running":
        yield
        return
    try:
        instance.pause()
    except SpecError as err:
        raise SpecError(f"{err}: commit with --no-pause") from err
    try:
        yield
    finally:
        instance.unpause()


@contextlib.contextmanager
def live(instance: Instance) -> Iterator[int]:
    """The root of INSTANCE, whose layer no path leads to: it has to run for it."""
    if not instance.pid:
        raise SpecError(f"{instance.label}: its layer was thrown away with its end: run with --upper DIR to keep it")
    with root(instance) as fd:
        yield fd


def commit(
    instance: Instance, destination: str | IO[bytes], *, whole: bool, pause: bool, progress: Any = None
) -> Copied:
    """Keep the layer of INSTANCE, or with WHOLE all that it sees, as DESTINATION: see :mod:`minictr.runtime.commit`.

    ``pause``: it is frozen meanwhile. Raises SpecError where there is no layer that is kept, StepFailed.
    """
    from minictr.runtime.commit import commit_layer

    found = layers(instance) if whole else kept_layer(instance)
    options: dict[str, Any] = {"lowers": found.lowers, "whole": whole, "prefix": found.prefix}
    seen_live = whole and found.overlay and not found.upper
    mapped_on_disk = "idmap" not in instance.state.spec.names or seen_live
    options["id_map"] = id_map(instance) if mapped_on_disk else IdMap()
    with contextlib.ExitStack() as stack:
        if pause:
            stack.enter_context(frozen(instance))
        if seen_live:
            options["merged"] = stack.enter_context(live(instance))
        upper = found.upper if os.path.isdir(found.upper) else ""  # not there before its first start
        return commit_layer(upper, destination, progress=progress, **options)
