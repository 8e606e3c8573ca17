"""Security modules: the label that AppArmor or SELinux gives the program. proc_pid_attr(5), apparmor(7), selinux(8).

The label is set for the next execve and takes effect with it: the start itself, and the init that stays, keep the
caller's. It is asked for before anything else happens, read back at once, and where the container has a /proc of its
own read back once more before the program runs.
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import shown, word
from minictr.steps import PREPARE, SETUP, VERIFY, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LABEL_MAX = 4000  # bytes: with the order in front it is one page, which is what one write may have (fs/proc/base.c)
CONTEXT_MAX = 247  # bytes: fsconfig(2) takes 255 with "context="; labels of processes are far shorter
FIELDS = ("user", "role", "type", "level")
PUNCTUATION = str.maketrans("", "", "_.-")
LEVEL_PUNCTUATION = str.maketrans("", "", "_.-:,")


def labelled(feature: Feature, ctx: Context, order: str, label: str) -> Iterator[Step]:
    """The steps of a label: looked at, set, and verified."""
    yield feature.step("check_label", PREPARE, label, module=feature.name, label=label)
    yield feature.step("exec_label", SETUP, f"{feature.name} {label}", module=feature.name, order=order, label=label)
    if ctx.has("proc"):
        yield feature.step("verify_label", VERIFY, f"{feature.name} {label}", module=feature.name, label=label)


class AppArmor(Feature):
    """The program runs confined by a profile that is loaded. Linux 5.8 (attr/apparmor), apparmor(7).

    ``profile``: its name as the kernel lists it (``/sys/kernel/security/apparmor/profiles``); ``&NAME`` stacks it on
    the caller's own: both must allow. ``unconfined`` leaves a caller's profile, where that one lets it.
    """

    NAME = "apparmor"
    SUMMARY = "confined by an AppArmor profile"

    profile: str

    def check(self) -> None:
        name = word(self.profile, "apparmor profile", limit=LABEL_MAX).removeprefix("&")
        if not name or name != name.strip():
            raise SpecError(f"apparmor profile: {shown(self.profile)} is not a name without blanks around it")
        if "&" in name:
            raise SpecError(
                f"apparmor profile: {shown(self.profile)}: name one profile; &NAME stacks it on the caller's"
            )

    def steps(self, ctx: Context) -> Iterator[Step]:
        name = self.profile.removeprefix("&")
        order = "exec" if name == self.profile else "stack"
        return labelled(self, ctx, f"{order} {name}", name)


class SELinux(Feature):
    """The program, and with ``mount`` the container's own file systems, have an SELinux context. selinux(8).

    ``context``: ``user:role:type`` with ``:level`` where the policy has levels, spelt as the kernel spells it.
    ``mount``: the context of all files in what is made for the container: /dev, terminals, shm, tmpfs, the overlay.
    """

    NAME = "selinux"
    SUMMARY = "an SELinux context for the program and its mounts"

    context: str
    mount: str = ""

    def check(self) -> None:
        checked_context(self.context, "selinux context")
        if self.mount:
            checked_context(self.mount, "selinux mount")

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield from labelled(self, ctx, self.context, self.context)
        if self.mount:
            yield self.step("check_label", PREPARE, f"{self.mount} of mounts", module=self.NAME, label=self.mount)


def checked_context(text: object, what: str) -> str:
    """``user:role:type[:level]``; which of them there are, the loaded policy knows."""
    context = word(text, what, limit=CONTEXT_MAX)
    parts = context.split(":", 3)
    names = [part.translate(PUNCTUATION) for part in parts[:3]]
    names += [part.translate(LEVEL_PUNCTUATION) for part in parts[3:]]
    if len(parts) < 3 or not all(name.isascii() and name.isalnum() for name in names):
        raise SpecError(
            f"{what}: {shown(text)} is not USER:ROLE:TYPE[:LEVEL], as system_u:system_r:container_t:s0:c1,c2"
        )
    return context
