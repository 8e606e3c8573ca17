"""Fifty containers at once in one event loop. Needs root.

Proves: they run side by side, each answer is its own, and a cancelled one is killed.
"""

from __future__ import annotations

import asyncio
import tempfile
import time

import minictr as mc
from minictr.images.minimal import minimal

COUNT = 50


async def work(box: mc.Container) -> None:
    begin = time.monotonic()
    jobs = [box.run_async(["bash", "-c", f"sleep 0.5; echo $(({n} * {n}))"], stdout=mc.PIPE) for n in range(COUNT)]
    answers = [int(done.stdout) for done in await asyncio.gather(*jobs)]
    seconds = time.monotonic() - begin
    print(f"{COUNT} containers of half a second each, all right: {answers == [n * n for n in range(COUNT)]}")
    print(f"side by side: {seconds < COUNT * 0.5 / 2}")

    task = asyncio.create_task(box.run_async(["sleep", "1000"]))
    await asyncio.sleep(0.2)
    begin = time.monotonic()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    print(f"cancelled: {task.cancelled()}, gone in less than a second: {time.monotonic() - begin < 1}")


def main() -> None:
    with tempfile.TemporaryDirectory() as work_directory:
        image = minimal(f"{work_directory}/root", ["bash", "sleep"]).directory
        asyncio.run(work(mc.Container(image)))


if __name__ == "__main__":
    main()
