"""Parsed options -> Spec. Pure but for reading env files and looking whether a path or process is there.

Every function takes a spec and gives the next one; the order is that of :data:`BUILDERS`. What cannot be right is a
SpecError of one line that names the option. :mod:`minictr.parse` is imported only for options whose text needs it.
"""

from __future__ import annotations

import os

from minictr.boot import booting
from minictr.cli.given import many, said, variables
from minictr.cli.options import LANDLOCK, NETWORK, RESOURCES, RUN_OPTIONS
from minictr.errors import SpecError
from minictr.features import PROFILES, feature_class, make
from minictr.features.capabilities import CAPABILITIES, CONFINING, Capabilities, NoNewPrivs
from minictr.features.cgroup_devices import Devices
from minictr.features.cgroupfs import Cgroupfs
from minictr.features.mounts import Bind, Shm, Sysfs
from minictr.features.namespaces import TimeNamespace, UserNamespace
from minictr.features.process import Cwd, Domainname, Env, Hostname, OomScoreAdj, Pdeathsig, Rlimits, Sysctl, Tty
from minictr.features.rootfs import Overlay, ReadonlyRoot
from minictr.features.seccomp import POLICIES, Seccomp
from minictr.features.users import Identity
from minictr.spec import Spec, label

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minictr.steps import Feature

    Options = dict[str, Any]

ENOENT = 2
MAX_PROFILE = 1 << 20  # bytes of a seccomp profile's file
LANDLOCKED = frozenset(row[1] for row in RUN_OPTIONS if row[5] == LANDLOCK)
NETWORKED = frozenset(row[1] for row in RUN_OPTIONS if row[5] == NETWORK)
LIMITS = {"device", "device_cgroup_rule", "privileged", *(row[1] for row in RUN_OPTIONS if row[5] == RESOURCES)}
# option -> feature
NAMESPACES = {
    "pid": "pid",
    "ipc": "ipc",
    "uts": "uts",
    "userns": "userns",
    "cgroupns": "cgroupns",
    "time": "timens",
}
LABELS = ("apparmor", "label")  # of --security-opt: the words before "=" that ask for a label
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


def privileged(spec: Spec, opts: Options) -> Spec:
    """``--privileged``, as docker means it: every capability the caller has, nothing that hides or filters, and what
    the container has of /sys and its cgroups can be written. The host's devices come with those of ``--device``.

    Namespaces, root, limits and user stay. What docker has not, and would be lost, stays too: init, core limit."""
    if not opts.get("privileged"):
        return spec
    spec = spec.without(*CONFINING, "masked_paths", "readonly_paths", "nodev")
    for feature in (Devices(()), Sysfs("rw"), Cgroupfs("rw")):
        spec = spec.with_(feature) if feature.name in spec.names else spec
    return spec.with_(Capabilities(CAPABILITIES, drop_only=True))


def namespaces(spec: Spec, opts: Options) -> Spec:
    """``--pid``, ``--uts`` and so on: host, private, ns:PATH, pid:N; maps and offsets make their namespace."""
    if os.geteuid():
        from minictr.cli.ordinary import of_ordinary_user

        spec = of_ordinary_user(spec, opts)
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


def network(spec: Spec, opts: Options) -> Spec:
    """See :mod:`minictr.cli.network`, which is not read where there is none."""
    if NETWORKED.isdisjoint(opts):
        return spec
    from minictr.cli.network import network as networked

    return networked(spec, opts)


def files(spec: Spec, opts: Options) -> Spec:
    """Mounts, overlay, read-only root."""
    wanted: list[Feature] = [_source_there("-v", feature) for feature in many(opts, "volume", "-v", "volume")]
    wanted += (_source_there("--mount", feature) for feature in many(opts, "mount", "--mount", "mount"))
    wanted += many(opts, "tmpfs", "--tmpfs", "tmpfs")
    labels = [label(feature) for feature in wanted]
    for text in labels:
        if labels.count(text) > 1:
            raise SpecError(f"{text.replace(':', ' on ', 1)} is given twice")
    if "upper" in opts:
        if not opts["upper"]:
            raise SpecError("--upper: empty: name a directory")
        wanted.append(said("--upper", Overlay, upper=os.path.abspath(opts["upper"])))
    elif opts.get("overlay"):
        wanted.append(Overlay())
    if "shm_size" in opts:
        wanted.append(said("--shm-size", (spec.get("shm") or Shm()).replace, size=opts["shm_size"]))
    if opts.get("read_only"):
        wanted.append(ReadonlyRoot())
    return spec.with_(*wanted)


def _source_there(option: str, feature: Feature) -> Feature:
    """FEATURE with host paths absolute. A bind's source must be there: docker would make a directory of that name,
    which hides a typing mistake."""
    if isinstance(feature, Overlay):
        paths = {name: os.path.abspath(path) for name in ("upper", "work") if (path := getattr(feature, name))}
        return feature.replace(lower=tuple(os.path.abspath(path) for path in feature.lower), **paths)
    if not isinstance(feature, Bind):
        return feature
    source = os.path.abspath(feature.source)
    try:
        os.stat(source)
    except OSError as err:
        why = "no such file or directory" if err.errno == ENOENT else os.strerror(err.errno or 0)
        raise SpecError(f"{option} {feature.source}:{feature.target}: {why}: {source}") from None
    return feature.replace(source=source)


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


