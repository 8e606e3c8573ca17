"""System containers: a program that is an init system wants to be PID 1 itself, and to be told where it is.

systemd refuses to run as anything but PID 1, and looks at the variable ``container`` of its environment; sysvinit and
busybox init are served as well. systemd.io/CONTAINER_INTERFACE, pid_namespaces(7).
"""

from __future__ import annotations

from minictr.features.namespaces import own
from minictr.features.process import Env
from minictr.spec import Spec
from minictr.steps import Context

__all__ = ["INITS", "booting", "is_init"]

INITS = frozenset(
    "/sbin/init /usr/sbin/init /lib/systemd/systemd /usr/lib/systemd/systemd /bin/systemd /usr/bin/systemd"
    " /bin/init /usr/bin/init".split()
)


def is_init(spec: Spec) -> bool:
    """Whether SPEC's program is an init system, with a pid namespace of its own to be PID 1 in."""
    ctx = Context(spec.rootfs, spec.argv, spec.features, spec.names)
    return spec.argv[0] in INITS and own(ctx, "pid")


def booting(spec: Spec) -> Spec:
    """SPEC without our own init and with ``container=minictr``, where its program is an init system; else as it is."""
    if not is_init(spec):
        return spec
    env = spec.get("env")
    kept = env if isinstance(env, Env) else Env(clear=False)
    if "container" not in dict(kept.variables):
        spec = spec.with_(kept.replace(variables=(*kept.variables, ("container", "minictr"))))
    return spec.without("init")
