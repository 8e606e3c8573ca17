"""The proxy of published ports: a small process that binds ports of this host and passes on what comes to them.

``_core/proxy.c``, a static program of 11 KB: TCP by splice(2), UDP with a socket for each client. It is nobody's child,
in a session of its own, without capabilities, and under a filter that leaves it its sockets; it ends when the process
does that it was started for. Linux 5.11 (close_range).
"""

from __future__ import annotations

import os
import select
import struct

from minictr.addresses import AF_INET, packed
from minictr.errors import StartTimeout, StepFailed
from minictr.kernel.core import ffi, lib
from minictr.kernel.handles import shut
from minictr.kernel.stub import PROXY, not_executed, sealed_proxy
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minictr.steps import Support

__all__ = ["Port", "probe", "spawn", "until_bound"]

TIMEOUT = 10.0  # seconds
PROTOCOLS = {"tcp": 6, "udp": 17}  # netinet/in.h
_HEAD, _PORT, _REPORT = struct.Struct("=IIIIii"), struct.Struct("=BBBxHH16s16s"), struct.Struct("=ii")


class Port(Value):
    """A socket of this host: ``protocol`` ("tcp", "udp"), ``address`` ("0.0.0.0", "::" for all), ``port``; what comes
    there goes to ``to``, port ``to_port``, of either kind of address."""

    protocol: str
    address: str
    port: int
    to: str
    to_port: int

    @property
    def bytes(self) -> Any:
        """struct mc_proxy_port."""
        (family, address), (to_family, to) = packed(self.address), packed(self.to)
        return _PORT.pack(PROTOCOLS[self.protocol], family, to_family, self.port, self.to_port, address, to)

    @property
    def told(self) -> str:
        """ "0.0.0.0:80/tcp"."""
        host = self.address if packed(self.address)[0] == AF_INET else f"[{self.address}]"
        return f"{host}:{self.port}/{self.protocol}"


def spawn(ports: Sequence[Port], watch: int, title: str = "") -> tuple[int, int, int]:
    """A proxy for PORTS, which ends when the process of the pidfd WATCH does: (its pid, its pidfd, the descriptor that
    :func:`until_bound` waits for), both the caller's to close. Not waited for: it binds while the caller goes on.

    In the calling thread's network namespace. TITLE: shown by ps. Raises StepFailed.
    """
    report, theirs = os.pipe()
    memory = -1
    try:
        memory = os.memfd_create("minictr-ports", os.MFD_CLOEXEC)
        size = _HEAD.size + len(ports) * _PORT.size
        head = _HEAD.pack(lib.MC_PROXY_MAGIC, lib.MC_PROXY_VERSION, size, len(ports), watch, theirs)
        os.write(memory, head + b"".join(port.bytes for port in ports))
        request = ffi.new("struct mc_spawn *")
        request.stub_fd, request.region_fd = sealed_proxy(), memory
        request.name = f"{PROXY} {title}".rstrip().encode("utf-8", "surrogateescape")[:63]
        listed = sorted((memory, watch, theirs))
        result = lib.mc_spawn_detached(request, listed, len(listed))
        if result < 0:
            raise StepFailed("clone3 of the proxy", -result)
        if request.exec_error:
            shut(request.pidfd)
            raise not_executed(request.exec_error)
        return int(request.pid), int(request.pidfd), report
    except OSError as err:
        shut(report)
        if isinstance(err, StepFailed):
            raise
        raise StepFailed("start the proxy", err.errno or 0) from err
    finally:
        for fd in (theirs, memory):
            if fd >= 0:
                shut(fd)


def until_bound(ports: Sequence[Port], report: int, timeout: float = TIMEOUT) -> None:
    """Wait until the proxy has all of PORTS and has given up its rights. Raises StepFailed: EADDRINUSE and the like
    name the port; StartTimeout after TIMEOUT seconds."""
    poll = select.poll()
    poll.register(report, select.POLLIN)
    if not poll.poll(max(timeout, 0) * 1000):
        raise StartTimeout("the proxy's answer", timeout)
    data = os.read(report, _REPORT.size)
    if len(data) < _REPORT.size:
        raise StepFailed("start the proxy", 0, cure="it was killed, or out of memory")
    error, place = _REPORT.unpack(data)
    if error:
        what = f"bind {ports[place].told}" if 0 <= place < len(ports) else "lock the proxy up"
        raise StepFailed(what, error, cure="RLIMIT_NOFILE: each port is one or two descriptors" if error == 24 else "")


def probe() -> dict[str, Support]:
    """Whether a proxy can be had: one that binds nothing, for this very process, ended at once."""
    from minictr.steps import Support

    ours = -1
    try:
        ours = os.pidfd_open(os.getpid())
        _, pidfd, report = spawn((), ours)
        try:
            until_bound((), report)
        finally:
            lib.mc_pidfd_send_signal(pidfd, 9, 0)
            for fd in (pidfd, report):
                shut(fd)
    except (StepFailed, StartTimeout, OSError) as err:
        return {"publish_proxy": Support(False, str(err))}
    finally:
        if ours >= 0:
            shut(ours)
    return {"publish_proxy": Support(True)}
