"""Starts from many threads, from a thread in other namespaces, and from a process with a large heap."""

from __future__ import annotations

import os
import threading
import time

import minictr as mc


def each(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def test_eight_threads_start_at_once(box):
    """Concurrent clones copy one another's descriptors: no container may hold another one's pipe open."""
    barrier = threading.Barrier(8)
    done: list[tuple[int, bytes, int]] = []

    def work(number: int) -> None:
        barrier.wait()
        for turn in range(5):
            text = f"{number} {turn}".encode()
            result = box.run(["cat"], input=text, stdout=mc.PIPE)
            done.append((result.returncode, result.stdout, len(result.timeline.rows)))
            assert result.stdout == text

    each([threading.Thread(target=work, args=(number,)) for number in range(8)])
    assert len(done) == 40
    assert len({rows for _, _, rows in done}) == 1


def test_eight_threads_make_one_start_program():
    """The first start of a process makes the sealed program: once, whoever is first."""
    from test_streams import run_python  # type: ignore[import-not-found]

    program = (
        "import minictr as mc, threading, os, sys\n"
        "b = threading.Barrier(8)\n"
        "def work(): b.wait(); mc.run(['true'])\n"
        "ts = [threading.Thread(target=work) for _ in range(8)]\n"
        "[t.start() for t in ts]; [t.join() for t in ts]\n"
        "names = [f'/proc/self/fd/{n}' for n in os.listdir('/proc/self/fd')]\n"
        "fds = [os.readlink(name) for name in names if os.path.lexists(name)]  # all but listdir's own\n"
        "print(sum('minictr-init' in fd for fd in fds))"
    )
    assert run_python(program).stdout == "1\n"


def test_a_thread_in_namespaces_of_its_own(box, sh):
    """Namespaces are a thread's: what it entered, its containers inherit; the other threads' do not."""
    seen: dict[str, str] = {}
    plain = box.without("uts")

    def work() -> None:
        with mc.unshare("uts"):
            mc.sethostname("in-a-thread")
            seen["thread"] = sh(plain, "uname -n")
        seen["after"] = sh(plain, "uname -n")

    each([threading.Thread(target=work)])
    assert seen == {"thread": "in-a-thread", "after": os.uname().nodename}
    assert sh(plain, "uname -n") == os.uname().nodename


def test_a_thread_that_ends_does_not_end_its_container(box):
    """PR_SET_PDEATHSIG is about the thread, not the process (prctl(2)): it is taken back once the program runs."""
    found: list[mc.Process] = []
    for without in ((), ("init",)):
        each([threading.Thread(target=lambda w=without: found.append(box.without(*w).popen(["sleep", "100"])))])
    time.sleep(0.1)
    for process in found:
        with process:
            assert process.poll() is None


def test_a_large_heap_costs_nothing(box):
    """The child shares the memory until it executes the small program: no page table is copied."""
    box.run(["true"])
    before = min(clone_us(box) for _ in range(5))
    heap = bytearray(os.urandom(1)) * (300 << 20)
    after = min(clone_us(box) for _ in range(5))
    assert len(heap) == 300 << 20
    assert after < before * 3 + 2000


def clone_us(box: mc.Container) -> float:
    return box.run(["true"]).timeline.by_feature()["clone"]
