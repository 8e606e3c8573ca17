"""How a container comes to its end, and what is left of it goes: stop, settle, remove.

Written for the worst case: its state cannot be read, its monitor was killed, another process is at the same work.
"""

from __future__ import annotations

import os
import time

from minictr.boot import is_first
from minictr.errors import NoSuchContainer, StateError, StepFailed
from minictr.kernel.core import lib
from minictr.kernel.handles import shut
from minictr.runtime import events
from minictr.runtime.ended import ExitRecord
from minictr.runtime.identity import ProcessIdentity
from minictr.runtime.process import is_over
from minictr.runtime.reclaim import free, kill, processes, sweep_one
from minictr.runtime.record import EXIT_ROOM, Record
from minictr.runtime.store import SHORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.runtime.instance import Instance

__all__ = ["SETTLE", "finish", "remove", "send", "settle", "wait"]

SIGKILL, SIGSTOP, ESRCH = 9, 19, 3
SETTLE = 10.0  # seconds for the monitor to write down an end, and for its cleanup
STARTER = 1.0  # seconds for the process that started a container to take note of its end


def send(instance: Instance, signal: int) -> None:
    """SIGNAL to the first process of INSTANCE; nothing when it is gone. pidfd_send_signal(2)."""
    try:
        pidfd = instance.process.pidfd()
    except ProcessLookupError:
        return
    try:
        result = lib.mc_pidfd_send_signal(pidfd, signal, 0)
    finally:
        shut(pidfd)
    if result < 0 and result != -ESRCH:
        raise StepFailed(f"send signal {signal} to container {instance.label}", -result)


def wait(instance: Instance, timeout: float | None) -> ExitRecord | None:
    """How INSTANCE ended, once it did; None when nobody wrote it down. Raises TimeoutError after TIMEOUT seconds.

    The exit record is opened before: one that is removed with its end can be read to the last.
    """
    _ = instance.state  # now: it may be gone with its end
    with instance.record() as record:
        exit_fd = record.open_exit()
        try:
            _await(instance, timeout)
            limit = time.monotonic() + SETTLE
            while True:
                told = None
                if exit_fd >= 0:
                    told = ExitRecord.parse(os.pread(exit_fd, EXIT_ROOM, 0).decode("utf-8", "replace"))
                # its monitor has yet to write down what it saw; one that was killed never will
                if told is not None or not instance.state.monitor.alive or time.monotonic() >= limit:
                    return told or record.exit_record()
                time.sleep(0.002)
        finally:
            if exit_fd >= 0:
                shut(exit_fd)


def _await(instance: Instance, timeout: float | None) -> None:
    if not instance.alive:
        return
    try:
        pidfd = instance.process.pidfd()
    except ProcessLookupError:
        return
    try:
        if not is_over(pidfd, timeout):
            raise TimeoutError(f"wait for container {instance.label}: it still runs after {timeout:g} s")
    finally:
        shut(pidfd)


def finish(instance: Instance, signal: int, seconds: float) -> None:
    """Ask by SIGNAL, kill after SECONDS. A frozen one is thawed: it could not hear. StateError when it does not go."""
    if seconds > 0:
        deadline = time.monotonic() + seconds
        deaf = not _hears(instance, signal)
        send(instance, signal)
        instance.thaw()
        if deaf:
            _send_again(instance, signal, deadline)
        try:
            instance.wait(max(0.0, deadline - time.monotonic()))
            return
        except TimeoutError:
            pass
    send(instance, SIGKILL)
    instance.thaw()
    if not _gone(instance.process, SETTLE):
        raise StateError(
            f"container {instance.label}: process {instance.process.pid} does not end: the kernel holds it"
        )


def _hears(instance: Instance, signal: int) -> bool:
    """Whether the first process of INSTANCE catches SIGNAL, or has it blocked to wait for it by signalfd(2).

    The kernel drops what PID 1 of a namespace has no handler for. One inside sigwait(3) seems deaf and is not.
    """
    if signal in (SIGKILL, SIGSTOP) or not is_first(instance.state.spec):
        return True
    try:
        with open(f"/proc/{instance.process.pid}/status", "rb", buffering=0) as file:
            lines = (file.read(1 << 16) or b"").splitlines()
    except OSError:
        return True  # it is gone
    masks = [int(line.split()[1], 16) for line in lines if line.startswith((b"SigCgt:", b"SigBlk:"))]
    return any(mask >> (signal - 1) & 1 for mask in masks)


def _send_again(instance: Instance, signal: int, deadline: float) -> None:
    """SIGNAL once more as soon as it is heard: an init that is just booting has missed the first."""
    while instance.process.alive and time.monotonic() < deadline:
        if _hears(instance, signal):
            send(instance, signal)
            return
        time.sleep(0.01)


def _gone(process: ProcessIdentity, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while process.alive and time.monotonic() < deadline:
        time.sleep(0.002)
    return not process.alive


def settle(instance: Instance) -> None:
    """It is over: wait until its monitor and the cleanup are done, or do what they did not.

    One without a monitor is its starter's, who may take note of the end when it likes: that is not waited for long.
    """
    try:
        record = instance.record()
        detached = instance.state.detached
    except NoSuchContainer:
        return  # gone with its end
    with record:
        if record.own(SETTLE if detached else STARTER):
            if record.is_there():
                sweep_one(record)
        elif record.is_there() and detached:
            raise StateError(f"container {instance.label}: its monitor (pid {instance.state.monitor.pid}) does not end")


def remove(instance: Instance, *, force: bool) -> None:
    """Remove what is left of INSTANCE; with FORCE end it first, and remove it even if its state cannot be read.

    Raises WrongStatus for one that runs, without FORCE.
    """
    try:
        names = [instance.state.name]
        if instance.alive:
            if not force and not instance.state.held:  # one that waits for its start has done nothing yet
                instance.must_be("exited", verb="rm")
            finish(instance, SIGKILL, 0)
    except NoSuchContainer:
        return  # it was to be removed at its end, and was
    except (StateError, StepFailed):
        if not force:
            raise
        names = instance.store.names_of(instance.id)
    try:
        record = instance.record()
    except NoSuchContainer:
        return  # meanwhile
    with record:
        if not record.own(SETTLE if not force else STARTER) and record.is_there():
            if not force:
                raise StateError(f"rm {instance.id[:SHORT]}: its owner still works on it: wait, or rm -f")
            _take(instance, record)
        if record.is_there():
            free(record, record.rows())
            for name in names[1:]:
                instance.store.drop_name(name, instance.id)
            record.forget(names[0] if names else "")
    events.tell(instance.store, instance.id, names[0] if names else "", "destroy")


def _take(instance: Instance, record: Record) -> None:
    """The lock, from an owner that does not let go by itself: the container's processes by the journal, whatever its
    state says, and then the monitor."""
    for identity in processes(record.rows()):
        kill(identity)
    if record.own(SETTLE) or not record.is_there():
        return
    try:
        kill(instance.state.monitor)
    except StateError:
        pass  # nobody knows who it is
    if not record.own(SETTLE):  # a cleanup that the monitor has begun holds it too
        raise StateError(f"rm {instance.id[:SHORT]}: another process holds {record.directory}: end that one")
