"""A container's proxy: started with it, ended with it, started again by ``network repair``."""

from __future__ import annotations

from minictr.errors import SpecError, StepFailed
from minictr.kernel.core import lib
from minictr.kernel.handles import shut
from minictr.runtime.identity import ProcessIdentity
from minictr.runtime.process import is_over

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minictr.kernel.publish_proxy import Port
    from minictr.runtime.network.attachment import Attachment

__all__ = ["end", "identity", "of_journal", "restart", "start", "until_bound"]

EADDRINUSE, SIGKILL = 98, 9
KILL_TIMEOUT = 5.0  # seconds


def ports_of(own: Attachment) -> list[Port]:
    """The sockets that OWN's ports are: of both kinds where no address was named."""
    from minictr.kernel.publish_proxy import Port

    nic = own.nics[0]
    found = []
    for protocol, ip, port, to_port in own.ports:
        for address in (ip,) if ip else ("0.0.0.0", "::") if has_ipv6() else ("0.0.0.0",):
            to = nic.address6 if ":" in address and nic.address6 else nic.address
            found.append(Port(protocol, address, port, to, to_port))
    return found


def has_ipv6() -> bool:
    """Whether this network namespace has IPv6 at all."""
    from minictr.kernel import procfs

    try:
        return procfs.read("sys", "net/ipv6/conf/all/disable_ipv6").strip() == "0"
    except StepFailed:
        return False  # a kernel without


def start(own: Attachment, watch: int) -> tuple[ProcessIdentity, int]:
    """A proxy of OWN's ports, that ends with the process of the pidfd WATCH: who it is, and the descriptor that
    :func:`until_bound` takes, the caller's to close. Should we be killed before it is written down, that process ends,
    and it with it."""
    from minictr.kernel.publish_proxy import spawn

    pid, pidfd, report = spawn(ports_of(own), watch, own.whose.partition(" ")[2])
    try:
        who = ProcessIdentity.of(pid)
        own.journal.write_ahead(("proxy", who.pid, who.start, who.boot))
    except BaseException as err:
        lib.mc_pidfd_send_signal(pidfd, SIGKILL, 0)
        is_over(pidfd, KILL_TIMEOUT)
        try:
            if isinstance(err, ProcessLookupError):
                until_bound(own, report, KILL_TIMEOUT)  # why it left
                raise StepFailed("start the proxy", 0, cure="it was killed, or out of memory") from err
        finally:
            shut(report)
        raise
    finally:
        shut(pidfd)
    return who, report


def until_bound(own: Attachment, report: int, timeout: float) -> None:
    """Wait for it. Raises SpecError for a port that somebody else has meanwhile, StepFailed, StartTimeout."""
    from minictr.kernel.publish_proxy import until_bound as bound

    try:
        bound(ports_of(own), report, timeout)
    except StepFailed as err:
        if err.errno != EADDRINUSE:
            raise
        cure = "another program has it (EADDRINUSE): publish another port, or end that program"
        raise SpecError(f"--publish-proxy: {err.what}: {cure}") from err


def restart(own: Attachment, container: ProcessIdentity) -> bool:
    """One that is gone is there again, as long as the process CONTAINER is; whether it was gone."""
    who = of_journal(own.journal.rows())
    if who is not None and who.alive:
        return False
    watch = container.pidfd()
    try:
        _, report = start(own, watch)
    finally:
        shut(watch)
    try:
        until_bound(own, report, 10.0)
    finally:
        shut(report)
    return True


def of_journal(rows: Sequence[tuple[str, ...]]) -> ProcessIdentity | None:
    """The proxy that was started last, by ROWS of a journal."""
    found = [identity(row[1:]) for row in rows if row[0] == "proxy"]
    return found[-1] if found else None


def identity(words: Sequence[str]) -> ProcessIdentity:
    """The process that the words of a journal's row name; nobody where they are not ours."""
    good = len(words) == 3 and words[0].isdecimal() and words[1].isdecimal()
    return ProcessIdentity(int(words[0]), int(words[1]), words[2]) if good else ProcessIdentity(0, 0, "")


def end(who: ProcessIdentity) -> bool:
    """WHO ends, and has given its ports back; whether it was there."""
    from minictr.runtime.reclaim import kill

    return who.pid > 0 and kill(who)
