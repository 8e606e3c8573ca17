"""The host's resolv.conf and hosts, as a container is given them: read at each start, for they change."""

from __future__ import annotations

import os

from minictr.errors import SpecError, StepFailed

__all__ = ["host_file", "resolver_text"]

HOST_FILE_MAX = 1 << 20  # bytes of a file of the host's that are read
LOOPBACK = ("::1", "0.0.0.0", "::")  # and 127.0.0.0/8
UPSTREAM = "/run/systemd/resolve/resolv.conf"  # what systemd-resolved asks itself: systemd-resolved.service(8)
KEPT = 32  # texts
UNREACHABLE = "left out: not to be reached from this network"


def host_file(path: str) -> str:
    """The text of a file of the host's; "" where it is not there."""
    try:
        with open(path, "rb", buffering=0) as file:
            text = (file.read(HOST_FILE_MAX + 1) or b"").decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as err:
        raise StepFailed(f"read {path}", err.errno or 0) from err
    if len(text) > HOST_FILE_MAX:
        raise SpecError(f"{path}: longer than {HOST_FILE_MAX} bytes: --no-hosts, or --dns, does without it")
    return text


_made: dict[tuple[object, ...], str] = {}


def resolver_text(
    servers: tuple[str, ...],
    search: tuple[str, ...],
    options: tuple[str, ...],
    *,
    loopback: bool = False,
    six: bool = True,
    path: str = "/etc/resolv.conf",
    upstream: str = UPSTREAM,
) -> str:
    """A resolv.conf by the host's PATH, with SERVERS, SEARCH and OPTIONS in the place of its own where they are given.

    Name servers at a loopback address are left out but with LOOPBACK; those with an IPv6 address but with SIX. Where
    nothing else is left, those that systemd-resolved asks; no server of somebody else's. Made once for as long as both
    files stay as they are.
    """
    key = (servers, search, options, loopback, six, _mark(path), _mark(upstream))
    if key not in _made:
        if len(_made) >= KEPT:
            _made.clear()
        _made[key] = _resolver_text(servers, search, options, loopback, six, path, upstream)
    return _made[key]


def _mark(path: str) -> tuple[object, ...]:
    """What tells whether PATH is as it was."""
    try:
        stat = os.stat(path)
    except OSError:
        return (path,)
    return path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _resolver_text(
    servers: tuple[str, ...],
    search: tuple[str, ...],
    options: tuple[str, ...],
    loopback: bool,
    six: bool,
    path: str,
    upstream: str,
) -> str:
    found = _directives(host_file(path))
    lines = []
    if not servers:
        said = found.get("nameserver", [])
        reached = [one for one in said if _reachable(one, loopback, six)]
        gone = [one for one in said if one not in reached]
        if not reached and gone:
            reached = [
                one for one in _directives(host_file(upstream)).get("nameserver", ()) if _reachable(one, loopback, six)
            ]
        lines += [f"# {', '.join(gone)} {UNREACHABLE}"] if gone else []
        servers = tuple(reached)
    lines += [f"nameserver {one}" for one in servers]
    domains = [one for one in search if one != "."] if search else found.get("search", [])
    lines += [f"search {' '.join(domains)}"] if domains else []
    words = list(options) or found.get("options", [])
    lines += [f"options {' '.join(words)}"] if words else []
    lines += [f"sortlist {' '.join(found['sortlist'])}"] if "sortlist" in found else []
    return "".join(f"{line}\n" for line in lines)


def _directives(text: str) -> dict[str, list[str]]:
    """Keyword -> its words; servers and options add up, of search and domain the last counts. resolv.conf(5)."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, *words = line.split() or ("",)
        if key in ("nameserver", "options"):
            found.setdefault(key, []).extend(words[:1] if key == "nameserver" else words)
        elif key in ("search", "domain"):
            found["search"] = words
        elif key == "sortlist":
            found[key] = words
    return found


def _reachable(server: str, loopback: bool, six: bool) -> bool:
    """Whether a container may ask SERVER. One with a zone ("fe80::1%eth0") means a device of the host's."""
    if loopback:
        return True
    here = server in LOOPBACK or server.startswith("127.")
    return not here and "%" not in server and (six or ":" not in server)
