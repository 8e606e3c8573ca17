"""Network devices of the calling thread's network namespace. netdevice(7), network_namespaces(7)."""

from __future__ import annotations

from minictr.errors import StepFailed
from minictr.kernel import ops
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.steps import Support

__all__ = ["Interface", "interfaces", "loopback_up", "probe"]

SIOCGIFFLAGS, SIOCGIFMTU, SIOCGIFHWADDR = 0x8913, 0x8921, 0x8927  # linux/sockios.h
IFF_UP, IFF_LOOPBACK = 0x1, 0x8  # linux/if.h
IFREQ = 40  # sizeof(struct ifreq)


class Interface(Value):
    """One device. ``flags`` are IFF_* of linux/if.h, ``mtu`` in bytes, ``address`` of its link layer."""

    index: int
    name: str
    flags: int
    mtu: int
    address: str

    @property
    def up(self) -> bool:
        return bool(self.flags & IFF_UP)

    @property
    def loopback(self) -> bool:
        return bool(self.flags & IFF_LOOPBACK)


def loopback_up() -> None:
    """Bring ``lo`` up; the kernel gives it 127.0.0.1 and ::1 by itself. SIOCSIFFLAGS, netdevice(7).

    Raises StepFailed: EPERM without CAP_NET_ADMIN over this network namespace.

    >>> with namespaces.unshare("net"):
    ...     loopback_up()
    """
    ops.execute("loopback_up", about="lo", cure="needs CAP_NET_ADMIN over this network namespace")


def interfaces() -> tuple[Interface, ...]:
    """The devices of the calling thread's network namespace, by index. if_nameindex(3), netdevice(7).

    Asked of the kernel by socket: /sys/class/net shows those of whoever mounted that sysfs. Raises StepFailed.
    """
    import socket

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            return tuple(_interface(sock.fileno(), index, name) for index, name in socket.if_nameindex())
    except OSError as err:
        raise StepFailed("list network devices", err.errno or 0) from err


def _interface(sock: int, index: int, name: str) -> Interface:
    import sys
    from fcntl import ioctl

    def ask(request: int) -> bytes:
        return ioctl(sock, request, name.encode("utf-8", "surrogateescape").ljust(IFREQ, b"\0"))[16:]

    flags = int.from_bytes(ask(SIOCGIFFLAGS)[:2], sys.byteorder)
    mtu = int.from_bytes(ask(SIOCGIFMTU)[:4], sys.byteorder)
    return Interface(index, name, flags, mtu, ask(SIOCGIFHWADDR)[2:8].hex(":"))


def probe() -> dict[str, Support]:
    """Whether a network namespace's loopback can be brought up: done in a child that ends at once."""
    from minictr.kernel.probing import tried

    return tried("network")
