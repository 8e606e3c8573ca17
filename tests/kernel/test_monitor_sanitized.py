"""The monitor's C under AddressSanitizer and UBSan: built with libc around it, and put where the sealed one would be.

A fault ends it with code 99 and without an exit record. What is asked of it here is what moves bytes about: parts of
lines, rotation, a full disk, clients that come, go, and talk nonsense, final copies, a held start.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sources
from detached import Detached, logged
from waiting import eventually

from minictr.kernel import stub
from minictr.kernel.packets import send, unbound
from minictr.runtime.attach import Client, start

HOSTED = """
#define MC_HOSTED 1
const char *__asan_default_options(void) { return "detect_leaks=0:exitcode=99"; }
const char *__ubsan_default_options(void) { return "halt_on_error=1:exitcode=99"; }
#include "monitor.c"
int main(int argc, char **argv)
{
    long stack[3] = {argc, (long)argv[0], (long)argv[1]};
    %s
    mc_main(stack);
}
"""
FAULT = "static char few[4]; volatile int place = 5; few[place] = 1;"
FLAGS = ("-std=gnu11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture
def sanitized(tmp_path: Path, requires, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """``sanitized(extra)``: from now on this process's monitors are such ones, with EXTRA in front of their main."""
    opened: list[int] = []

    def build(extra: str = "") -> None:
        source, program = tmp_path / "hosted.c", tmp_path / "hosted"
        source.write_text(HOSTED % extra)
        core = sources.ROOT / "minictr" / "_core"
        subprocess.run([requires("gcc"), *FLAGS, f"-I{core}", "-o", program, source], check=True)
        opened.append(os.open(program, os.O_RDONLY | os.O_CLOEXEC))
        monkeypatch.setitem(stub._sealed, stub.MONITOR, (opened[-1], os.fstat(opened[-1]).st_ino))

    yield build
    for fd in opened:
        os.close(fd)


def test_the_sanitizer_is_there(detached: Callable[..., Detached], sanitized: Callable[..., None]) -> None:
    sanitized(FAULT)
    with pytest.raises(OSError, match="monitor"):
        detached(["true"]).spawn()


def test_all_that_moves_bytes(detached: Callable[..., Detached], sanitized: Callable[..., None]) -> None:
    sanitized()
    script = "cat; printf 'no end'; head -c 100000 /dev/urandom; seq 30000 >&2; head -c 70000 /dev/zero"
    proc = os.open("/proc/self", os.O_PATH)
    one = detached(
        ["bash", "-c", script],
        hold=True,
        log_max=200_000,
        log_files=30,
        finals=[(proc, "smaps", "final/of/smaps"), (proc, "nothing", "final/nothing")],
        command=["/bin/true", "x" * 1000],
        env=["NAME=" + "y" * 1000],
        title="z" * 100,
    ).start(stdin=True)
    os.close(proc)
    for packet in (b"a", b"w\0", b"wxxxx", b"s?", b"e", b"i", b"\xff" * 100, b"i" + bytes(16384), b"i" + bytes(20000)):
        raw = unbound()
        raw.connect(str(one.state / "attach"))
        send(raw, packet)
        raw.close()
    with Client(str(one.state)) as client, Client(str(one.state)) as other, Client(str(one.state)) as gone:
        for each in (client, other, gone):
            each.attach(stdin=True)
        start(client)
        gone.close()
        other.send(b"x" * 16384)
        client.send(b"some\n" * 1000)
        client.end_of_input()
        thread = threading.Thread(target=other.wait, args=(20,))
        thread.start()
        assert client.wait(20) == 0
        thread.join(20)
        assert other.status == 0
    assert one.exit().status == 0
    assert logged(one.state).endswith(bytes(70000))
    eventually((one.state / "final" / "of" / "smaps").exists)


def test_a_disk_that_is_full(detached: Callable[..., Detached], sanitized: Callable[..., None]) -> None:
    """/dev/full takes nothing, and cannot be cut."""
    sanitized()
    full = os.open("/dev/full", os.O_WRONLY)
    one = detached(["seq", "10000"], log=full).start()
    os.close(full)
    assert one.exit().lost == len("".join(f"{number}\n" for number in range(1, 10001)))
