"""The counter and what its counts are priced as: against what programs are known to do."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from bench import counting
from bench.micro import program


def counted(home: Path, *words: str) -> tuple[int, dict[str, float]]:
    code, found, _ = traced(home, *words)
    return code, found


def traced(home: Path, *words: str) -> tuple[int, dict[str, float], str]:
    """Exit code, counts, and what the program said."""
    out = home / "counts"
    command = [f"{home}/counter", str(out), "--", *words]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60, text=True)
    return done.returncode, program.counted(out.read_text()), done.stdout


def micro(home: Path, bursts: int, *names: str) -> tuple[int, dict[str, float], dict[str, int]]:
    """The micro program counted; how often it did each of NAMES in all, as it tells."""
    words = ("--data", f"{home}/data", "--scratch", f"{home}/work", "--bursts", str(bursts), *names)
    code, found, said = traced(home, f"{home}{program.PROGRAM}", *words)
    return code, found, {name: bursts * one.calls for name, one in program.parsed(said).items()}


def test_the_counter_counts_what_is_known(programs: Path) -> None:
    """3 bursts of so many calls each, and what the program itself needs beside them."""
    names = ("getppid", "personality", "create_unlink", "append_64k", "fork_exec", "mmap", "read_4k", "pipe", "socket")
    code, found, made = micro(programs, 3, *names)
    assert code == 0 and made.keys() == set(names) and min(made.values()) > 0
    assert found["judged"] == made["personality"]
    assert made["getppid"] <= found["other"] < made["getppid"] + 300
    assert made["mmap"] <= found["munmap"] < made["mmap"] + 20 and found["wait"] >= made["fork_exec"]
    assert found["unlink"] == found["create"] == made["create_unlink"] + 3  # append_64k makes a file for each burst
    assert found["exec"] == made["fork_exec"] + 1  # itself
    assert made["fork_exec"] + 1 <= found["fork_call"] <= made["fork_exec"] + 2  # pipe has a partner
    assert found["write_file_8"] == made["append_64k"] and found["write_file_8_bytes"] == made["append_64k"] * 65536
    assert made["read_4k"] <= found["read_file_6"] < made["read_4k"] + 20
    assert 0 <= found["read_file_6_bytes"] - made["read_4k"] * 4096 < 9000
    for way in ("read", "write"):  # both ends of the pipes are counted
        assert 2 * made["pipe"] - 2 <= found[f"{way}_pipe_0"] <= 2 * made["pipe"]
        assert found[f"{way}_local_0"] == made["socket"]
    assert not any(name.startswith(("read_inet", "write_inet")) for name in found)
    assert made["mmap"] <= found["mmap"] < made["mmap"] + 20


def test_the_counter_tells_sockets_of_the_internet_and_their_turns(programs: Path) -> None:
    """A byte there and back, so often, over TCP and UDP; each half is one process that is followed."""
    code, found, made = micro(programs, 2, "tcp_rr", "tcp_crr")
    assert code == 0
    rounds, connections = made["tcp_rr"] + 2, made["tcp_crr"] + 2  # and one in front of each burst
    there = rounds + connections
    assert found["accept"] == 2 + connections
    assert there <= found["turns"] <= 2 * there  # the server's; the client sends its kind first, and turns as often
    assert found["write_inet_0"] == 2 * there + 2 + connections, "each half's byte, and one for each connection"
    assert abs(found["read_inet_0"] - found["write_inet_0"]) <= 2
    assert not any(name.startswith("write_file") for name in found), "nothing of it is a file's"


def test_what_openssl_and_dd_wrote_is_counted_by_size(programs: Path, requires) -> None:
    """openssl writes 4 KiB at a time, whatever is said of it; dd what it is told."""
    requires("openssl", "dd")
    size = 1 << 20
    (programs / "input").write_bytes(os.urandom(size))
    words = ("-pbkdf2", "-S", "6d696e69637472ff", "-pass", "pass:x", "-in", f"{programs}/input")
    code, found = counted(programs, "openssl", "enc", "-aes-256-cbc", *words, "-out", f"{programs}/output")
    assert code == 0
    written = {name: times for name, times in found.items() if re.fullmatch(r"write_file_\d+", name)}
    assert sum(found[f"{name}_bytes"] for name in written) == os.path.getsize(programs / "output")
    assert written["write_file_6"] >= size / 4096 and found["write_file_6_bytes"] >= size
    made = counting.operations(found)
    assert made["append_4k"] == pytest.approx(size / 4096, abs=2) and made["append_1"] < 3
    code, found = counted(programs, "dd", f"if={programs}/input", f"of={programs}/output", "bs=128K", "status=none")
    assert (code, found["write_file_9"], found["write_file_9_bytes"]) == (0, size / 131072, size)
    assert counting.operations(found)["append_64k"] == size / 65536
    code, found = counted(programs, "dd", f"if={programs}/input", f"of={programs}/output", "bs=1", "count=99")
    assert found["write_file_0"] == found["write_file_0_bytes"] == 99
    assert counting.operations(found)["append_1"] == pytest.approx(99, abs=1)


def test_a_pipe_is_no_file(programs: Path) -> None:
    code, found = counted(
        programs, "sh", "-c", f"dd if=/dev/zero bs=64K count=16 2>{programs}/said | wc -c >{programs}/said2"
    )
    assert code == 0 and found["write_pipe_8"] == 16 and found["write_pipe_8_bytes"] == 1 << 20
    assert "write_file_8" not in found
    made = counting.operations(found)
    assert made["pipe"] >= 16 / 4 and made.get("append_64k", 0.0) == 0.0


def test_the_counter_ends_as_the_program_does(programs: Path) -> None:
    assert counted(programs, "sh", "-c", "exit 7")[0] == 7
    assert counted(programs, "sh", "-c", "kill -KILL $$")[0] == 128 + 9
    assert counted(programs, "/no/such/program")[0] == 127
    assert counted(programs, "sh", "-c", "kill -STOP $$ & kill -CONT $$; true")[0] == 0


def test_the_counter_follows_children_and_threads_of_them(programs: Path) -> None:
    code, found = counted(programs, "sh", "-c", "for i in 1 2 3; do sh -c 'cat /dev/null' & done; wait")
    assert code == 0 and found["fork_call"] >= 3 and found["exec"] >= 4


def test_one_process_of_so_many_stands_for_the_others(programs: Path) -> None:
    """200 children that read 8 KiB each, one in 4 of them traced: forks are exact, reads are near."""
    (programs / "bytes").write_bytes(b"x" * 8192)
    script = f"i=0; while [ $i -lt 200 ]; do head -c 8192 {programs}/bytes >/dev/null; i=$((i+1)); done"
    out = programs / "counts"
    command = [f"{programs}/counter", "--one-in", "4", str(out), "--", "sh", "-c", script]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
    found = program.counted(out.read_text())
    assert (found["fork_call"], found["exec"]) == (200, 201)
    assert found["read_file_7"] % 4 == 0 and 100 <= found["read_file_7"] <= 320
    assert found["wait"] >= 200, "the first process is traced always, and counts once"
    bad = subprocess.run([*command[:2], "0", *command[3:]], check=False, capture_output=True, timeout=60)
    assert bad.returncode == 125 and bad.stderr.startswith(b"usage: counter")


def test_operations_by_hand() -> None:
    raw = {
        "other": 10.0,
        "idle": 3.0,
        "open": 8.0,
        "create": 2.0,
        "unlink": 2.0,
        "close": 12.0,
        "munmap": 3.0,
        "mmap": 2.0,
        "exec": 3.0,
        "fork_call": 4.0,
        "wait": 5.0,
        "getdents": 6.0,
        "futex": 8.0,
        "judged": 1.0,
        "socket": 1.0,
        "accept": 2.0,
        "turns": 7.0,
        "write_file_6": 4.0,
        "write_file_6_bytes": 4 * 4096.0,
        "write_file_9": 1.0,
        "write_file_9_bytes": 2 * 65536.0,
        "write_pipe_3": 6.0,
        "write_pipe_3_bytes": 300.0,
        "read_pipe_3": 6.0,
        "read_local_0": 5.0,
        "write_inet_8": 11.0,
        "write_else_2": 1.0,
        "minflt": 100.0,
        "majflt": 0.0,
    }
    assert counting.operations(raw, received=65536.0, sent=131072.0) == {
        "getppid": 10.0 + 3.0 + 2.0 + 1.0 + 2.0 + 1.0 + 1.0,  # idle, accept, else; a close, a munmap, a wait too many
        "personality": 2.0,
        "open_close": 5.0,  # three are of directories
        "create_unlink": 2.0,
        "readdir": 3.0,
        "append_4k": 4.0,
        "append_64k": 2.0,
        "pipe": 3.0,
        "socket": 8.0,
        "mmap": 2.0,
        "futex": 2.0,
        "fork_exec": 3.0,
        "fork_exit": 1.0,
        "fault_anon": 100.0,
        "tcp_crr": 2.0,
        "tcp_rr": 7.0,
        "tcp_stream": 1.0,
        "tcp_maerts": 2.0,
    }
    assert not {"tcp_rr", "tcp_crr"} & counting.operations(raw).keys(), "nothing went over the cable"
    assert set(counting.operations(dict.fromkeys(raw, 1.0), 1.0, 1.0)) <= {*counting.PRICED, "major_fault"}


@pytest.mark.parametrize("size", [1, 17, 4095, 4096, 8192, 60_000, 65536, 300_000])
def test_sizes_keep_calls_and_bytes(size: int) -> None:
    place = next(place for place in range(counting.CLASSES) if size <= 4**place)
    raw = {f"read_file_{place}": 10.0, f"read_file_{place}_bytes": 10.0 * size}
    found = counting.sized(raw, "read", program.READS)
    assert all(times >= 0 for times in found.values())
    moved = sum(times * of for times, of in zip(found.values(), counting.SIZES))
    assert moved == pytest.approx(10 * size)
    assert sum(found.values()) == pytest.approx(max(10.0, 10 * size / 65536))