def privilege(spec: Spec, opts: Options) -> Spec:
    """Capabilities, no_new_privs, limits, sysctls."""
    spec = securebits(capabilities(spec, opts), opts)
    if "security_opt" in opts:
        spec = security_options(spec, opts["security_opt"])
    spec = seccomp_log(spec, opts)
    if opts.get("disable_userns"):
        spec = spec.with_("disable_userns")
    limits = many(opts, "ulimit", "--ulimit", "ulimit")
    if limits:
        present = spec.get("rlimits")
        rows = {row[0]: row for row in (*(present.limits if isinstance(present, Rlimits) else ()), *limits)}
        spec = spec.with_(said("--ulimit", Rlimits, tuple(rows.values())))
    settings = many(opts, "sysctl", "--sysctl", "sysctl")
    if settings:
        present = spec.get("sysctl")
        merged = {**(dict(present.settings) if isinstance(present, Sysctl) else {}), **dict(settings)}
        spec = spec.with_(said("--sysctl", Sysctl, tuple(merged.items())))
    if "oom_score_adj" in opts:
        from minictr.features.check import number

        spec = spec.with_(OomScoreAdj(number(opts["oom_score_adj"], "--oom-score-adj", -1000, 1000)))
    return spec


def capabilities(spec: Spec, opts: Options) -> Spec:
    """``--cap-add`` and ``--cap-drop`` as in docker, whatever their order."""
    add, drop = opts.get("cap_add", ()), opts.get("cap_drop", ())
    if not add and not drop:
        return spec
    from minictr.parse.settings import adjusted_capabilities

    found = (spec.get("capabilities"), add, drop, spec.get("user"))
    return spec.with_(said("--cap-add, --cap-drop", adjusted_capabilities, *found))


def securebits(spec: Spec, opts: Options) -> Spec:
    """``--securebits``, as of setpriv(1)."""
    if "securebits" not in opts:
        return spec
    from minictr.parse.settings import securebits as parsed

    return spec.with_(said("--securebits", parsed, opts["securebits"]))


def security_options(spec: Spec, texts: list[str]) -> Spec:
    """Every ``--security-opt``; the parts of a label are taken together."""
    texts = [text if "=" in text else text.replace(":", "=", 1) for text in texts]  # docker's older spelling
    pairs = [(key, value) for key, mark, value in (text.partition("=") for text in texts) if mark and key in LABELS]
    for text in texts:
        if text.partition("=")[::2] not in pairs:
            spec = security_option(spec, text)
    if pairs:
        from minictr.cli.labels import labelled

        spec = labelled(spec, pairs)
    return spec


def security_option(spec: Spec, text: str) -> Spec:
    """One ``--security-opt`` that is no label."""
    key, mark, value = text.partition("=")
    if key == "no-new-privileges" and value in ("", "true", "false") and (value or not mark):
        return spec.without("no_new_privs") if value == "false" else spec.with_(NoNewPrivs())
    if key == "seccomp" and value:
        return spec.without("seccomp") if value == "unconfined" else spec.with_(filter_wish(spec, value))
    if text == "systempaths=unconfined":
        return spec.without("masked_paths", "readonly_paths")
    known = "no-new-privileges[=false], apparmor=, label=, seccomp= and systempaths=unconfined are known"
    reasons = {"seccomp": f"unconfined, {', '.join(POLICIES)} or a file is wanted"}
    reasons["no-new-privileges"] = "true or false is wanted"
    reason = reasons.get(key, known)
    raise SpecError(f"--security-opt {text}: {reason}")


def filter_wish(spec: Spec, value: str) -> Seccomp:
    """``seccomp=VALUE``: a policy of ours by its name, or a file with a profile of OCI's or Docker's."""
    if value in POLICIES:
        return Seccomp(value)
    try:
        with open(value, encoding="utf-8") as file:
            text = file.read(MAX_PROFILE + 1)
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else "is not UTF-8"
        raise SpecError(f"--security-opt seccomp={value}: {reason}; policies are {', '.join(POLICIES)}") from err
    if len(text) > MAX_PROFILE:
        raise SpecError(f"--security-opt seccomp={value}: larger than {MAX_PROFILE} bytes")
    from minictr.features.filters import SeccompFilter

    present = spec.get("capabilities")
    caps = present.bounding if isinstance(present, Capabilities) else CAPABILITIES
    made = said(f"--security-opt seccomp={value}", SeccompFilter.from_json, text, caps=caps)
    if made.notifies:
        reason = "SCMP_ACT_NOTIFY: a Python function is what decides here: minictr.run(..., seccomp=, on_syscall=)"
        raise SpecError(f"--security-opt seccomp={value}: {reason}")
    return Seccomp(made, source=os.path.basename(value))


def seccomp_log(spec: Spec, opts: Options) -> Spec:
    """``--seccomp-log``: what the filter does not allow is written to the kernel's log."""
    if not opts.get("seccomp_log"):
        return spec
    present = spec.get("seccomp")
    if not isinstance(present, Seccomp):
        raise SpecError("--seccomp-log: there is no filter: add --security-opt seccomp=default")
    return spec.with_(present.replace(flags=(*present.flags, "log")))


def resources(spec: Spec, opts: Options) -> Spec:
    """Limits and devices: see :mod:`minictr.cli.limits`, which is not read where there are none."""
    if LIMITS.isdisjoint(opts):
        return spec
    from minictr.cli.limits import limits

    return limits(spec, opts)


def landlock(spec: Spec, opts: Options) -> Spec:
    """See :mod:`minictr.cli.landlock`, which is not read where there is none."""
    if LANDLOCKED.isdisjoint(opts):
        return spec
    from minictr.cli.landlock import landlock as restricted

    return restricted(spec, opts)


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


BUILDERS: tuple[Callable[[Spec, Options], Spec], ...] = (
    with_features,
    privileged,
    namespaces,
    network,
    files,
    process,
    privilege,
    landlock,
    resources,
)
