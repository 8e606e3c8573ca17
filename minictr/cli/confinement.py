"""Options of privilege and of what confines: capabilities, filters, limits of processes, sysctls -> features.

Reads a seccomp profile that is named.
"""

from __future__ import annotations

import os

from minictr.cli.given import many, said
from minictr.errors import SpecError
from minictr.features.capabilities import CAPABILITIES, CONFINING, Capabilities, NoNewPrivs
from minictr.features.cgroup_devices import Devices
from minictr.features.cgroupfs import Cgroupfs
from minictr.features.mounts import Sysfs
from minictr.features.process import OomScoreAdj, Rlimits, Sysctl
from minictr.features.seccomp import POLICIES, Seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.spec import Spec

    Options = dict[str, Any]

MAX_PROFILE = 1 << 20  # bytes of a seccomp profile's file
LABELS = ("apparmor", "label")  # of --security-opt: the words before "=" that ask for a label


def privileged(spec: Spec, opts: Options) -> Spec:
    """``--privileged``, as docker means it: every capability the caller has, nothing that hides or filters, and what
    the container has of /sys and its cgroups can be written. The host's devices come with those of ``--device``.

    Namespaces, root, limits and user stay. What docker has not, and would be lost, stays too: init, core limit."""
    spec = spec.without(*CONFINING, "masked_paths", "readonly_paths", "nodev")
    for feature in (Devices(()), Sysfs("rw"), Cgroupfs("rw")):
        spec = spec.with_(feature) if feature.name in spec.names else spec
    return spec.with_(Capabilities(CAPABILITIES, drop_only=True))


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
