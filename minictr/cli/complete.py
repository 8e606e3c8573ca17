"""What the shell may offer as the value of an option, or as the command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click

DIRECTORIES = ("root", "rootfs", "upper", "volume", "tmpfs", "workdir", "ro", "rw")
NAMESPACES = ("pid", "ipc", "uts", "userns", "cgroupns", "time")
PROGRAM_DIRS = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")


def complete_option(dest: str, incomplete: str) -> list[CompletionItem]:
    """Candidates for the value of the option stored as DEST."""
    if dest in DIRECTORIES:
        return [CompletionItem(incomplete, type="dir")]
    if dest in ("env_file", "trace", "cidfile", "pidfile"):
        return [CompletionItem(incomplete, type="file")]
    if dest in ("cap_add", "cap_drop"):
        incomplete = incomplete.upper()
    return [CompletionItem(word) for word in _words(dest) if word.startswith(incomplete)]


def _words(dest: str) -> Iterable[str]:
    if dest in ("profile", "diff"):
        from minictr.features import PROFILES

        return PROFILES
    if dest in ("with", "without"):
        from minictr.features import REGISTRY

        return REGISTRY
    if dest in ("cap_add", "cap_drop"):
        from minictr.features.capabilities import CAPABILITIES

        return ("ALL", *CAPABILITIES)
    if dest == "securebits":
        from minictr.securebits import SECUREBITS

        return (f"{sign}{name}" for sign in "+-" for name in SECUREBITS if name != "keep_caps")
    if dest in NAMESPACES:
        more = ("auto", "auto:size=") if dest == "userns" else ()
        return ("host", "private", *more, "ns:", "pid:")
    fixed = {
        "format": ("text", "json"),
        "landlock_access": ("fs", "fs:"),
        "landlock_rule": ("path-beneath:",),
        "landlock_scope": ("signal", "abstract-unix-socket"),
        "security_opt": (
            *("no-new-privileges", "apparmor=unconfined", "systempaths=unconfined"),
            *(f"seccomp={word}" for word in ("unconfined", "default", "docker", "lxc", "strict")),
            *(f"label={word}" for word in ("disable", "user:", "role:", "type:", "level:", "filetype:")),
        ),
        "net": ("none", "host", "bridge", "bridge:", "routed", "container:", "ns:", "pid:"),
        "mount": ("type=bind,source=", "type=tmpfs,target=", "type=overlay,"),
        "time_offset": ("monotonic=", "boottime="),
        "signal": ("TERM", "INT", "HUP", "QUIT", "KILL", "USR1", "USR2"),
        "filter": ("name=", "id=", "status=", "exited="),
        "restart_policy": ("no", "on-failure", "always"),
        "log_driver": ("k8s-file", "none"),
        "log_opt": ("max-size=", "max-file="),
        "attach": ("stdin", "stdout", "stderr"),
        "stop_signal": ("TERM", "INT", "HUP", "QUIT", "KILL", "USR1", "USR2"),
    }
    return fixed.get(dest, ())


# verb -> the statuses of those it can be done with; all for the others
FITTING = {
    "start": ("created", "exited", "dead"),
    "unpause": ("paused",),
    **dict.fromkeys(("pause", "exec", "attach"), ("running",)),
    **dict.fromkeys(("stop", "kill", "wait", "top"), ("created", "running", "paused")),
}


def complete_container(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the containers that the verb can be done with, and ids of those that have none."""
    from minictr.errors import MinictrError
    from minictr.runtime.listing import glances
    from minictr.runtime.store import SHORT, Store

    fitting = FITTING.get(ctx.command.name or "")
    given = ctx.params.get("command") or ()
    try:
        looks = glances(Store())
    except MinictrError:
        return []
    names = [look.name or look.id[:SHORT] for look in looks if fitting is None or look.status in fitting]
    return [CompletionItem(name) for name in names if name.startswith(incomplete) and name not in given]


def complete_command(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The first word: programs of the root file system named by ``--rootfs``; later words: files."""
    rootfs = ctx.params.get("rootfs")
    if not rootfs or "/" in incomplete or ctx.params.get("command"):
        return [CompletionItem(incomplete, type="file")]
    names: set[str] = set()
    for directory in PROGRAM_DIRS:
        try:
            names.update(name for name in os.listdir(os.path.join(rootfs, directory)) if name.startswith(incomplete))
        except OSError:  # absent, or a link that leads nowhere on this side
            continue
    return [CompletionItem(name) for name in sorted(names)]
