"""What a container is told of the host's resolv.conf."""

from __future__ import annotations

from pathlib import Path

import pytest

from minictr.errors import SpecError
from minictr.runtime.network.resolver import host_file, resolver_text

HOST = """# of the host
nameserver 127.0.0.53
nameserver 192.0.2.53
nameserver 2001:db8::53
nameserver fe80::1%eth0
; more
domain old.lan
search a.lan b.lan
options edns0 trust-ad
options ndots:3
sortlist 192.0.2.0/24
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "host").write_text(HOST)
    (tmp_path / "resolved").write_text("nameserver 198.51.100.1\nnameserver ::1\n")
    return {"path": str(tmp_path / "host"), "upstream": str(tmp_path / "resolved")}


def test_what_is_reached(files: dict[str, str]) -> None:
    text = resolver_text((), (), (), **files)  # type: ignore[arg-type]
    assert text.splitlines() == [
        "# 127.0.0.53, fe80::1%eth0 left out: not to be reached from this network",
        "nameserver 192.0.2.53",
        "nameserver 2001:db8::53",
        "search a.lan b.lan",
        "options edns0 trust-ad ndots:3",
        "sortlist 192.0.2.0/24",
    ]
    assert "2001:db8::53 " not in resolver_text((), (), (), six=False, **files).replace("2001:db8::53,", "")  # type: ignore[arg-type]
    assert "nameserver 2001" not in resolver_text((), (), (), six=False, **files)  # type: ignore[arg-type]
    whole = resolver_text((), (), (), loopback=True, **files)  # type: ignore[arg-type]
    assert whole.count("nameserver") == 4
    assert "127.0.0.53" in whole


def test_what_is_said_takes_its_place(files: dict[str, str]) -> None:
    text = resolver_text(("192.0.2.1",), (".",), ("rotate",), **files)  # type: ignore[arg-type]
    assert text.splitlines() == ["nameserver 192.0.2.1", "options rotate", "sortlist 192.0.2.0/24"]
    assert "search a.lan" in resolver_text(("192.0.2.1",), (), (), **files)  # type: ignore[arg-type]


def test_only_loopback(files: dict[str, str], tmp_path: Path) -> None:
    """Those that systemd-resolved asks; where that is not there none, and no stranger's."""
    Path(files["path"]).write_text("nameserver 127.0.0.53\nnameserver ::1\n")
    assert "nameserver 198.51.100.1\n" in resolver_text((), (), (), **files)  # type: ignore[arg-type]
    text = resolver_text((), (), (), path=files["path"], upstream=str(tmp_path / "nix"))
    assert text == "# 127.0.0.53, ::1 left out: not to be reached from this network\n"
    assert resolver_text((), (), (), path=str(tmp_path / "nix"), upstream=files["upstream"]) == ""


def test_odd_files(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(b"nameserver\n\xff\xfe\n  nameserver 192.0.2.1 trailing\n\n\nsearch\n")
    assert resolver_text((), (), (), path=str(path)) == "nameserver 192.0.2.1\n"
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(SpecError, match="longer than"):
        host_file(str(path))
