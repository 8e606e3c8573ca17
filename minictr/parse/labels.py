"""Labels of security modules, as docker and podman write them after ``--security-opt``."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import shown
from minictr.features.lsm import FIELDS, AppArmor, SELinux, checked_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["apparmor", "selinux"]

FILETYPE = "filetype"  # podman's word for the type of mounts
WORDS = (*FIELDS, FILETYPE)
KNOWN = f"{', '.join(f'{word}:VALUE' for word in WORDS)}, disable and USER:ROLE:TYPE[:LEVEL] are known"


def apparmor(text: str) -> AppArmor | None:
    """The text after ``apparmor=``; None for ``unconfined``: docker's word for asking for nothing."""
    return None if text == "unconfined" else AppArmor(text)


def selinux(texts: Sequence[str], present: SELinux | None, known: Mapping[str, str]) -> SELinux | None:
    """The texts after ``label=``, one after another; None for ``disable``.

    A whole context, or parts that replace those of PRESENT, or of the host's KNOWN contexts ("process", "file").
    """
    if "disable" in texts:
        if set(texts) != {"disable"}:
            raise SpecError("label=disable goes with no other label=")
        return None
    context, parts = "", dict[str, str]()
    for text in texts:
        word, colon, value = text.partition(":")
        if word in WORDS and colon:
            if not value:
                raise SpecError(f"label={text}: empty")
            parts[word] = value
        elif text.count(":") >= 2:
            context = checked_context(text, "label")
        else:
            raise SpecError(f"label={shown(text)}: {KNOWN}")
    context = context or (present.context if present is not None else known.get("process", ""))
    found = {**dict(zip(FIELDS, context.split(":", 3))), **parts}
    missing = [word for word in FIELDS[:3] if not found.get(word)]
    if missing:
        cure = f"add {', '.join(f'label={word}:...' for word in missing)}, or give it whole"
        raise SpecError(f"label: this host has no context for containers that the rest could be taken from: {cure}")
    return SELinux(joined(found), mount_context(found, present, known))


def joined(fields: Mapping[str, str]) -> str:
    """``user:role:type[:level]``."""
    return ":".join(fields[word] for word in FIELDS if word in fields)


def mount_context(process: Mapping[str, str], present: SELinux | None, known: Mapping[str, str]) -> str:
    """The context of mounts, on the level of the PROCESS; "" where nothing says what type they should be."""
    base = known.get("file", "") if present is None else present.mount
    fields = dict(zip(FIELDS, base.split(":", 3))) if base else {}
    if FILETYPE in process:
        fields = {"user": process["user"], "role": "object_r", **fields, "type": process[FILETYPE]}
    if fields and "level" in process:
        fields["level"] = process["level"]
    return joined(fields)
