"""What can be done inside a container that exists: programs, its streams, its files, its layer.

Methods of :class:`minictr.Instance`, in a room of their own. Each looks anew whether the container runs.
"""

from __future__ import annotations

import os

from minictr.errors import SpecError
from minictr.kernel.handles import shut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO, Any

    from minictr.runtime.copying import Copied
    from minictr.runtime.instance import Instance
    from minictr.runtime.layerdiff import Change
    from minictr.runtime.process import Process
    from minictr.runtime.result import Result

__all__ = ["attach", "commit", "copy_in", "copy_out", "diff", "execute", "logs", "popen"]


def execute(instance: Instance, args: Sequence[str], **options: Any) -> Result:
    """Run ARGS in it to the end, as its program is confined. Streams, ``timeout``, ``check``, ``on_syscall`` and so on
    as :meth:`Container.run`; ``user``, ``cwd``, ``env``, ``cap_add``, ``cap_drop``, ``privileged``, ``seccomp``,
    ``no_new_privs``, ``without`` as :func:`minictr.runtime.join.exec_spec`. Raises WrongStatus and what a start raises.
    """
    from minictr.runtime.join import exec_run, target_of

    target = target_of(instance)
    try:
        return exec_run(target, args, **options)
    finally:
        shut(target.pidfd)


def popen(instance: Instance, args: Sequence[str], **options: Any) -> Process:
    """Start ARGS in it: as :func:`execute`, without waiting for the end."""
    from minictr.runtime.join import exec_popen, target_of

    target = target_of(instance)
    try:
        return exec_popen(target, args, **options)
    finally:
        shut(target.pidfd)


def attach(instance: Instance, stdin: int = 0, stdout: int = 1, stderr: int = 2, **options: Any) -> int | None:
    """Tie descriptors of ours to its streams: its returncode when it is over, None when it was left by the keys.

    OPTIONS: ``keys``, ``sig_proxy``, as :func:`minictr.runtime.attach.attach`. Raises SpecError for a container that
    has no monitor, WrongStatus, StepFailed.
    """
    from minictr.runtime import events
    from minictr.runtime.attach import Client
    from minictr.runtime.attach import attach as tie

    instance.must_be("created", "running", verb="attach")
    if not instance.state.detached:
        raise SpecError(f"attach {instance.label}: its streams are those of the process that started it")
    with Client(instance.directory) as client:
        events.tell(instance.store, instance.id, instance.name, "attach")
        status = tie(client, stdin, stdout, stderr, **options)
    return None if status is None else os.waitstatus_to_exitcode(status)


def logs(
    instance: Instance,
    *,
    since: int | None = None,
    until: int | None = None,
    tail: int | None = None,
    follow: bool = False,
) -> Iterator[tuple[int, str, bytes]]:
    """What it wrote: (nanoseconds since 1970, "stdout" or "stderr", data). ``since``, ``until``: nanoseconds;
    ``tail``: the last so many lines; ``follow``: go on until it ends. Raises SpecError where no log is kept."""
    if not instance.state.detached or not instance.state.log[1]:
        why = "output goes to who started it" if not instance.state.detached else "it was made with --log-driver none"
        raise SpecError(f"logs {instance.label}: it has no log: {why}")
    from minictr.runtime.logs import read

    return read(instance.directory, since=since, until=until, tail=tail, follow=follow)


def copy_in(instance: Instance, source: str, dest: str, **options: Any) -> Copied:
    """SOURCE of the host to DEST in it, running or not: ``docker cp``'s rules, docs/copying.md.

    OPTIONS: ``archive``, ``follow_link``, ``progress``. Raises SpecError, StepFailed naming both ends.
    """
    from minictr.runtime import copying, files

    with files.root(instance) as root:
        return copying.copy_in(source, root, dest, name=instance.label, id_map=files.id_map(instance), **options)


def copy_out(instance: Instance, source: str, dest: str, **options: Any) -> Copied:
    """SOURCE in it to DEST of the host; see :func:`copy_in`."""
    from minictr.runtime import copying, files

    with files.root(instance) as root:
        return copying.copy_out(root, source, dest, name=instance.label, id_map=files.id_map(instance), **options)


def diff(instance: Instance) -> list[Change]:
    """What changed in its layer, by path: ``kind`` "A", "C" or "D". SpecError where no layer is kept."""
    from minictr.runtime import files
    from minictr.runtime.layerdiff import changes

    found = files.kept_layer(instance)
    return list(changes(found.upper, found.lowers, prefix=found.prefix)) if os.path.isdir(found.upper) else []


def commit(instance: Instance, dest: str | IO[bytes], *, whole: bool = False, pause: bool = True) -> Copied:
    """Its layer, or with WHOLE all that it sees, as DEST: a directory, a tarball by its suffix, or a binary file.

    ``pause``: it is frozen meanwhile. Raises SpecError where no layer is kept, StepFailed.
    """
    from minictr.runtime import events, files

    done = files.commit(instance, dest, whole=whole, pause=pause)
    events.tell(instance.store, instance.id, instance.name, "commit")
    return done
