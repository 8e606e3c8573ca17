"""``run_async``: many at once, timeouts, cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

import pytest

import minictr as mc


def test_a_hundred_at_once(box):
    async def main() -> list[mc.Result]:
        return await asyncio.gather(
            *(box.run_async(["sh", "-c", f"sleep 0.2; echo {i}; exit {i % 3}"], stdout=mc.PIPE) for i in range(100))
        )

    begin = time.monotonic()
    done = asyncio.run(main())
    assert [int(result.stdout) for result in done] == list(range(100))
    assert [result.returncode for result in done] == [i % 3 for i in range(100)]
    assert time.monotonic() - begin < 20  # one after another they would sleep for twenty


def test_it_takes_and_gives_what_run_does(box):
    async def main() -> mc.Result:
        return await box.run_async(["sh", "-c", "cat; echo err >&2"], input="grüße", capture_output=True, text=True)

    done = asyncio.run(main())
    assert (done.stdout, done.stderr, done.returncode) == ("grüße", "err\n", 0)


def test_ten_mebibytes_both_ways(box):
    data = os.urandom(10 << 20)
    done = asyncio.run(box.run_async(["cat"], input=data, stdout=mc.PIPE))
    assert done.stdout == data


def test_check(box):
    with pytest.raises(mc.CalledProcessError):
        asyncio.run(box.run_async(["false"], check=True))


def test_timeout_keeps_what_was_written(box):
    with pytest.raises(mc.TimeoutExpired) as caught:
        asyncio.run(box.run_async(["sh", "-c", "echo partial; sleep 100"], stdout=mc.PIPE, timeout=0.3, text=True))
    assert (caught.value.stdout, caught.value.result.signal) == ("partial\n", signal.SIGKILL)


def test_timeout_does_not_wait_for_what_lives_on(box):
    begin = time.monotonic()
    run = box.without("pid").run_async(["sh", "-c", "sleep 2 & echo $!; sleep 2"], stdout=mc.PIPE, timeout=0.3)
    with pytest.raises(mc.TimeoutExpired) as caught:
        asyncio.run(run)
    assert time.monotonic() - begin < 1.5
    with contextlib.suppress(ProcessLookupError):  # it goes with its group, and here init may have reaped it already
        os.kill(int(caught.value.stdout), signal.SIGKILL)


def test_cancelling_kills(box, tmp_path):
    async def main() -> None:
        script = "while :; do echo >> /mnt/alive; sleep 0.01; done"
        task = asyncio.create_task(box.with_(mc.Bind(str(tmp_path), "/mnt")).run_async(["sh", "-c", script]))
        while not (tmp_path / "alive").exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    size = (tmp_path / "alive").stat().st_size
    time.sleep(0.1)
    assert (tmp_path / "alive").stat().st_size == size


def test_the_loop_stays_free(box):
    """While a container runs, the loop does other things: nothing but the start itself is done in it."""

    async def main() -> int:
        ticks = 0
        task = asyncio.create_task(box.run_async(["sleep", "0.5"]))
        while not task.done():
            ticks += 1
            await asyncio.sleep(0.01)
        return ticks

    assert asyncio.run(main()) > 15


def test_mc_run_async(lab):
    done = asyncio.run(mc.run_async(["uname", "-n"], rootfs=lab, stdout=mc.PIPE, text=True))
    assert done.stdout == "minictr\n"
