"""The probe's reading of a container, and what it calls a difference."""

from __future__ import annotations

import dataclasses

import pytest

from bench.lifecycle import probe
from bench.lifecycle.shape import DEVICES, FALLBACK, NAMESPACES

SHAPE = dataclasses.replace(FALLBACK, masks=("/proc/keys",), readonlys=("/proc/sys",))
MASK = f"{SHAPE.capability_mask:016x}"


def answer(**changes: str) -> str:
    """What the script prints in a container that is as planned, with some sections changed."""
    sections = {
        "status": f"CapInh:\t{0:016x}\nCapPrm:\t{MASK}\nCapEff:\t{MASK}\nCapBnd:\t{MASK}\nCapAmb:\t{0:016x}\n"
        "NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\nNSsid:\t1",
        "mounts": "60 50 8:1 /r / rw - ext4 /dev/x rw\n61 60 0:901 / /proc rw,nosuid - proc proc rw\n"
        "62 60 0:902 / /sys ro - sysfs sysfs ro\n63 60 0:903 / /dev rw - tmpfs tmpfs rw\n"
        "64 63 0:904 / /dev/pts rw - devpts devpts rw\n65 63 0:905 / /dev/shm rw - tmpfs shm rw\n"
        "66 63 0:906 / /dev/mqueue rw - mqueue mqueue rw\n67 61 0:903 /null /proc/keys ro - tmpfs tmpfs rw\n"
        "68 61 0:901 /sys /proc/sys ro - proc proc rw",
        "namespaces": "\n".join(
            [*(f"{name} {name}:[1]" for name in NAMESPACES)]
            + [f"{name} {probe.host_namespaces()[name]}" for name in ("user", "time")]
        ),
        "host": SHAPE.hostname,
        "loopback": "0x9",
        "limits": "Max core file size        0                    0                    bytes",
        "devices": "\n".join(f"/dev/{name}" for name in DEVICES),
        "init": "1\nsh",
        "sysctls": "\n".join(f"{name} {value}" for name, value in SHAPE.sysctls),
        "end": "",
    }
    return "".join(f"== {name}\n{changes.get(name, text)}\n" for name, text in sections.items())


def differences(**changes: str) -> list[str]:
    return probe.differences(probe.parse(answer(**changes)), SHAPE)


@pytest.fixture(autouse=True)
def _this_kernel_has_both_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.lexists", lambda path: True)


def test_a_container_as_planned_has_none() -> None:
    assert differences() == []


@pytest.mark.parametrize(
    ("section", "old", "new", "told"),
    [
        ("status", "Seccomp:\t2", "Seccomp:\t0", "Seccomp is 0, planned 2"),
        ("status", "NoNewPrivs:\t1", "NoNewPrivs:\t0", "NoNewPrivs is 0, planned 1"),
        (
            "status",
            f"CapBnd:\t{MASK}",
            "CapBnd:\t000001ffffffffff",
            f"CapBnd is 1ffffffffff, planned {int(MASK, 16):x}",
        ),
        ("status", "NSsid:\t1", "NSsid:\t0", "no session of its own"),
        ("mounts", " /proc/keys ro", " /elsewhere ro", "not mounted: /proc/keys"),
        ("mounts", " /proc/keys ro", " /elsewhere ro", "mounted as well: /elsewhere"),
        ("mounts", "/sys /proc/sys ro", "/sys /proc/sys rw", "writable: /proc/sys"),
        ("mounts", "0:901 /sys /proc/sys", "0:777 /sys /proc/sys", "the host's, bound: /proc/sys"),
        ("mounts", "/r / rw - ext4", "/r / rw shared:1 - ext4", "mounts propagate (shared)"),
        ("host", SHAPE.hostname, "elsewhere", "host name is 'elsewhere'"),
        ("loopback", "0x9", "0x8", "the loopback interface is down"),
        ("limits", "0   ", "unlimited   ", "core limit is unlimited"),
        ("devices", "/dev/tty", "/dev/kmsg", "device missing: tty"),
        ("devices", "/dev/tty", "/dev/kmsg", "device as well: kmsg"),
        ("init", "1\nsh", "2\ntini", "an init as pid 1 (tini): one process more"),
        (
            "sysctls",
            "ip_unprivileged_port_start 0",
            "ip_unprivileged_port_start 1024",
            "net.ipv4.ip_unprivileged_port_start is '1024', planned '0'",
        ),
    ],
)
def test_each_difference_is_named(section: str, old: str, new: str, told: str) -> None:
    whole = answer()
    body = whole.split(f"== {section}\n", 1)[1].split("\n== ", 1)[0]
    assert old in body
    assert told in differences(**{section: body.replace(old, new, 1)})


def test_a_namespace_of_the_host_is_named() -> None:
    shared = probe.host_namespaces()["net"]
    assert "the net namespace is the host's" in differences(
        namespaces="\n".join(f"{name} {shared if name == 'net' else name + ':[1]'}" for name in NAMESPACES)
    )


def test_a_probe_that_broke_off_proves_nothing() -> None:
    with pytest.raises(ValueError, match="did not come to its end"):
        probe.parse(answer().split("== limits")[0])
    with pytest.raises(ValueError, match="no output"):
        probe.parse("")


def test_many_paths_are_shortened() -> None:
    more = "".join(f"\n{90 + number} 61 0:903 / /m{number} rw - tmpfs tmpfs rw" for number in range(9))
    body = answer().split("== mounts\n", 1)[1].split("\n== ", 1)[0]
    assert "mounted as well: /m0, /m1, /m2, /m3 and 5 more" in differences(mounts=body + more)


def test_mount_points_with_escapes_are_read() -> None:
    found = probe.parse_mounts(r"60 50 8:1 /r /with\040space rw - ext4 /dev/x rw")
    assert found["/with space"].options == frozenset({"rw"})
