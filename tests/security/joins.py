"""Programs that join a container again and again, while somebody hostile in it waits for them."""

from __future__ import annotations

from collections.abc import Callable

import minictr as mc
from minictr.runtime import join
from minictr.runtime.container import started
from minictr.runtime.program import Program

Weaken = Callable[[Program], Program]


def as_it_is(program: Program) -> Program:
    return program


def dumpable(program: Program) -> Program:
    """As every process begins: whoever has its user and no fewer capabilities may look into it."""
    program.joins = False
    return program


def join_again(box: mc.Container, process: mc.Process, rounds: int, weaken: Weaken = as_it_is) -> None:
    """ROUNDS programs join BOX, which runs as PROCESS. WEAKEN: makes the program of each join a worse one."""
    target = join.Target(process.pid, box.spec(), process.pidfd)
    program = weaken(join.exec_program(target, ["true"]))
    for _ in range(rounds):

        def start(fds: dict[str, int]) -> mc.Process:
            return join.join(program, fds, target)

        with started(start, mc.DEVNULL, mc.DEVNULL, mc.DEVNULL, False, None, None) as joined:
            assert joined.wait(20) == 0
