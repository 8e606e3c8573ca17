"""Who the program is: user, group, supplementary groups. credentials(7).

Names are the container's own matter: they are looked up in its /etc/passwd and /etc/group, which a pure plan cannot
read. The runtime does (``runtime.resolve``) and hands back the same wish with ``uid``, ``gid`` and ``groups`` filled.
"""

from __future__ import annotations

import sys

from minictr.errors import SpecError
from minictr.features.check import ID_MAX, decimal, frozen, integer, number, sequence, shown, word
from minictr.steps import LOCK, VERIFY, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minictr.features.namespaces import UserNamespace

NGROUPS_MAX = 256  # what verify_ids of the core reads back; the kernel's own limit is 65536 (linux/limits.h)
NAME_MAX = 256  # useradd(8) stops at 32; LOGIN_NAME_MAX of linux/limits.h is 256


class Identity(Feature):
    """The program's user and groups. setresuid(2), setgroups(2).

    ``user`` is ``NAME[:GROUP]`` or ``UID[:GID]`` as in docker. ``uid`` -1 means not looked up yet; numbers alone need
    no looking up: group 0 and no supplementary groups are taken then, as docker does for a user without an entry.
    ``home`` is the directory of the user's entry, "" when not known.
    """

    NAME = "user"
    SUMMARY = "the user, group and supplementary groups of the program"

    user: str = "0"
    uid: int = -1
    gid: int = -1
    groups: tuple[int, ...] = ()
    home: str = ""

    def check(self) -> None:
        name, colon, group = word(self.user, "user", limit=2 * NAME_MAX).partition(":")
        if not name or (colon and not group) or ":" in group:
            raise SpecError(f"user: {shown(self.user)} is not USER or USER:GROUP")
        for part in filter(None, (name, group)):
            checked_name(part, self.user)
        integer(self.uid, "uid", -1, ID_MAX)
        integer(self.gid, "gid", -1, ID_MAX)
        if (self.uid == -1) != (self.gid == -1):
            raise SpecError("user: one of uid and gid is set: set both, or neither for a user still to be looked up")
        frozen(self, "groups", sequence(self.groups, "groups"))
        for group_id in self.groups:
            integer(group_id, "groups", 0, ID_MAX)
        if len(self.groups) > NGROUPS_MAX:
            raise SpecError(f"user: {len(self.groups)} supplementary groups, at most {NGROUPS_MAX} go in")
        word(self.home, "home", empty=True)

    @property
    def numeric(self) -> bool:
        """Whether ``user`` is numbers alone, so that nothing has to be looked up."""
        name, _, group = self.user.partition(":")
        return decimal(name) and (not group or decimal(group))

    @property
    def root(self) -> bool:
        """Whether it is user 0 as far as the words tell."""
        name = self.user.partition(":")[0]
        return self.uid == 0 or name == "root" or (decimal(name) and int(name) == 0)

    def resolved(self) -> Identity:
        """Itself with ``uid`` and ``gid`` set. Raises SpecError for a name nobody has looked up."""
        if self.uid != -1:
            return self
        if not self.numeric:
            cure = "resolve() must run before plan()"
            raise SpecError(f"user: {self.user!r} is not looked up in the container's /etc/passwd yet: {cure}")
        name, _, group = self.user.partition(":")
        return self.replace(uid=int(name), gid=int(group or "0"))

    def steps(self, ctx: Context) -> Iterator[Step]:
        who = self.resolved()
        user: UserNamespace | None = ctx.get("userns")
        groups = b"".join(group.to_bytes(4, sys.byteorder) for group in who.groups)
        told = ",".join(map(str, who.groups)) or "none"
        may_set = user is None or user.setgroups
        if may_set:
            yield self.step("setgroups", LOCK, told, groups=groups)
        yield self.step("setresgid", LOCK, str(who.gid), gid=who.gid)
        yield self.step("setresuid", LOCK, str(who.uid), uid=who.uid)
        if may_set:  # denied, the caller's own groups stay, and what they are is not known here
            yield self.step("verify_ids", VERIFY, f"{who.uid}:{who.gid}", uid=who.uid, gid=who.gid, groups=groups)


def checked_name(part: str, user: str) -> None:
    """A name or an id of USER: no path, no blank; numbers within bounds."""
    if part.isascii() and part.isdigit():
        number(part, f"user {shown(user)}", 0, ID_MAX)
    elif len(part) > NAME_MAX or part[0] in "-+" or any(c.isspace() or c in "/,=" or ord(c) < 33 for c in part):
        raise SpecError(f"user: {shown(part)} is neither a name nor an id")
