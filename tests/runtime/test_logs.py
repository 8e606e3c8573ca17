"""The log of a detached container: every byte, in order, across rotations, on full disks, while it is written."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detached import Detached, logged, over
from waiting import eventually

import minictr as mc
from minictr.errors import StepFailed
from minictr.kernel import namespaces
from minictr.runtime.logs import read

Make = Callable[..., Detached]
LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr|minictr) [FP] ")


def entries(state: Path, name: str = "log") -> list[bytes]:
    return (state / name).read_bytes().removesuffix(b"\n").split(b"\n")


def written(state: Path, text: str, name: str = "log") -> None:
    state.mkdir(exist_ok=True)
    (state / name).write_text(text)


def stamped(second: int, word: str, *, stream: str = "stdout", tag: str = "F") -> str:
    return f"2026-11-24T07:55:{second:02}.123456789Z {stream} {tag} {word}\n"


SECOND = 1_795_506_900_123_456_789  # 2026-11-24T07:55:00.123456789Z


# --- what the monitor writes ---


def test_the_format(detached: Make) -> None:
    """Kubernetes' CRI format, as kubectl, fluent-bit and promtail read it."""
    begun = time.time_ns()
    one = detached(["bash", "-c", "echo one; sleep 0.1; echo two >&2; sleep 0.1; printf part; sleep 0.1; echo ' rest'"])
    one.start().exit()
    lines = entries(one.state)
    assert all(LINE.match(line) for line in lines)
    assert [line[31:] for line in lines] == [b"stdout F one", b"stderr F two", b"stdout P part", b"stdout F  rest"]
    times = [piece[0] for piece in read(str(one.state))]
    assert begun < times[0] < times[1] < times[3] < time.time_ns()


def test_it_is_the_time_of_day() -> None:
    """The two calendars, C's and ours, are libc's."""
    from minictr.runtime.logs import _seconds

    for seconds in (0, 951_782_400, 951_868_800, 1_709_164_800, 1_735_689_599, 4_107_542_400, 7_258_118_399):
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode()
        assert _seconds(text) == seconds


@pytest.mark.parametrize("terminal", [False, True])
def test_ten_megabytes(detached: Make, box: mc.Container, tmp_path: Path, terminal: bool) -> None:
    """Binary, with lines longer than any buffer and parts of lines: what comes out is what went in."""
    data = os.urandom(3_000_000) + b"x" * 1_000_000 + b"\n" * 100_000 + b"a line\n" * 850_000 + b"no end"
    if terminal:
        data = b"a line\n" * 300_000 + b"x" * 1_000_000 + b"no end"
    (tmp_path / "data").write_bytes(data)
    which = box.with_(mc.Bind(str(tmp_path / "data"), "/mnt/ten-megabytes"), *([mc.Tty()] if terminal else []))
    one = detached(["cat", "/mnt/ten-megabytes"], which).start()
    one.exit(60)
    assert logged(one.state).replace(b"\r\n", b"\n") == data if terminal else logged(one.state) == data
    assert all(LINE.match(line) for line in entries(one.state))


def test_streams_keep_their_order(detached: Make) -> None:
    script = "for i in {1..50}; do echo out $i; sleep 0.002; echo err $i >&2; sleep 0.002; done"
    one = detached(["bash", "-c", script]).start()
    one.exit()
    assert logged(one.state) == b"".join(b"out %d\n" % i for i in range(1, 51))
    assert logged(one.state, "stderr") == b"".join(b"err %d\n" % i for i in range(1, 51))
    times = [piece[0] for piece in read(str(one.state))]
    assert times == sorted(times)


def test_no_log_at_all(detached: Make) -> None:
    one = detached(["seq", "100000"], log=-1).start()
    assert one.exit().lost == 0
    assert (one.state / "log").read_bytes() == b""


# --- rotation ---


def test_rotation(detached: Make) -> None:
    """By size, the oldest lost, each file whole entries."""
    one = detached(["seq", "20000"], log_max=100_000, log_files=4).start()
    one.exit()
    files = sorted(path.name for path in one.state.glob("log*"))
    assert files == ["log", "log.1", "log.2", "log.3"]
    for name in files:
        assert (one.state / name).stat().st_size <= 100_000
        assert (one.state / name).read_bytes().endswith(b"\n")
        assert all(LINE.match(line) for line in entries(one.state, name))
    kept = logged(one.state)
    whole = b"".join(b"%d\n" % number for number in range(1, 20001))
    assert whole.endswith(kept)
    assert len(kept) > 4 * 6 * 1700 // 2


def test_one_file_alone(detached: Make) -> None:
    one = detached(["seq", "20000"], log_max=50_000, log_files=1).start()
    one.exit()
    assert [path.name for path in one.state.glob("log*")] == ["log"]
    assert (one.state / "log").stat().st_size <= 50_000
    assert logged(one.state).endswith(b"\n20000\n")


