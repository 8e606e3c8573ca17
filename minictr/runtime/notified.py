"""A system call that waits for a function of the caller's, and what that function may answer.

.. code-block:: python

    def handler(call):
        if call.name == "mknod":
            return 0 if call.string(call.args[0]) == "/dev/mine" else mc.Errno("EPERM")
        return mc.CONTINUE
"""

from __future__ import annotations

from minictr.errors import SpecError, Unsupported, errno_name
from minictr.features.check import frozen
from minictr.features.filter_parts import errno_number
from minictr.kernel import seccomp_notify
from minictr.kernel.seccomp_notify import Gone, Notification, Refusal
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Handler = Callable[["Syscall"], "int | Errno | Continue"]

__all__ = ["CONTINUE", "Continue", "Errno", "Syscall", "decide"]

EPERM, ESRCH = 1, 3
X32_BIT = 0x40000000
# AUDIT_ARCH_*, linux/audit.h -> the name that filters have
ARCHES = {
    0xC000003E: "x86_64",
    0x40000003: "x86",
    0xC00000B7: "aarch64",
    0x40000028: "arm",
    0xC00000F3: "riscv64",
    0x80000016: "s390x",
    0x00000016: "s390",
}


class Errno(Value):
    """An answer: the call fails. ``number``: of errno(3), or its name ("EPERM")."""

    number: int | str

    def check(self) -> None:
        found = errno_number(self.number, "Errno")
        if not found:
            raise SpecError("Errno: 0 is no error: return 0 itself")
        frozen(self, "number", found)

    def __repr__(self) -> str:
        return f"Errno({errno_name(int(self.number))!r})"


class Continue:
    """An answer: the call is done as if nobody had been asked. ``mc.CONTINUE`` is the one there is.

    The kernel then reads again what pointers lead to, and the program may have changed it: it permits nothing that was
    decided by what a pointer leads to. It is for calls that other means will judge all the same. seccomp_unotify(2)
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "CONTINUE"


CONTINUE = Continue()


class Syscall:
    """A system call that waits for an answer: what an ``on_syscall`` function is given.

    ``number``, ``args`` (six unsigned numbers, of 32 bits on a 32-bit architecture), ``arch`` ("x86_64", "x86", "x32"
    ...); ``pid``: of the calling thread as this process counts, so that /proc/PID is its own while the call waits; 0
    where it lies in a pid namespace that this process does not see. ``name``: by libseccomp; else the number in digits.
    What reads or gives raises ProcessLookupError once the call waits no more.
    """

    def __init__(self, listener: int, found: Notification) -> None:
        self.id, self.pid, self.number, self.args = found.id, found.pid, found.number, found.args
        self.arch = ARCHES.get(found.arch, f"{found.arch:#x}")
        if self.arch == "x86_64" and found.number & X32_BIT:
            self.arch = "x32"
        self._listener, self._answered = listener, False

    @property
    def name(self) -> str:
        """ "mknod"."""
        try:
            from minictr.kernel.seccomp_library import name_of

            return name_of(self.number, self.arch) or str(self.number)
        except (Unsupported, SpecError):
            return str(self.number)

    @property
    def waits(self) -> bool:
        """Whether it still waits: its process may be killed, or a signal interrupt it (until Linux 5.19)."""
        return not self._answered and seccomp_notify.valid(self._listener, self.id)

    def signed(self, index: int) -> int:
        """Argument INDEX as a C int: a descriptor, AT_FDCWD."""
        value = self.args[index] & 0xFFFFFFFF
        return value - (1 << 32) if value >> 31 else value

    def read(self, address: int, size: int) -> bytes:
        """SIZE bytes, at most 1 MiB, of the program's memory; fewer where less is mapped.

        An address that the program has not is an OSError (EFAULT); what of that leaves the function is what the call
        fails with. PermissionError where the caller may not trace the program (ptrace(2)).
        """
        self._must_wait()
        return seccomp_notify.read(self._listener, self.id, self.pid, address, size)

    def string(self, address: int, limit: int = seccomp_notify.PATH_MAX) -> str:
        """The text up to a NUL at ADDRESS, as file names are decoded. As :meth:`read`; ENAMETOOLONG where there is no
        end in LIMIT bytes."""
        import os

        self._must_wait()
        return os.fsdecode(seccomp_notify.string(self._listener, self.id, self.pid, address, limit))

    def add_fd(self, fd: Any, *, at: int = -1, cloexec: bool = False, answer: bool = True) -> int:
        """Give the program a copy of FD, a descriptor or what has a ``fileno()``: its number there. Linux 5.9.

        The call returns that number at once (``return call.add_fd(file)``; FD can be closed); with ``answer=False`` it
        still waits for an answer. ``at``: the number that it takes, whatever was there; -1: the lowest free.
        ``cloexec``: it closes on exec. OSError EMFILE where the program may have no more.
        """
        self._must_wait()
        source = fd if isinstance(fd, int) else fd.fileno()
        number = seccomp_notify.add_fd(self._listener, self.id, source, at=at, cloexec=cloexec, send=answer)
        self._answered = answer
        return number

    def _must_wait(self) -> None:
        if self._answered:
            raise Gone(ESRCH, "the system call is answered")

    def __repr__(self) -> str:
        return f"<Syscall {self.name}({', '.join(map(hex, self.args))}) of {self.pid} on {self.arch}>"


def decide(call: Syscall, handler: Handler, keep: Callable[[BaseException], None]) -> None:
    """Answer CALL with what HANDLER says. What it raises is given to KEEP, and then the call fails with EPERM."""
    try:
        answer = handler(call)
        if not call._answered:
            seccomp_notify.respond(call._listener, call.id, **told(answer, call))
    except Refusal as err:
        seccomp_notify.respond(call._listener, call.id, error=err.errno or EPERM)
    except Gone:
        pass
    except BaseException as err:
        keep(err)
        if not call._answered:
            seccomp_notify.respond(call._listener, call.id, error=EPERM)
    finally:
        call._answered = True


def told(answer: Any, call: Syscall) -> dict[str, Any]:
    """ANSWER as ``seccomp_notify.respond`` has it. TypeError for what is none: a function that forgets to return."""
    if answer is CONTINUE:
        return {"proceed": True}
    if isinstance(answer, Errno):
        return {"error": answer.number}
    if isinstance(answer, int) and not isinstance(answer, bool):
        return {"value": answer}
    raise TypeError(f"on_syscall answered {call.name} by {answer!r}, not by a number, mc.Errno(...) or mc.CONTINUE")
