"""``run`` for asyncio: readiness of the pidfd and of the pipes comes from the event loop.

The start itself is done in the calling thread: it takes a few milliseconds, and a namespace that this thread entered
is inherited.
"""

from __future__ import annotations

import asyncio
import os

from minictr.runtime.container import Container, Result, encoded, piped
from minictr.runtime.pipes import remains
from minictr.runtime.process import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

CHUNK = 65536


async def run_async(
    container: Container,
    args: Sequence[str],
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    text: bool = False,
    encoding: str | None = None,
    errors: str | None = None,
    **options: Any,
) -> Result:
    """As :meth:`Container.run`. Cancelling the task kills the container."""
    options.update(piped(input, capture_output))
    data, timed_out = encoded(input, encoding, errors), False
    with container.popen(args, **options) as process:
        try:
            async with asyncio.timeout(timeout):
                await _communicate(process, data)
        except TimeoutError:
            timed_out = True
            process.kill()
            await _end(process)
        captured = remains(process)
    as_text = text or bool(encoding or errors)
    return Result.of(process, captured, as_text, encoding, errors, timed_out=timed_out).judged(timeout, check)


async def _communicate(process: Process, data: bytes | None) -> None:
    async with asyncio.TaskGroup() as group:
        if process.stdin is not None and not process.stdin.closed:
            group.create_task(_feed(process.stdin, data or b""))
        for name in ("stdout", "stderr"):
            stream = getattr(process, name)
            if stream is not None and not stream.closed:
                chunks = process.partial.setdefault(stream.fileno(), [])
                group.create_task(_read(stream, chunks))
        group.create_task(_end(process))


async def _ready(fd: int, *, write: bool = False) -> None:
    """Until FD is readable (or writable)."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)

    def ready() -> None:
        if not future.done():
            future.set_result(None)

    add(fd, ready)
    try:
        await future
    finally:
        remove(fd)


async def _end(process: Process) -> None:
    while process.poll() is None:
        await _ready(process.pidfd)


async def _read(stream: Any, chunks: list[bytes]) -> None:
    fd = stream.fileno()
    while True:
        await _ready(fd)
        chunk = os.read(fd, CHUNK)
        if not chunk:
            return
        chunks.append(chunk)


async def _feed(stream: Any, data: bytes) -> None:
    fd, rest = stream.fileno(), memoryview(data)
    os.set_blocking(fd, False)
    try:
        while rest:
            await _ready(fd, write=True)
            rest = rest[os.write(fd, rest) :]
        stream.close()
    except BrokenPipeError:
        pass  # the program does not want the rest
