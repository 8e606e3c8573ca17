"""Options of Landlock -> the feature. Read only where there are any."""

from __future__ import annotations

import os

import minictr.parse.landlock as parse
from minictr.cli.given import said
from minictr.features.landlock import Landlock
from minictr.rights import ACCESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.spec import Spec

    Options = dict[str, Any]

NAMES = "--ro, --rw, --landlock-*"


def landlock(spec: Spec, opts: Options) -> Spec:
    """SPEC with what OPTS deny and allow on top of what its profile does."""
    present = spec.get("landlock")
    fields: dict[str, Any] = _paths(spec, opts)
    for field, dest in (("bind", "landlock_bind"), ("connect", "landlock_connect")):
        if dest in opts:
            found = {port for text in opts[dest] for port in said(f"--landlock-{field}", parse.port, text)}
            fields[field] = tuple(sorted(found))
    scopes = tuple(said("--landlock-scope", parse.scope, text) for text in opts.get("landlock_scope", ()))
    if isinstance(present, Landlock):
        scopes += present.scopes
    fields["scopes"] = scopes
    for field, dest in (("ignore_missing", "landlock_ignore_missing"), ("log", "landlock_log")):
        if opts.get(dest):
            fields[field] = True
    if isinstance(present, Landlock):
        return spec.with_(said(NAMES, present.replace, **fields))
    return spec.with_(said(NAMES, Landlock, **fields))


def _paths(spec: Spec, opts: Options) -> dict[str, Any]:
    """The fields that name paths. In the host's own root they may be relative, as everything else of a shell's is."""
    on_host = not spec.rootfs.strip("/")

    def placed(path: str) -> str:
        return os.path.abspath(path) if on_host and path else path

    fields: dict[str, Any] = {name: tuple(map(placed, opts[name])) for name in ("ro", "rw") if name in opts}
    given = [said("--landlock-access", parse.access, text) for text in opts.get("landlock_access", ())]
    if given:
        fields["access"] = tuple(name for words in given for name in words)
    denied = fields.get("access") or getattr(spec.get("landlock"), "access", None) or tuple(ACCESS)
    rules = [said("--landlock-rule", parse.rule, text) for text in opts.get("landlock_rule", ())]
    if rules:
        fields["rules"] = tuple((placed(path), words or denied) for path, words in rules)
    return fields
