"""AppArmor: which profiles are loaded, what confines a process, and the profile of the next program.

Linux 5.8 (/proc/PID/attr/apparmor), apparmor(7). Profiles are compiled and loaded by apparmor_parser(8).
"""

from __future__ import annotations

from minictr.errors import SpecError, StepFailed, Unsupported
from minictr.kernel import labels
from minictr.steps import Support
from minictr.values import Value

__all__ = ["Confinement", "check", "current", "enabled", "exec_label", "probe", "profiles"]

PROFILES = f"{labels.SECURITYFS}/apparmor/profiles"
ENOENT, EACCES, EPERM, EINVAL = 2, 13, 1, 22
LIVE = "boot with apparmor=1 security=apparmor, or with apparmor in lsm= (Documentation/admin-guide/LSM/apparmor.rst)"
LOAD = "load it with apparmor_parser -r FILE; minictr.kernel.apparmor.profiles() lists those that are loaded"
CURES = {
    ENOENT: f"no such profile is loaded, or there is no /proc: {LOAD}",
    EACCES: "the caller is confined itself: its profile needs a change_profile rule for that one",
    EPERM: "what was read back is not what was asked for: refused",
    EINVAL: f"AppArmor is not live, or knows no such label: {LIVE}",
}


class Confinement(Value):
    """What confines a process: the profile's name, and its mode, "" for an unconfined one.

    ``mode``: enforce, complain, kill, unconfined (a profile that allows everything), mixed (a stack of several).
    """

    profile: str
    mode: str = ""

    def __str__(self) -> str:
        return f"{self.profile} ({self.mode})" if self.mode else self.profile


def split(text: str) -> Confinement:
    """``NAME (MODE)``, as the kernel writes it; "unconfined" has no mode, and names may hold blanks and brackets."""
    name, _, mode = text.rpartition(" (")
    return Confinement(name, mode[:-1]) if name and mode.endswith(")") else Confinement(text)


def enabled() -> bool:
    """Whether AppArmor is live: built in is not enough."""
    return labels.attribute(0, "apparmor/current") is not None


def current(pid: int | str = 0) -> Confinement | None:
    """What confines PID, or the calling thread (0); None where AppArmor is not live. Raises StepFailed."""
    text = labels.attribute(pid, "apparmor/current")
    return None if text is None else split(text)


def profiles() -> dict[str, str]:
    """Name -> mode of every loaded profile. Raises Unsupported; StepFailed: EACCES for who may not manage policy
    (CAP_MAC_ADMIN), ENOENT where securityfs is not mounted."""
    must_be_live()
    try:
        with open(PROFILES, encoding="utf-8", errors="surrogateescape") as file:
            rows = [split(line) for line in file.read().splitlines()]
    except OSError as err:
        cure = f"mount -t securityfs securityfs {labels.SECURITYFS}" if err.errno == ENOENT else "be root on the host"
        raise StepFailed(f"read {PROFILES}", err.errno or 0, cure=cure) from err
    return {row.profile: row.mode for row in rows}


def must_be_live() -> None:
    """Raises Unsupported where AppArmor is not."""
    if not enabled():
        raise Unsupported("apparmor", f"AppArmor is not live: {labels.told()}", LIVE)


def check(name: str) -> None:
    """Whether NAME can be asked for, as far as this user may see. Raises Unsupported; StepFailed (ENOENT) for a profile
    that is not loaded. Names of other policy namespaces, and children of profiles, the kernel itself will tell."""
    must_be_live()
    name = name.removeprefix("&")
    if name == "unconfined" or name.startswith(":"):
        return
    try:
        loaded = profiles()
    except StepFailed:
        return  # not ours to see: the step itself will fail
    if name not in loaded:
        raise StepFailed(f"apparmor profile {name}", ENOENT, cure=f"it is not loaded: {LOAD}")


def exec_label(name: str) -> None:
    """The calling thread's next execve is confined by the profile NAME; ``&NAME`` stacks it on the thread's own.

    Read back before this returns. With no_new_privs a thread that is confined already can only stack. Raises SpecError;
    StepFailed: ENOENT, EACCES, EINVAL.

    >>> exec_label("docker-default")
    >>> os.execv("/bin/true", ["true"])
    """
    profile = name.removeprefix("&")
    if not profile or profile != profile.strip() or "\0" in profile:
        raise SpecError(f"apparmor: {name!r} is not the name of a profile")
    labels.set_exec("apparmor", f"{'exec' if profile == name else 'stack'} {profile}", profile, CURES)


def probe() -> dict[str, Support]:
    """Whether a profile can be asked for: a child asks for the one that confines it already."""
    try:
        must_be_live()
    except Unsupported as err:
        return {"apparmor": Support(False, err.reason, err.cure)}
    own = (current() or Confinement("unconfined")).profile
    return {"apparmor": labels.tried("apparmor", f"exec {own}", own, CURES)}
