"""state.json as a value: what a container is, as far as it is written down.

What changes by itself (does it run, is it frozen, how did it end) is not in here: it is looked at when asked for
(runtime/instance.py), so that a state can be old but not wrong.
"""

from __future__ import annotations

from minictr.errors import MinictrError, StateError
from minictr.features.plain import feature_from, plain_feature
from minictr.jsontext import dumps
from minictr.runtime.identity import ProcessIdentity
from minictr.runtime.record import SCHEMA, Record
from minictr.spec import Spec
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["NOBODY", "WIDEST", "Brief", "Group", "State", "spec_text"]

NIC_FIELDS = 7
NOBODY = ProcessIdentity(0, 0, "")
WIDEST = ProcessIdentity(1 << 22, 1 << 63, "0" * 36)  # as long a text as any: PID_MAX_LIMIT, linux/threads.h


class Group(Value):
    """A cgroup of a container: ``controller`` ("memory"), ``version`` of its hierarchy, ``directory``."""

    controller: str
    version: int
    directory: str


class State(Value):
    """A container as written down.

    ``created``, ``started``: nanoseconds since 1970, 0 when not yet. ``held``: set up, and waiting for ``start``.
    ``detached``: has a monitor; otherwise it ends with the process that started it. ``remove``: goes with its end.
    ``process``, ``monitor``: who they are. ``stop_signal``: what ``stop`` sends; ``stop_timeout``: seconds until it
    kills. ``nics``: rows of network, device inside, IPv4 and IPv6 address with prefixes ("" for none), gateway, MAC
    address, the host's end. ``ports``: rows of protocol, address ("" for all), port here, port there. ``log``: bytes of
    a log file, number of files. ``command_line``: the words that made it, for unit files;
    ``directory``: where they were said.
    """

    id: str
    spec: Spec
    created: int
    started: int = 0
    held: bool = False
    detached: bool = False
    remove: bool = False
    tty: bool = False
    interactive: bool = False
    stop_signal: int = 15
    stop_timeout: float = 10.0
    process: ProcessIdentity = NOBODY
    monitor: ProcessIdentity = NOBODY
    groups: tuple[Group, ...] = ()
    nics: tuple[tuple[str, ...], ...] = ()
    ports: tuple[tuple[str, str, int, int], ...] = ()
    log: tuple[int, int] = (0, 0)
    command_line: tuple[str, ...] = ()
    directory: str = ""
    upper: str = ""

    @property
    def name(self) -> str:
        return self.spec.name

    def text(self, spec: str = "") -> str:
        """As JSON. SPEC: the spec's part, if it was made before."""
        parts = [f'"schema": {SCHEMA}']
        for field in self._fields:
            if field != "spec":
                parts.append(f'"{field}": {dumps(_plain(getattr(self, field)))}')
        parts.append(f'"spec": {spec or spec_text(self.spec)}')
        return "{" + ", ".join(parts) + "}\n"

    @classmethod
    def of(cls, record: Record) -> State:
        """What RECORD says. Raises StateError naming the file for anything that is not a state of ours."""
        data, path = _loaded(record)
        fields = {name: value for name, value in data.items() if name != "schema"}
        try:
            fields["spec"] = _spec(fields["spec"])
            for name in ("process", "monitor"):
                fields[name] = ProcessIdentity(*_typed(fields[name], (int, int, str)))
            fields["groups"] = _groups(fields["groups"])
            fields["nics"] = tuple(_typed(row, (str,) * NIC_FIELDS) for row in _list(fields.get("nics", [])))
            fields["ports"] = tuple(_typed(row, (str, str, int, int)) for row in _list(fields.get("ports", [])))
            fields["log"] = _typed(fields["log"], (int, int))
            fields["command_line"] = tuple(map(_str, _list(fields["command_line"])))
            state = cls(**fields)
            for name, default in cls._defaults.items():
                if type(default) in (bool, int, str) and type(getattr(state, name)) is not type(default):
                    raise ValueError(f"{name} is {getattr(state, name)!r}")
            if type(state.created) is not int or type(state.stop_timeout) not in (int, float):
                raise ValueError("created and stop_timeout are numbers")
        except (KeyError, TypeError, ValueError, MinictrError) as err:
            raise _wrong(path, err) from err
        return state


class Brief(Value):
    """As much of a state as tells who a container is and whether it runs: a fifth of the work, for the spec's features
    are not made. The fields are those of :class:`State`."""

    name: str
    created: int
    held: bool
    process: ProcessIdentity
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, record: Record) -> Brief:
        """What RECORD says. Raises StateError naming the file."""
        data, path = _loaded(record)
        try:
            if type(data["held"]) is not bool or type(data["created"]) is not int:
                raise ValueError("held is true or false, created a number")
            process = ProcessIdentity(*_typed(data["process"], (int, int, str)))
            return cls(_str(data["spec"]["name"]), data["created"], data["held"], process, _groups(data["groups"]))
        except (KeyError, TypeError, ValueError) as err:
            raise _wrong(path, err) from err


def _loaded(record: Record) -> tuple[dict[str, Any], str]:
    """What RECORD says as plain data, and the path of the file."""
    data, path = record.load(), f"{record.directory}/state.json"
    if not data:
        raise StateError(f"{path}: not there: the container was never made to its end")
    return data, path


def _wrong(path: str, err: Exception) -> StateError:
    said = f"{err} is missing" if isinstance(err, KeyError) else str(err)
    return StateError(f"{path}: is not as minictr writes it: {said}")


def spec_text(spec: Spec) -> str:
    """SPEC as JSON."""
    return dumps(
        {
            "argv": spec.argv,
            "rootfs": spec.rootfs,
            "name": spec.name,
            "environ": spec.environ,
            "features": [plain_feature(feature) for feature in spec.features],
        }
    )


def _spec(data: Any) -> Spec:
    if not isinstance(data, dict):
        raise ValueError("spec is not an object")
    features = tuple(map(feature_from, _list(data["features"])))
    argv, environ = (tuple(map(_str, _list(data[name]))) for name in ("argv", "environ"))
    return Spec(argv, features, _str(data["rootfs"]), _str(data["name"]), environ)


def _plain(value: Any) -> Any:
    if isinstance(value, Value):
        return [getattr(value, name) for name in value._fields]
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _groups(value: Any) -> tuple[Group, ...]:
    return tuple(Group(*_typed(row, (str, int, str))) for row in _list(value))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{str(value)[:40]!r} is not a list")
    return value


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:40]!r} is not a string")
    return value


def _typed(value: Any, kinds: tuple[type, ...]) -> Any:
    row = _list(value)
    if tuple(map(type, row)) != kinds:
        raise ValueError(f"{str(row)[:60]} is not {', '.join(kind.__name__ for kind in kinds)}")
    return tuple(row)