def test_an_entry_that_is_longer_than_a_file(detached: Make) -> None:
    script = "for i in {1..20}; do head -c 5000 /dev/zero; echo; done"
    one = detached(["bash", "-c", script], log_max=1000, log_files=30).start()
    one.exit()
    kept = logged(one.state)
    assert (bytes(5000) + b"\n").join([b""] * 21).endswith(kept)
    assert len(kept) > 50_000


@pytest.mark.parametrize("follow", [False, True])
def test_nothing_is_lost_across_rotations(detached: Make, follow: bool) -> None:
    """Parts of lines too; a reader who follows sees each file through to its end before the next."""
    script = "for ((i = 0; i < 3000; i++)); do printf 'part %d' $i; echo ' rest'; done"
    one = detached(["bash", "-c", script], log_max=20_000, log_files=1000)
    one.spawn()
    outcome: list[bytes] = []

    def collect() -> None:
        outcome.append(b"".join(data for _, _, data in read(str(one.state), follow=True)))

    thread = threading.Thread(target=collect)
    if follow:
        thread.start()
    one.let_go()
    one.commit()
    one.exit()
    if follow:
        thread.join(20)
        assert not thread.is_alive(), "it ends with the container"
    else:
        collect()
    assert outcome[0] == b"".join(b"part %d rest\n" % i for i in range(3000))
    assert len(list(one.state.glob("log.*"))) > 5


# --- full disks ---


def test_a_full_disk(in_namespace: Callable[..., Any], detached: Make, tmp_path: Path) -> None:
    """The container never waits for it. What could not be logged is counted, and told when there is room."""

    def body() -> None:
        state = tmp_path / "state0"
        state.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(state)], check=True)
        script = "seq 100000; echo ready >&2; read x; seq 100001 100010; sleep 0.1; echo end"
        one = detached(["bash", "-c", script])
        try:
            one.start(stdin=True)
            began = time.monotonic()
            ballast = state / "ballast"
            eventually(lambda: waits_for_input(one.pid), 30)
            assert time.monotonic() - began < 20
            first = logged(state)
            assert b"".join(b"%d\n" % number for number in range(1, 100001)).startswith(first[:10000])
            assert all(LINE.match(line) for line in entries(state))
            assert (state / "log").read_bytes().endswith(b"\n"), "no half entry stays"
            subprocess.run(["mount", "-o", "remount,size=2M", str(state)], check=True)
            assert not ballast.exists()
            from minictr.runtime.attach import Client

            with Client(str(state)) as client:
                client.attach(stdin=True)
                client.send(b"\n")
                client.wait(10)
            found = one.exit()
            told = [data for _, stream, data in read(str(state)) if stream == "minictr"]
            counts = [
                re.fullmatch(rb"(\d+) lines \((\d+) bytes\) of output could not be logged\n", line) for line in told
            ]
            assert sum(int(count[2]) for count in counts if count) == found.lost > 100_000
            assert len(told) < 10, "a few, where the rest of the last page took something small"
            kept = logged(state) + logged(state, "stderr")
            assert len(kept) + found.lost == sum(len(b"%d\n" % n) for n in range(1, 100011)) + len("ready\nend\n")
            assert logged(state).endswith(b"100010\nend\n")
        finally:
            one.close()

    in_namespace(body)


def test_full_to_the_end(in_namespace: Callable[..., Any], detached: Make, tmp_path: Path) -> None:
    """The exit record is written all the same: its bytes were on the disk before."""

    def body() -> None:
        state = tmp_path / "state0"
        state.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=8", "tmpfs", str(state)], check=True)
        finals = os.open("/proc/self", os.O_PATH)
        one = detached(["seq", "100000"], log_max=20_000, log_files=3, finals=[(finals, "status", "final/status")])
        os.truncate(state / "log", 0)
        try:
            found = one.start().exit()
            assert found.status == 0
            assert found.lost > 100_000
        finally:
            os.close(finals)
            one.close()

    in_namespace(body)


