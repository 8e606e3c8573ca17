"""Which files of a root give privilege, and what is left of that in the container.

>>> report = privilege_of(mc.container("web"))
>>> for row in report.files: print(row.file.path, row.effect)
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.capabilities import ordered
from minictr.kernel.file_capabilities import Listing, PrivilegedFile, privileged_files
from minictr.kernel.users import id_inside, id_outside
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from minictr.runtime.instance import Instance

    Row = tuple[int, int, int]
    Progress = Callable[[int, str], None]

__all__ = ["Judged", "Report", "Terms", "effect", "privilege_of", "privilege_of_root"]


class Terms(Value):
    """On what terms a container's programs execute files.

    ``bounding``: None where nothing is known to be dropped. ``inheritable``: of the program. ``nosuid``: the root is
    mounted so. ``noroot``: the securebit was asked for. ``uid_map``, ``gid_map``: of its user namespace, () without.
    """

    bounding: tuple[str, ...] | None = None
    inheritable: tuple[str, ...] = ()
    no_new_privs: bool = False
    nosuid: bool = False
    noroot: bool = False
    uid_map: tuple[Row, ...] = ()
    gid_map: tuple[Row, ...] = ()


class Judged(Value):
    """A file, and what executing it does for who is not user 0, in words."""

    file: PrivilegedFile
    effect: str


class Report(Value):
    """What was found in a root. ``terms``: None for a directory that is no container's; effects are "" then."""

    files: tuple[Judged, ...]
    terms: Terms | None
    left_out: tuple[tuple[str, str], ...]
    complete: bool


def effect(file: PrivilegedFile, terms: Terms) -> str:
    """What executing FILE gives on these TERMS, as execve(2) works it out (capabilities(7), security/commoncap.c).

    File capabilities are looked at before no_new_privs is: a program that wants more than the bounding set has is not
    executed at all, whatever it would have got.
    """
    words = [_of_capabilities(file, terms)] if file.capabilities is not None or file.malformed else []
    if words and words[0].startswith("is not executed"):
        return words[0]
    words += _of_ids(file, terms) if file.setuid or file.setgid else ()
    return "; ".join(dict.fromkeys(words))


def _of_capabilities(file: PrivilegedFile, terms: Terms) -> str:
    if terms.nosuid:
        return "nothing: the root is mounted nosuid"
    has = file.capabilities
    if has is None:
        return "is not executed: EINVAL, the attribute is malformed"
    if has.rootid and has.rootid != _outside(terms.uid_map, 0):
        return f"nothing: user {has.rootid} is not root here"
    gained = {name for name in has.permitted if terms.bounding is None or name in terms.bounding}
    gained |= {name for name in has.inheritable if name in terms.inheritable}
    missing = [name for name in has.permitted if name not in gained]
    if has.effective and missing:
        return f"is not executed: EPERM, the bounding set is without {' '.join(missing)}"
    if not gained:
        return "nothing: what it names is not in the bounding set" if missing else "nothing: none is inheritable here"
    if terms.no_new_privs:
        return "nothing: no_new_privs"
    return f"gives {' '.join(ordered(gained))}" + ("" if has.effective else ", not yet effective")


def _of_ids(file: PrivilegedFile, terms: Terms) -> Iterator[str]:
    if terms.nosuid or terms.no_new_privs:
        yield "nothing: no_new_privs" if terms.no_new_privs else "nothing: the root is mounted nosuid"
        return
    uid, gid = _inside(terms.uid_map, file.uid), _inside(terms.gid_map, file.gid)
    if uid is None or gid is None:  # either makes both bits mean nothing: bprm_fill_uid() of fs/exec.c
        who = f"user {file.uid}" if uid is None else f"group {file.gid}"
        yield f"nothing: {who} is not in the user namespace"
        return
    if file.setuid:
        yield f"becomes user {uid}" + (", without capabilities: noroot" if uid == 0 and terms.noroot else "")
    if file.setgid:
        yield f"becomes group {gid}"


def _inside(rows: tuple[Row, ...], number: int) -> int | None:
    return id_inside(rows, number) if rows else number


def _outside(rows: tuple[Row, ...], number: int) -> int | None:
    return id_outside(rows, number) if rows else number


def privilege_of(instance: Instance, *, progress: Progress | None = None) -> Report:
    """Of a container, running or not. What holds is read from the kernel while it runs, else it is what was asked for.

    Raises SpecError for one without a root of its own, StepFailed.
    """
    from minictr.runtime import files

    if not instance.state.spec.rootfs:
        raise SpecError(f"{instance.label}: it has no root of its own, it runs in the host's")
    terms = _terms(instance)
    with files.root(instance) as root:
        return _report(privileged_files(root, progress=progress), terms)


def privilege_of_root(path: str, *, progress: Progress | None = None) -> Report:
    """Of a root file system's directory that is no container's. Raises StepFailed."""
    return _report(privileged_files(path, progress=progress), None)


def _report(found: Listing, terms: Terms | None) -> Report:
    rows = tuple(Judged(file, "" if terms is None else effect(file, terms)) for file in found.files)
    return Report(rows, terms, found.left_out, found.complete)


def _terms(instance: Instance) -> Terms:
    from minictr.runtime import files

    spec, maps = instance.state.spec, files.id_map(instance)
    securebits: Any = spec.get("securebits")
    fields: dict[str, Any] = {
        "noroot": securebits is not None and "noroot" in securebits.on,
        "uid_map": maps.uid,
        "gid_map": maps.gid,
    }
    if instance.pid:
        from minictr.runtime.isolation import isolation

        found = isolation(instance)
        options = str(found.mounts["/"]) if found.mounts and "/" in found.mounts else ""
        nosuid = "nosuid" in options.replace(" ", ",").split(",")
        return Terms(found.capabilities.bounding, found.capabilities.inheritable, found.no_new_privs, nosuid, **fields)
    wish: Any = spec.get("capabilities")
    if wish is not None:
        fields |= {"bounding": wish.bounding, "inheritable": wish.inheritable}
    return Terms(no_new_privs="no_new_privs" in spec.names, **fields)
