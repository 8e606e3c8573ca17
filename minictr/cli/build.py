"""Parsed options -> Spec. Pure but for reading env files and looking whether a path or process is there.

Every builder takes a spec and gives the next one; the order is that of :data:`BUILDERS`, and a module that answers
options is read only where one of them was given. What cannot be right is a SpecError of one line that names the option.
:mod:`minictr.parse` is imported only for options whose text needs it.
"""

from __future__ import annotations

import os

from minictr.boot import booting
from minictr.cli.given import said, variables
from minictr.cli.options import FILES, LANDLOCK, NAMESPACES, NETWORK, PRIVILEGE, RESOURCES, RUN_OPTIONS
from minictr.errors import SpecError
from minictr.features import PROFILES, feature_class, make
from minictr.features.process import Cwd, Domainname, Env, Hostname, Pdeathsig, Tty
from minictr.features.users import Identity
from minictr.spec import Spec, label

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minictr.steps import Feature

    Options = dict[str, Any]

# feature -> the option that asks for it with its settings
ASK = {"bind": "-v", "tmpfs": "--tmpfs", "hostname": "-h", "domainname": "--domainname", "cwd": "-w"}
ASK |= {"publish": "-p", "securebits": "--securebits", "macvlan": "--network macvlan:PARENT"}
ASK |= {"oom_score_adj": "--oom-score-adj", "device": "--device", "ipvlan": "--network ipvlan:PARENT"}
ASK |= {"apparmor": "--security-opt apparmor=NAME", "selinux": "--security-opt label=CONTEXT"}
ASK |= {"landlock": "--ro, --rw and others", "cgroup_conf": "--cgroup-conf", "cgroup_parent": "--cgroup-parent"}


def build(opts: Options, command: tuple[str, ...], terminal: bool | None = None) -> Spec:
    """The spec that OPTS and COMMAND ask for. TERMINAL: whether the caller has one (default: looked at).

    Raises SpecError.
    """
    if not command:
        raise SpecError("no command: name the program to run after the options")
    name = opts.get("profile", "default")
    if name not in PROFILES:
        raise SpecError(f"--profile {name!r} is not one of {', '.join(PROFILES)}")
    spec = Spec(command, PROFILES[name], rootfs(opts), opts.get("name", ""))
    for builder in BUILDERS:
        spec = builder(spec, opts)
    spec = terminal_wish(spec, opts, terminal)
    for unwanted in opts.get("without", ()):
        if ":" in unwanted and unwanted not in labels(spec):
            raise SpecError(f"--without {unwanted}: there is no such mount, nor such a part of a feature")
        spec = said(f"--without {unwanted}", spec.without, unwanted, cascade=True)
    for name in opts.get("best_effort", ()):
        said(f"--best-effort {name}", feature_class, name)
    if not spec.rootfs and not {"pivot_root", "chroot"}.isdisjoint(spec.names):
        raise SpecError("no --rootfs DIR: name one, or stay in the host's own root with --without pivot_root")
    return spec


def labels(spec: Spec) -> set[str]:
    """All that ``--without`` can name in it with a colon: mounts, and parts of features."""
    parts = (f"{feature.name}:{part}" for feature in spec.features for part in feature.parts)
    return {*map(label, spec.features), *parts}


def rootfs(opts: Options) -> str:
    """The root directory as given; "" is the host's own root, where no option named one."""
    path: str = opts.get("rootfs", "")
    if "rootfs" in opts and not path:
        raise SpecError("--rootfs: empty: name a directory")
    return path


def with_features(spec: Spec, opts: Options) -> Spec:
    """``--with NAME``: as the default profile has it; a root is exchanged, for there is only one."""
    for name in opts.get("with", ()):
        if name in ASK:
            raise SpecError(f"--with {name}: the feature {name} needs settings: use {ASK[name]}")
        feature = said(f"--with {name}", make, name)
        other = {"chroot": "pivot_root", "pivot_root": "chroot"}.get(name)
        spec = (spec.without(other) if other else spec).with_(feature)
    return spec


def process(spec: Spec, opts: Options) -> Spec:
    """Environment, directory, user, names."""
    wanted: list[Feature] = []
    env, extra = spec.get("env"), variables(opts)
    if extra or opts.get("clearenv"):
        kept = env if isinstance(env, Env) else Env(clear=False)
        merged = {**dict(kept.variables), **dict(extra)}
        clear = kept.clear or bool(opts.get("clearenv"))
        wanted.append(said("-e", Env, tuple(merged.items()), clear))
    if "workdir" in opts:
        wanted.append(said("-w", Cwd, opts["workdir"]))
    if "user" in opts:
        wanted.append(said("-u", Identity, opts["user"]))
    if "hostname" in opts:
        wanted.append(said("-h", Hostname, opts["hostname"]))
    elif "name" in opts and "uts" in spec.names and not getattr(spec.get("uts"), "join", ""):
        wanted.append(said("--name", Hostname, opts["name"]))
    if "domainname" in opts:
        wanted.append(said("--domainname", Domainname, opts["domainname"]))
    spec = spec.with_(*wanted)
    spec = spec.with_("init") if opts.get("init") else booting(spec.without("init") if "init" in opts else spec)
    return spec.with_(Pdeathsig()) if opts.get("die_with_parent") else spec


def terminal_wish(spec: Spec, opts: Options, terminal: bool | None) -> Spec:
    """A terminal of its own: as told, or when the caller has one and the container can make one."""
    wanted = opts.get("tty", "tty" in spec.names or None)  # --with tty is -t
    if wanted is None:
        if terminal is None:
            terminal = os.isatty(0) and os.isatty(1)
        out = {"tty", "devpts", "session"}.intersection(opts.get("without", ()))
        wanted = terminal and not out and {"devpts", "session"} <= spec.names
    if not wanted:
        return spec.without("tty")
    for needed in ("devpts", "session"):
        if needed not in spec.names:
            spec = spec.with_(needed)
    return spec.with_(Tty())


def ordinary(spec: Spec, opts: Options) -> Spec:
    """What an ordinary user has without asking."""
    if not os.geteuid():
        return spec
    from minictr.cli.ordinary import of_ordinary_user

    return of_ordinary_user(spec, opts)


def of(*groups: str) -> frozenset[str]:
    """The options of GROUPS of the table."""
    return frozenset(row[1] for row in RUN_OPTIONS if row[5] in groups)


def part(options: frozenset[str], module: str, function: str) -> Callable[[Spec, Options], Spec]:
    """The builder FUNCTION of that module of minictr.cli, which is read where one of OPTIONS was given."""

    def builder(spec: Spec, opts: Options) -> Spec:
        if options.isdisjoint(opts):
            return spec
        found = __import__(f"minictr.cli.{module}", fromlist=[function])  # importlib is not on the hot path
        built: Spec = getattr(found, function)(spec, opts)
        return built

    return builder


BUILDERS: tuple[Callable[[Spec, Options], Spec], ...] = (
    with_features,
    part(frozenset({"privileged"}), "confinement", "privileged"),
    ordinary,
    part(of(NAMESPACES), "namespaces", "namespaces"),
    part(of(NETWORK), "network", "network"),
    part(of(FILES), "mounts", "mounts"),
    process,
    part(of(PRIVILEGE), "confinement", "privilege"),
    part(of(LANDLOCK), "landlock", "landlock"),
    part(of(RESOURCES) | {"device", "device_cgroup_rule", "privileged"}, "limits", "limits"),
)
