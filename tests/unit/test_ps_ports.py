"""The column of ports as docker's ps prints it."""

from __future__ import annotations

import pytest

from minictr.cli.ps import ports
from minictr.runtime.listing import Glance

EACH = ""


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([], ""),
        ([("tcp", EACH, 8080, 80)], "0.0.0.0:8080->80/tcp"),
        ([("tcp", EACH, 80, 80)], "0.0.0.0:80->80/tcp"),
        ([("tcp", EACH, port, port) for port in range(8000, 8010)], "0.0.0.0:8000-8009->8000-8009/tcp"),
        ([("tcp", EACH, 8001, 81), ("tcp", EACH, 8000, 80)], "0.0.0.0:8000->80/tcp, 0.0.0.0:8001->81/tcp"),
        ([("tcp", "2001:db8::1", 80, 80)], "[2001:db8::1]:80->80/tcp"),
        (
            [("udp", EACH, 53, 53), ("tcp", EACH, 53, 53), ("tcp", "127.0.0.1", 53, 53)],
            "0.0.0.0:53->53/tcp, 0.0.0.0:53->53/udp, 127.0.0.1:53->53/tcp",
        ),
        (
            [("tcp", EACH, 9, 9), ("tcp", EACH, 1, 1), ("tcp", EACH, 2, 2), ("tcp", EACH, 7, 3), ("udp", EACH, 2, 2)],
            "0.0.0.0:1-2->1-2/tcp, 0.0.0.0:9->9/tcp, 0.0.0.0:2->2/udp, 0.0.0.0:7->3/tcp",
        ),
    ],
)
def test_ports(rows: list[tuple[str, str, int, int]], text: str) -> None:
    assert ports(Glance("a" * 64, "running", ports=tuple(rows))) == text
