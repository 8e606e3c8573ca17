"""The loopback device of a network namespace, by packets."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from minictr.errors import StepFailed
from minictr.kernel import namespaces, network


def exchange() -> bytes:
    """What a socket on 127.0.0.1 gets from another one."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        server.settimeout(2)
        client.sendto(b"through lo", server.getsockname())
        return server.recv(64)


def test_down_at_first_then_up(in_child: Any) -> None:
    def body() -> Any:
        with namespaces.unshare("net"):
            before = network.interfaces()
            with pytest.raises(OSError, match="unreachable|assign"):
                exchange()
            network.loopback_up()
            return before, network.interfaces(), exchange()

    before, after, got = in_child(body)
    lo = before[0]
    assert (lo.name, lo.index, lo.up, lo.loopback, lo.address) == ("lo", 1, False, True, "00:00:00:00:00:00")
    assert [device.name for device in after if device.up] == ["lo"]
    assert got == b"through lo"


def test_it_is_the_threads_namespace_that_is_listed(in_child: Any) -> None:
    """Not that of whoever mounted /sys."""

    def body() -> tuple[set[str], set[str]]:
        with namespaces.unshare("net"):
            inside = {device.name for device in network.interfaces() if device.up}
        return inside, {device.name for device in network.interfaces()}

    inside, outside = in_child(body)
    assert inside == set()
    assert outside == {name for _, name in socket.if_nameindex()}


def test_again_is_no_mistake(in_child: Any) -> None:
    def body() -> bool:
        with namespaces.unshare("net"):
            network.loopback_up()
            network.loopback_up()
            return next(device.up for device in network.interfaces() if device.loopback)

    assert in_child(body)


def test_an_ordinary_user_may_not(as_nobody: Any) -> None:
    def body() -> str:
        with pytest.raises(StepFailed) as caught:
            network.loopback_up()
        return str(caught.value)

    words = as_nobody(body)
    assert "EPERM" in words
    assert "CAP_NET_ADMIN" in words


def test_mtu_and_address() -> None:
    for device in network.interfaces():
        assert device.mtu > 0
        assert device.address.count(":") == 5
