"""Options of namespaces, id maps and clocks -> features. Reads whether a path or process is there."""

from __future__ import annotations

import os

from minictr.cli.given import many, said
from minictr.errors import SpecError
from minictr.features.namespaces import TimeNamespace, UserNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.spec import Spec

    Options = dict[str, Any]

# option -> feature
NAMESPACES = {
    "pid": "pid",
    "ipc": "ipc",
    "uts": "uts",
    "userns": "userns",
    "cgroupns": "cgroupns",
    "time": "timens",
}


def namespaces(spec: Spec, opts: Options) -> Spec:
    """``--pid``, ``--uts`` and so on: host, private, ns:PATH, pid:N; maps and offsets make their namespace."""
    for dest, name in NAMESPACES.items():
        if dest in opts:
            spec = namespace(spec, f"--{dest}", name, opts[dest])
    uids, gids = (sum(many(opts, dest, f"--{dest}", "id_maps"), ()) for dest in ("uidmap", "gidmap"))
    if uids or gids:
        _own("--uidmap and --gidmap", "userns", opts)
        maps = {"uid_map": uids or gids, "gid_map": gids or uids}  # one of them alone is meant for both, as in podman
        spec = spec.with_(said("--uidmap, --gidmap", UserNamespace, **maps))
    offsets: dict[str, float] = {}
    for given in many(opts, "time_offset", "--time-offset", "time_offset"):
        offsets.update(given)
    if offsets:
        _own("--time-offset", "time", opts)
        spec = spec.with_(said("--time-offset", TimeNamespace, **offsets))
    return spec


def _own(option: str, dest: str, opts: Options) -> None:
    if opts.get(dest, "").startswith("auto"):
        raise SpecError(f"{option} are maps, and --{dest} {opts[dest]} chooses some: leave one of them out")
    if opts.get(dest, "private") != "private":
        raise SpecError(f"{option} make a new namespace, and --{dest} {opts[dest]} is none: leave one of them out")


def namespace(spec: Spec, option: str, name: str, text: str) -> Spec:
    """One namespace option applied. What is set up in an own namespace only (loopback, sysctls, host name) leaves
    the spec with it: those of the host or of a joined one are not ours to set."""
    import minictr.parse as parse  # not "from minictr": its __getattr__ would import importlib

    wanted = said(option, parse.namespace, name, text)
    if wanted is None:
        return spec.without(name, cascade=True)
    count = getattr(wanted, "auto", 0)
    if count and os.geteuid():
        from minictr.kernel.delegated import rows_of

        return spec.with_(UserNamespace(rows_of("uid", count), rows_of("gid", count)))
    if count and spec.rootfs.strip("/"):
        spec = spec.with_("idmap")  # but for the host's own root: root inside would be root of all of its files
    if not wanted.join:
        return spec.with_(wanted)
    path = os.path.abspath(wanted.join)
    if not os.path.exists(path):
        what = f"no process {text[4:]}, or not to be looked at" if text.startswith("pid:") else "no such file"
        raise SpecError(f"{option} {text}: {what}")
    return spec.without(name, cascade=True).with_(wanted.replace(join=path))