def waits_for_input(pid: int) -> bool:
    """Whether bash, PID's child, has come to its `read`."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        child = file.read().split()
    if not child:
        return False
    with open(f"/proc/{child[0]}/syscall") as file:
        return file.read().split()[:2] == ["0", "0x0"] or os.uname().machine != "x86_64"


@pytest.fixture
def in_namespace(requires: Any) -> Callable[..., Any]:
    """In a forked child with a mount namespace of its own."""
    requires.root()

    def run(function: Callable[[], None]) -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                namespaces.unshare("mnt").keep()
                function()
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0

    return run


# --- reading ---


def test_following_sees_a_part_at_once(detached: Make) -> None:
    """A prompt is there while the program waits behind it."""
    one = detached(["bash", "-c", "printf 'name? '; read x; echo hello $x"]).start(stdin=True)
    log = read(str(one.state), follow=True)
    assert next(log)[1:] == ("stdout", b"name? ")
    from minictr.runtime.attach import Client

    with Client(str(one.state)) as client:
        client.attach(stdin=True)
        client.send(b"you\n")
    assert [piece[2] for piece in log] == [b"hello you\n"]


@pytest.mark.parametrize("victim", ["container", "monitor", "directory"])
def test_following_ends(detached: Make, victim: str, tmp_path: Path) -> None:
    one = detached(["bash", "-c", "echo on; exec sleep 1000"]).start()
    log = read(str(one.state), follow=True)
    assert next(log)[2] == b"on\n"
    if victim == "container":
        os.kill(one.pid, signal.SIGKILL)
    elif victim == "monitor":
        os.kill(one.monitor_pid, signal.SIGKILL)
    else:
        os.rename(one.state, tmp_path / "elsewhere")
        for path in (tmp_path / "elsewhere").iterdir():
            path.unlink()
    began = time.monotonic()
    assert list(log) == []
    assert time.monotonic() - began < 5
    if victim == "monitor":
        assert not over(one.pidfd, 0)


def test_following_is_quick(detached: Make) -> None:
    """By inotify, not by looking now and then."""
    one = detached(["bash", "-c", "read x; for i in {1..20}; do date +%s%N; sleep 0.05; done"]).start(stdin=True)
    delays: list[float] = []

    def collect() -> None:
        delays.extend(time.time_ns() - int(data) for _, _, data in read(str(one.state), follow=True))

    thread = threading.Thread(target=collect)
    thread.start()
    from minictr.runtime.attach import Client

    with Client(str(one.state)) as client:
        client.attach(stdin=True)
        client.send(b"\n")
    thread.join(20)
    assert len(delays) == 20
    assert sorted(delays)[10] < 50_000_000


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 7, 8, 100])
def test_tail(tmp_path: Path, lines: int) -> None:
    """Of whole lines, across files; what follows the last whole one is a line too."""
    words = [f"line {number}" for number in range(8)]
    written(tmp_path, "".join(stamped(number, words[number]) for number in range(3)), "log.2")
    written(tmp_path, stamped(3, words[3]) + stamped(4, "li", tag="P"), "log.1")
    written(tmp_path, stamped(4, "ne 4") + "".join(stamped(number, words[number]) for number in range(5, 8)))
    got = b"".join(data for _, _, data in read(str(tmp_path), tail=lines))
    assert got.decode().splitlines() == (words[-lines:] if lines else [])
    with open(tmp_path / "log", "a") as file:
        file.write(stamped(9, "prompt>", tag="P"))
    got = b"".join(data for _, _, data in read(str(tmp_path), tail=lines))
    assert got.decode().splitlines() == ([*words, "prompt>"][-lines:] if lines else [])


def test_tail_of_much(tmp_path: Path) -> None:
    """Blocks, and entries longer than a block."""
    words = ["x" * (number * 7919 % 200_000) for number in range(60)]
    written(tmp_path, "".join(stamped(number, word) for number, word in enumerate(words)))
    for lines in (1, 5, 59, 60, 61):
        got = b"".join(data for _, _, data in read(str(tmp_path), tail=lines))
        assert got.decode().splitlines() == words[-lines:]


def test_since_and_until(tmp_path: Path) -> None:
    written(tmp_path, "".join(stamped(number, str(number)) for number in range(10)))
    at = [SECOND + number * 1_000_000_000 for number in range(10)]
    assert [piece[0] for piece in read(str(tmp_path))] == at

    def words(**options: int) -> str:
        return b"".join(data for _, _, data in read(str(tmp_path), **options)).decode().replace("\n", "")

    assert words(since=at[7]) == "789"
    assert words(since=at[7] + 1) == "89"
    assert words(until=at[2]) == "012"
    assert words(since=at[3], until=at[5]) == "345"
    assert words(since=at[3], tail=2) == "89"
    assert words(since=at[9] + 1) == ""


def test_a_cut_last_entry(tmp_path: Path) -> None:
    """A monitor was killed, or the machine: what is there is shown, and what is no entry is passed over."""
    whole = stamped(1, "one") + "garbage\n\n" + stamped(2, "two", stream="stderr")
    for cut in ("2026-11-24T07:5", "2026-11-24T07:55:03.123456789Z", "2026-11-24T07:55:03.123456789Z stdout F "):
        written(tmp_path, whole + cut)
        assert [piece[1:] for piece in read(str(tmp_path))] == [("stdout", b"one\n"), ("stderr", b"two\n")]
    written(tmp_path, whole + stamped(3, "thr").rstrip("\n"))
    assert [piece[2] for piece in read(str(tmp_path))] == [b"one\n", b"two\n", b"thr"]


def test_a_moment_between_two_renames(tmp_path: Path) -> None:
    written(tmp_path, stamped(1, "one"), "log.2")
    written(tmp_path, stamped(2, "two"), "log")
    assert [piece[2] for piece in read(str(tmp_path))] == [b"one\n", b"two\n"]
    os.rename(tmp_path / "log", tmp_path / "log.1")
    assert [piece[2] for piece in read(str(tmp_path))] == [b"one\n", b"two\n"]


def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="no log"):
        list(read(str(tmp_path)))
    with pytest.raises(StepFailed, match="ENOENT"):
        list(read(str(tmp_path / "missing")))
