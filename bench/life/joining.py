"""One more program in a container that runs: minictr's ``exec`` and the others'."""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

from bench.life.crowd import command_line
from bench.life.rest import PROGRAM
from bench.life.series import Part, Series, Target, Tell, in_turn, ratio, raw, table, unstable
from bench.lifecycle import oci
from bench.lifecycle.arms import Tool, serve
from bench.lifecycle.lab import Lab
from bench.lifecycle.peers import Crun, LxcExecute, Oci, Runc, remove_cgroups
from bench.lifecycle.shape import COMMAND
from bench.lifecycle.worker import ArmFailed, Command, Worker

NAME = "bench-life"
AT_MOST = 1.5  # times a start with no new namespaces
DEADLINE = 30.0  # seconds for what is not measured
BARE, RUNC = "bare", "runc exec"
Rows = dict[str, tuple[str, Command]]  # name -> about, command of its worker
COMMANDS = ("minictr exec", "crun exec", "lxc-attach", "minictr exec -u 0")


def in_this_process(lab: Lab, root: str, name: str) -> Rows:
    """The rows of the library."""
    argv, ballast = list(COMMAND), lab.ballast
    executing = serve(mode="exec", root=root, name=name, argv=argv, ballast=ballast)
    return {
        BARE: ("a start with no namespace and no root", serve(mode="bare", argv=argv, ballast=ballast)),
        "bare, mc.run": ("the same, planned anew", serve(mode="bare", argv=argv, anew=True, ballast=ballast)),
        "exec": ("into the default profile", executing),
        "exec again": ("the same: the A/A check", executing),
    }


@contextmanager
def of_minictr(lab: Lab) -> Iterator[Rows]:
    """A container of the default profile that waits to be joined."""
    import minictr

    mc: Any = minictr
    root = lab.path("joining", "state")
    instance = mc.Container(lab.rootfs, name=NAME).start(PROGRAM, root=root)
    try:
        begin = [*command_line(), "--root", root, "exec"]
        plain, compiled = [*begin, NAME, *COMMAND], [*begin, "-u", "0", NAME, *COMMAND]
        yield {
            **in_this_process(lab, root, NAME),
            COMMANDS[0]: ("by what an earlier one compiled", serve(mode="spawn", argv=plain)),
            COMMANDS[3]: ("compiled anew, as the first one is", serve(mode="spawn", argv=compiled)),
        }
    finally:
        instance.remove(force=True)


def once(lab: Lab, name: str, **wishes: Any) -> None:
    """One command that is not measured. Raises ArmFailed with what it said."""
    with Worker(serve(mode="spawn", **wishes), log=lab.path("log", name)) as worker:
        worker.start()


@contextmanager
def of_oci(arm: Oci) -> Iterator[Rows]:
    """A container of an OCI runtime, made of the bench's shape."""
    lab, hidden = arm.lab, list(arm.UNMOUNT)
    name = f"minictr-bench-{os.getpid()}-life"
    bundle, state = lab.path(arm.NAME, name), lab.path(arm.NAME, "state-life")
    cgroup = name if arm.WITH_CGROUP else ""
    oci.write_bundle(bundle, shape=lab.shape, rootfs=lab.rootfs, argv=PROGRAM, cgroups_path=cgroup)
    words = [arm.executable(), "--root", state, *arm.GLOBAL]
    log = f"{arm.NAME}-life"
    try:
        once(lab, log, argv=[*words, "run", "--detach", "--bundle", bundle, name], unmount=hidden)
        executing = serve(mode="spawn", argv=[*words, "exec", name, *COMMAND], unmount=hidden)
        yield {f"{arm.NAME} exec": (arm.ABOUT, executing)}
    finally:
        with suppress(ArmFailed):
            once(lab, f"{log}-end", argv=[*words, "delete", "--force", name], unmount=hidden)
        remove_cgroups(name)


@contextmanager
def of_lxc(arm: LxcExecute) -> Iterator[Rows]:
    """A container of LXC, from the configuration that ``lifecycle`` uses."""
    lab, name = arm.lab, f"bench-life-{os.getpid()}"
    state = lab.path("lxc-life", "state")
    config = arm.write_configuration()
    where = ["-n", name, "-P", state]
    start, attach, stop = (os.path.join(os.path.dirname(arm.executable()), f"lxc-{verb}") for verb in VERBS)
    os.makedirs(state, exist_ok=True)
    try:
        once(lab, "lxc-life", argv=[start, *where, "-f", config, "-o", lab.path("lxc-life", "log"), "--", *PROGRAM])
        yield {COMMANDS[2]: ("lxc-attach", serve(mode="spawn", argv=[attach, *where, "--", *COMMAND]))}
    finally:
        subprocess.run([stop, *where, "-k"], capture_output=True, check=False, timeout=DEADLINE)
        arm.cleanup()


VERBS = ("start", "attach", "stop")


def measure(lab: Lab, options: argparse.Namespace, tell: Tell) -> Part:
    """All that can be had here, in turn."""
    missing: dict[str, Series] = {}
    commands: Rows = {}
    with ExitStack() as stack:
        tell("containers to be joined")
        commands |= stack.enter_context(of_minictr(lab))
        runc, crun, lxc = Runc(lab), Crun(lab), LxcExecute(lab)
        residents: dict[str, tuple[Tool, AbstractContextManager[Rows]]] = {
            RUNC: (runc, of_oci(runc)),
            COMMANDS[1]: (crun, of_oci(crun)),
            COMMANDS[2]: (lxc, of_lxc(lxc)),
        }
        for name, (arm, resident) in residents.items():
            why_not = arm.available()
            if not why_not:
                try:
                    commands |= stack.enter_context(resident)
                except (ArmFailed, OSError) as err:
                    why_not = str(err)
            if why_not:
                missing[name] = Series(name, failed=why_not)
        found, orders = in_turn(
            lab,
            commands,
            rounds=options.rounds,
            warmup=options.warmup,
            seed=options.seed,
            pause=options.pause_ms / 1e3,
            tell=tell,
        )
    return part({**found, **missing}, orders, options.seed)


def part(found: dict[str, Series], orders: list[list[str]], seed: int) -> Part:
    """Two tables: in this process, and by the command line."""
    targets = []
    outside = {name: series for name, series in found.items() if name in (RUNC, *COMMANDS)}
    inside = {name: series for name, series in found.items() if name not in outside}
    lines = [*table(inside, BARE, seed), "", *table(outside, RUNC, seed)]
    if found[BARE].complete and found["exec"].complete:
        times = ratio(found, "exec", BARE, seed)
        targets.append(Target.of(f"exec from the library at most {AT_MOST} starts without namespaces", times, AT_MOST))
    if found[RUNC].complete and found[COMMANDS[0]].complete:
        times = ratio(found, COMMANDS[0], RUNC, seed)
        targets.append(Target.of("minictr exec faster than runc exec", times, 1.0))
    return Part(
        "One more program: /bin/true in a container that runs", lines, targets, raw(found, orders), unstable(found)
    )
