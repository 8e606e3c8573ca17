"""Landlock: a thread takes rights over files, TCP ports and other processes from itself. landlock(7), Linux 5.13.

No privilege is needed, only no_new_privs. What a ruleset *handles* is denied from then on, but where one of its rules
allows it; all else stays as it was, and so do descriptors that are open already. Rights are words: ``minictr.rights``.

**It cannot be undone**, holds for the calling thread and for what it starts, and not for threads that run already: this
belongs into a child process, or into a program that means itself. Rulesets add up: each can only take more.
"""

from __future__ import annotations

import os

from minictr import rights
from minictr.errors import SpecError, StepFailed
from minictr.kernel import ops
from minictr.kernel.handles import Handle
from minictr.kernel.landlock_abi import abi, lacking
from minictr.rights import ACCESS, NETWORK, READ, SCOPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minictr.steps import Support

__all__ = [
    "ACCESS",
    "LOG_NEW_EXEC_ON",
    "LOG_SAME_EXEC_OFF",
    "LOG_SUBDOMAINS_OFF",
    "NETWORK",
    "READ",
    "SCOPES",
    "Ruleset",
    "abi",
    "lacking",
    "probe",
    "restrict",
    "ruleset",
]

# LANDLOCK_RESTRICT_SELF_*, linux/landlock.h; ABI 7. What is denied goes to the audit log, if the kernel has one.
LOG_SAME_EXEC_OFF = 1  # not what this very program is denied
LOG_NEW_EXEC_ON = 2  # also what programs are denied that it executes
LOG_SUBDOMAINS_OFF = 4  # not what rulesets deny that are added later

EPERM, E2BIG, EBADF, EINVAL, ELOOP, EBADFD, EAFNOSUPPORT = 1, 7, 9, 22, 40, 77, 97
PORT_MAX = 65535
_PATH_CURES = {
    EINVAL: "rights of a directory for what is none (narrow=True leaves them out), or rights that are not handled",
    ELOOP: "magic links of procfs are not followed: name what they mean",
    EBADFD: "that is no file of a file system",
}
_PORT_CURES = {EINVAL: "rights that are not handled", EAFNOSUPPORT: "this kernel has no TCP"}
_RESTRICT_CURES = {
    EPERM: "set no_new_privs first (capabilities.no_new_privs), or have CAP_SYS_ADMIN",
    E2BIG: "16 rulesets on one another are the limit",
    EINVAL: "flags need ABI 7",
}


class Ruleset(Handle):
    """What is to be denied, and the exceptions; in force only once :func:`restrict` is called. ``fd``: its descriptor.

    ``access``, ``network``, ``scopes``: the names that it handles.
    """

    def __init__(self, access: tuple[str, ...], network: tuple[str, ...], scopes: tuple[str, ...]) -> None:
        self.access, self.network, self.scopes = access, network, scopes
        masks = {
            "fs": rights.bits(access, ACCESS),
            "net": rights.bits(network, NETWORK),
            "scoped": rights.bits(scopes, SCOPES),
        }
        told = " ".join((*access, *network, *scopes))
        self.fd = ops.execute("landlock_ruleset", about=told, cure="", into="rules", **masks)
        self._open = True

    def _close(self) -> None:
        os.close(self.fd)

    def allow_path(
        self, path: str | os.PathLike[str], names: Iterable[str] | None = None, *, narrow: bool = False
    ) -> None:
        """NAMES on PATH and, for a directory, on all below it. None: all that is handled, of it what PATH can have.

        The file is meant, not its name: what takes its place later is not allowed. ``narrow``: rights that only a
        directory has are left out where PATH is none. Raises SpecError; StepFailed: ENOENT, EINVAL, ELOOP, EACCES.
        """
        text = os.fsdecode(path)
        wanted = self.access if names is None else rights.normal(tuple(names), ACCESS, f"landlock {text}")
        about = f"{text}: {' '.join(wanted)}"
        flags = ops.NARROW if narrow or names is None else 0
        args = {"path": os.path.join(os.getcwd(), text), "rights": rights.bits(wanted, ACCESS), "flags": flags}
        self._run("landlock_path", about, _PATH_CURES, args)

    def allow_port(self, port: int, names: Iterable[str] | None = None) -> None:
        """NAMES (None: all that is handled) on a TCP port; ``bind_tcp`` on 0 allows those the kernel chooses itself.

        ABI 4. Raises SpecError; StepFailed: EINVAL.
        """
        if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= PORT_MAX:
            raise SpecError(f"landlock port: {port!r} is not between 0 and {PORT_MAX}")
        wanted = self.network if names is None else rights.normal(tuple(names), NETWORK, f"landlock port {port}")
        args = {"port": port, "rights": rights.bits(wanted, NETWORK)}
        self._run("landlock_port", f"{port}: {' '.join(wanted)}", _PORT_CURES, args)

    def _run(self, call: str, about: str, cures: dict[int, str], args: dict[str, Any]) -> None:
        if not self._open:
            raise StepFailed(f"{call} {about}", EBADF, cure="the ruleset is closed")
        encoder = ops.Encoder()
        encoder.add("adopt", {"into": "rules", "fd": self.fd})
        encoder.add(call, {"ruleset": "rules", **args})
        try:
            ops.run(encoder, about)
        except StepFailed as err:
            raise StepFailed(err.what, err.errno or 0, cure=cures.get(err.errno or 0, "")) from err

    def __repr__(self) -> str:
        return f"<Ruleset {' '.join((*self.access, *self.network, *self.scopes))}{'' if self._open else ' closed'}>"


def ruleset(access: Iterable[str] = (), network: Iterable[str] = (), scopes: Iterable[str] = ()) -> Ruleset:
    """A ruleset that handles these rights: ACCESS to files, NETWORK ports (ABI 4), SCOPES (ABI 6).

    Handling ``refer`` or not, a file never comes into another directory but where a rule allows ``refer`` for both.
    Raises SpecError for words that are no rights, or none at all; StepFailed (EINVAL) for what this kernel cannot deny,
    which the error names.

    >>> with ruleset(ACCESS, NETWORK) as rules:
    ...     rules.allow_path("/usr", READ)
    ...     rules.allow_port(443, ["connect_tcp"])
    ...     process.no_new_privs()
    ...     restrict(rules)
    """
    wanted = (
        rights.normal(tuple(access), ACCESS, "landlock access"),
        rights.normal(tuple(network), NETWORK, "landlock network"),
        rights.normal(tuple(scopes), SCOPES, "landlock scopes"),
    )
    if not any(wanted):
        raise SpecError("landlock: a ruleset that handles nothing denies nothing: name rights or scopes")
    missing = lacking(*wanted)
    if missing:
        raise StepFailed("landlock_create_ruleset", EINVAL, cure="; ".join(missing.values()))
    return Ruleset(*wanted)


def restrict(rules: Ruleset, *, flags: int = 0) -> None:
    """The calling thread, and all it starts, may do only what RULES leave: for good. landlock_restrict_self(2).

    ``flags``: of LOG_SAME_EXEC_OFF, LOG_NEW_EXEC_ON, LOG_SUBDOMAINS_OFF (ABI 7). There is nothing to read it back from:
    that the kernel's answer was no error is the proof. Raises StepFailed: EPERM without no_new_privs or CAP_SYS_ADMIN,
    E2BIG for the 17th.
    """
    rules._run("landlock_restrict", "", _RESTRICT_CURES, {"flags": flags})


def probe() -> dict[str, Support]:
    """Whether a ruleset can be put in force: one that allows everything, in a child that ends at once."""
    from minictr.kernel.probing import tried

    return tried("landlock")
