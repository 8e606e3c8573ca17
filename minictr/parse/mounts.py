"""``--volume``, ``--mount``, ``--tmpfs``."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import number, shown, size, word
from minictr.features.mounts import BIND_PROPAGATIONS, TMPFS_WORDS, Bind, Tmpfs
from minictr.features.rootfs import Overlay
from minictr.parse.numbers import mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def volume(text: str) -> Bind:
    """``SOURCE:TARGET[:OPTION,...]``. A colon or backslash in a path is written with a backslash before it."""
    parts = _unescaped(text)
    if len(parts) not in (2, 3):
        raise SpecError(f"volume: {shown(text)} is not SOURCE:TARGET[:OPTIONS]")
    source, target = parts[:2]
    if not source:
        raise SpecError(f"volume: {shown(text)} has no source: SOURCE:TARGET[:OPTIONS] is wanted")
    settings: dict[str, Any] = {}
    for option in parts[2].split(",") if len(parts) == 3 else ():
        _bind_option(settings, option, "volume")
    return Bind(source, target, **settings)


def _unescaped(text: str) -> list[str]:
    """TEXT split at colons; a backslash takes the next colon or backslash as a letter."""
    parts, escaped = [""], False
    for letter in text:
        if escaped:
            parts[-1] += letter if letter in ":\\" else "\\" + letter
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter == ":":
            parts.append("")
        else:
            parts[-1] += letter
    if escaped:
        parts[-1] += "\\"
    return parts


BIND_SWITCHES = ("idmap", "nosuid", "nodev", "noexec", "dev")


def _bind_option(settings: dict[str, Any], option: str, what: str) -> None:
    """One word after the second colon."""
    if option in ("ro", "rro", "rw"):
        _once(settings, "readonly", "" if option == "rw" else option, what, option)
    elif option in BIND_PROPAGATIONS or option in ("shared", "rshared"):
        _once(settings, "propagation", option, what, option)
    elif option in BIND_SWITCHES:
        _once(settings, option, True, what, option)
    elif option in ("bind", "rbind"):
        _once(settings, "recursive", option == "rbind", what, option)
    elif option in ("z", "Z"):
        raise SpecError(f"{what}: option {option} relabels for SELinux, which is not built yet")
    else:
        known = ", ".join(("ro", "rro", "rw", *BIND_SWITCHES, "bind", "rbind", *BIND_PROPAGATIONS))
        raise SpecError(f"{what}: option {shown(option)} is not one of {known}")


def _once(settings: dict[str, Any], field: str, value: Any, what: str, option: str) -> None:
    if field in settings:
        raise SpecError(f"{what}: {shown(option)} says {field} a second time")
    settings[field] = value


def tmpfs(text: str) -> Tmpfs:
    """``TARGET[:OPTION,...]``: size=64m, mode=1777, nr_inodes=N, uid=N, gid=N, ro, exec, suid, dev, noatime, ..."""
    target, colon, rest = text.partition(":")
    settings: dict[str, Any] = {}
    for option in rest.split(",") if colon else ():
        key, equals, value = option.partition("=")
        if not _tmpfs_setting(settings, key, value, equals, "tmpfs"):
            settings["options"] = (*settings.get("options", ()), option)
    return Tmpfs(target, **settings)


def _tmpfs_setting(settings: dict[str, Any], key: str, value: str, equals: str, what: str) -> bool:
    """Whether KEY is one of size, mode, nr_inodes, now in SETTINGS."""
    if key == "size" and equals:
        _once(settings, "size", size(value, f"{what} size"), what, key)
    elif key == "mode" and equals:
        _once(settings, "mode", mode(value, f"{what} mode"), what, key)
    elif key == "nr_inodes" and equals:
        _once(settings, "inodes", number(value, f"{what} nr_inodes", 0, 1 << 31), what, key)
    else:
        return False
    return True


# What people write -> the one word for it.
MOUNT_KEYS = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
MOUNT_KEYS |= {"tmpfs-size": "size", "tmpfs-mode": "mode", "upperdir": "upper", "workdir": "work", "lowerdir": "lower"}


def mount(text: str) -> Bind | Tmpfs | Overlay:
    """``type=bind,source=S,target=T[,readonly]``, ``type=tmpfs,target=T[,size=64m]``, ``type=overlay[,upper=U]``.

    A list with commas as in a CSV file: a part with a comma in it is put in double quotes as a whole.
    """
    fields: dict[str, str] = {}
    lowers: list[str] = []
    for part in _csv(text):
        key, equals, value = part.partition("=")
        key = MOUNT_KEYS.get(key, key)
        if key == "lower" and equals:
            lowers.append(value)
        elif key in fields:
            raise SpecError(f"mount: {shown(part)} says {key} a second time")
        else:
            fields[key] = value if equals else "true"
    kind = fields.pop("type", "")
    if kind not in MOUNT_MAKERS:
        what = f"type {shown(kind)} is not" if kind else "type= is missing: it is"
        raise SpecError(f"mount: {what} one of bind, tmpfs, overlay")
    if lowers and kind != "overlay":
        raise SpecError(f"mount: lower is of type=overlay, not of type={kind}")
    made = MOUNT_MAKERS[kind](fields, lowers)
    if fields:
        raise SpecError(f"mount: {shown(next(iter(fields)))} is not an option of type={kind}")
    return made


def _csv(text: str) -> list[str]:
    """RFC 4180, one record: a field that begins with a double quote ends with one, and "" is one inside."""
    parts, rest = [], word(text, "mount", limit=1 << 16)
    while True:
        if rest.startswith('"'):
            end = rest.replace('""', "\0\0").find('"', 1)
            if rest.startswith('""') or end < 0 or rest[end + 1 : end + 2] not in ("", ","):
                raise SpecError(f"mount: {shown(text)} has a double quote that does not end its part")
            part, rest = rest[1:end].replace('""', '"'), rest[end + 1 :]
            more, rest = rest.startswith(","), rest[1:]
        else:
            part, comma, rest = rest.partition(",")
            more = bool(comma)
        if not part:
            raise SpecError(f"mount: {shown(text)} has an empty part between its commas")
        parts.append(part)
        if not more:
            return parts


def _truth(fields: dict[str, str], key: str) -> bool | None:
    """A switch of ``--mount``: alone, or with true, false, 1, 0."""
    value = fields.pop(key, None)
    if value is None:
        return None
    if value not in ("true", "false", "1", "0"):
        raise SpecError(f"mount: {key}={shown(value)} is not true or false")
    return value in ("true", "1")


def _target(fields: dict[str, str], kind: str) -> str:
    target = fields.pop("target", "")
    if not target:
        raise SpecError(f"mount: type={kind} has no target: target=DIR is wanted")
    return target


def _mount_bind(fields: dict[str, str], _lowers: list[str]) -> Bind:
    source, target = fields.pop("source", ""), _target(fields, "bind")
    if not source:
        raise SpecError("mount: type=bind has no source: source=PATH is wanted")
    settings: dict[str, Any] = {name: bool(_truth(fields, name)) for name in BIND_SWITCHES}
    deep, this = _truth(fields, "rro"), _truth(fields, "readonly")
    if deep and this is False:
        raise SpecError("mount: rro and readonly=false are both said: keep one")
    settings["readonly"] = "rro" if deep else "ro" if this else ""
    settings["propagation"] = fields.pop("bind-propagation", "")
    recursion = fields.pop("bind-recursive", "enabled")
    if recursion not in ("enabled", "disabled", "readonly", "writable"):
        raise SpecError(f"mount: bind-recursive={shown(recursion)} is not one of enabled, disabled, readonly, writable")
    if recursion == "readonly" and not settings["readonly"]:
        raise SpecError("mount: bind-recursive=readonly is of a read-only bind: add readonly")
    settings["recursive"] = recursion != "disabled" and not _truth(fields, "bind-nonrecursive")
    if recursion == "readonly":
        settings["readonly"] = "rro"
    return Bind(source, target, **settings)


def _mount_tmpfs(fields: dict[str, str], _lowers: list[str]) -> Tmpfs:
    target = _target(fields, "tmpfs")
    settings: dict[str, Any] = {}
    options: list[str] = ["ro"] if _truth(fields, "readonly") else []
    for key in tuple(fields):
        value = fields[key]
        if _tmpfs_setting(settings, key, value, "=", "mount"):
            del fields[key]
        elif key in ("uid", "gid"):
            options.append(f"{key}={fields.pop(key)}")
        elif key in TMPFS_WORDS and _truth(fields, key):
            options.append(key)
    return Tmpfs(target, options=tuple(options), **settings)


def _mount_overlay(fields: dict[str, str], lowers: list[str]) -> Overlay:
    if fields.pop("target", "/") != "/":
        raise SpecError("mount: type=overlay lies over the root file system: leave target out")
    settings: dict[str, Any] = {name: fields.pop(name) for name in ("upper", "work") if name in fields}
    if "size" in fields:
        settings["size"] = size(fields.pop("size"), "mount size")
    return Overlay(tuple(lowers), **settings)


MOUNT_MAKERS: dict[str, Callable[[dict[str, str], list[str]], Bind | Tmpfs | Overlay]] = {
    "bind": _mount_bind,
    "tmpfs": _mount_tmpfs,
    "overlay": _mount_overlay,
}
