"""``run`` for asyncio: readiness of the pidfd and of the pipes comes from the event loop.

The start itself is done in the calling thread: it takes a few milliseconds, and a namespace that this thread entered
is inherited.
"""

from __future__ import annotations

import asyncio
import os

from minictr.errors import TimeoutExpired
from minictr.runtime.container import Container, Result, _result
from minictr.runtime.pipes import remains
from minictr.runtime.process import PIPE, Process

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
    if capture_output:
        options.update(stdout=PIPE, stderr=PIPE)
    if input is not None:
        options["stdin"] = PIPE
    as_text = text or bool(encoding or errors)
    data = input.encode(encoding or "utf-8", errors or "strict") if isinstance(input, str) else input
    with container.popen(args, **options) as process:
        timed_out = False
        try:
            async with asyncio.timeout(timeout):
                await _communicate(process, data)
        except TimeoutError:
            timed_out = True
            process.kill()
            await _end(process)
        captured = remains(process)
    result = _result(process, captured, as_text, encoding, errors, timed_out=timed_out)
    if timed_out:
        raise TimeoutExpired(process.args, timeout or 0, result.stdout, result.stderr, result)
    if check:
        result.check_returncode()
    return result


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
