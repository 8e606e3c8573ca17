"""System containers: a program that is an init system wants to be PID 1 itself, a console, and to be told where it is.

systemd refuses to run as anything but PID 1, and looks at the variable ``container`` of its environment; it asks for
passwords, tells how its boot goes and offers a login on /dev/console, where there is one. sysvinit and busybox init are
served as well. systemd.io/CONTAINER_INTERFACE, pid_namespaces(7).
"""

from __future__ import annotations

from minictr.features.namespaces import own
from minictr.features.process import Env, Tty
from minictr.spec import Spec
from minictr.steps import Context

__all__ = ["INITS", "booting", "is_first", "is_init"]

INITS = frozenset(
    "/sbin/init /usr/sbin/init /lib/systemd/systemd /usr/lib/systemd/systemd /bin/systemd /usr/bin/systemd"
    " /bin/init /usr/bin/init /linuxrc".split()
)


def is_first(spec: Spec) -> bool:
    """Whether SPEC's program is PID 1 of a pid namespace of its own: without our init."""
    ctx = Context(spec.rootfs, spec.argv, spec.features, spec.names)
    return own(ctx, "pid") and "init" not in spec.names


def is_init(spec: Spec) -> bool:
    """Whether SPEC's program is an init system, with a pid namespace of its own to be PID 1 in."""
    ctx = Context(spec.rootfs, spec.argv, spec.features, spec.names)
    program, *arguments = spec.argv
    applet = program.rpartition("/")[2] == "busybox" and arguments[:1] == ["init"]
    return (applet or program in INITS) and own(ctx, "pid")


def booting(spec: Spec) -> Spec:
    """SPEC without our own init, with ``container=minictr`` and a terminal as its console, where its program is an init
    system; else as it is."""
    if not is_init(spec):
        return spec
    env = spec.get("env")
    kept = env if isinstance(env, Env) else Env(clear=False)
    if "container" not in dict(kept.variables):
        spec = spec.with_(kept.replace(variables=(*kept.variables, ("container", "minictr"))))
    if {"devpts", "session"} <= spec.names:
        spec = spec.with_(Tty())
    return spec.without("init")
