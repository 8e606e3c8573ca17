"""All containers at a glance: what ``ps`` shows, read without making features and plans of it.

A whole :class:`~minictr.runtime.state.State` takes 230 us to read, for it checks every feature; a glance takes 50. One
that cannot be read is shown as ``damaged``, with the reason, and hides no other.
"""

from __future__ import annotations

import os

from minictr.errors import StateError, StepFailed
from minictr.runtime.identity import ProcessIdentity
from minictr.runtime.looks import frozen
from minictr.runtime.record import Record
from minictr.runtime.store import Store
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["DAMAGED", "Glance", "glance", "glances"]

DAMAGED = "damaged"
NS_MAX = 1 << 63  # nanoseconds since 1970: the year 2262
WANTED = {"created": int, "started": int, "held": bool, "detached": bool, "remove": bool}


class Glance(Value):
    """One container as ``ps`` shows it.

    ``status``: as :attr:`Instance.status`, or ``damaged``, and then ``error`` says why and the rest is empty.
    ``created``, ``started``, ``finished``: nanoseconds since 1970, 0 for not yet. ``exit_code``: as a shell tells it;
    None while it runs or when nobody knows. ``ports``: as
    :attr:`State.ports` has them, of one that runs. ``pid``: of its first process, 0 when it does not run.
    """

    id: str
    status: str
    name: str = ""
    rootfs: str = ""
    argv: tuple[str, ...] = ()
    created: int = 0
    started: int = 0
    finished: int = 0
    exit_code: int | None = None
    pid: int = 0
    detached: bool = False
    error: str = ""
    ports: tuple[tuple[str, str, int, int], ...] = ()


def glances(store: Store) -> list[Glance]:
    """Every container of STORE, oldest first; the damaged ones, whose age nobody knows, before all others."""
    found = []
    for identity in store.ids():
        look = glance(store, identity)
        if look is not None:
            found.append(look)
    return sorted(found, key=lambda look: (look.created, look.id))


def glance(store: Store, identity: str) -> Glance | None:
    """One container; None when it is gone, or is only being made."""
    try:
        with Record.at(store, identity) as record:
            data = record.load()
            return _glance(record, data) if data else None  # without: its start is under way, or was never finished
    except (StateError, StepFailed) as err:
        error = str(err)
    except (KeyError, TypeError, ValueError) as err:
        said = f"{err} is missing" if isinstance(err, KeyError) else str(err)
        error = f"{store.containers}/{identity}/state.json: is not as minictr writes it: {said}"
    if not os.path.isdir(os.path.join(store.containers, identity)):
        return None  # removed this moment
    return Glance(identity, DAMAGED, next(iter(store.names_of(identity)), ""), error=error)


def _glance(record: Record, data: dict[str, Any]) -> Glance:
    spec = data["spec"]
    argv, rootfs, name = spec["argv"], spec["rootfs"], spec["name"]
    texts = (rootfs, name, *argv) if type(argv) is list and argv else (None,)
    if not all(type(text) is str for text in texts):
        raise ValueError("the spec's command, root and name are not strings")
    for key, kind in WANTED.items():
        if type(data[key]) is not kind or not 0 <= data[key] < NS_MAX:
            raise ValueError(f"{key} is {str(data[key])[:40]}")
    process = data["process"]
    if type(process) is not list or [type(item) for item in process] != [int, int, str]:
        raise ValueError(f"process is {str(process)[:40]}")
    alive = ProcessIdentity(*process).alive
    ended, code = None, None
    if alive:
        status = "created" if data["held"] else "paused" if frozen(data["groups"]) else "running"
    else:
        ended = record.exit_record()
        code = None if ended is None else ended.exit_code
        status = "dead" if code is None else "exited"
    return Glance(
        record.id,
        status,
        name,
        rootfs,
        tuple(argv),
        data["created"],
        data["started"],
        0 if ended is None else ended.finished,
        code,
        process[0] if alive else 0,
        data["detached"],
        ports=_ports(data.get("ports", [])) if alive else (),
    )


def _ports(rows: Any) -> tuple[tuple[str, str, int, int], ...]:
    found = tuple(map(tuple, rows))
    for row in found:
        if [type(item) for item in row] != [str, str, int, int]:
            raise ValueError(f"ports are {str(row)[:40]}")
    return found
