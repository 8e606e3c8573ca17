"""``minictr generate systemd``: a unit that runs a container at boot, and starts it again. Restarting is init's job.

The unit says the words that made the container, in the foreground: systemd sees the program's end and its exit code,
and its journal gets the output. What is about a container in the background (-d, --cidfile, logs) is left out.
"""

from __future__ import annotations

import os
import sys

from minictr.boot import is_init
from minictr.cli.fastparse import scan
from minictr.cli.options import FLAG, OPTIONAL, TABLES
from minictr.cli.show import write
from minictr.cli.stop import grace
from minictr.errors import SpecError
from minictr.features.tables import SIGNALS, SIGRTMIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from minictr.runtime.instance import Instance

# systemd.service(5), Restart=
POLICIES = ("no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always")
LEFT_OUT = frozenset("detach rm replace cidfile pidfile log_driver log_opt stop_timeout stop_signal name".split())
REBOOTED = 133  # its init asked to be started again: as systemd-nspawn's exit code, and its unit
MARK = "# written by minictr generate systemd"


def generate(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Print the unit, or with ``--files`` write it and print its path."""
    if len(words) != 2 or words[0] != "systemd":
        raise SpecError("units for systemd are what can be generated: minictr generate systemd NAME")
    policy = opts.get("restart_policy", "on-failure")
    if policy not in POLICIES:
        raise SpecError(f"--restart-policy {policy!r} is not one of {', '.join(POLICIES)}")
    from minictr.runtime.instance import find

    instance = find(words[1])
    text = unit(instance, policy, grace(opts))
    if not opts.get("files"):
        write(text.rstrip("\n"))
        return 0
    path = os.path.abspath(f"minictr-{instance.name}.service")
    save(path, text)
    write(path)
    return 0


def unit(instance: Instance, policy: str, seconds: float | None) -> str:
    """The unit of INSTANCE. SpecError for one that has no name, or was not made by a command line."""
    state = instance.state
    if not state.name:
        raise SpecError(f"container {instance.label} has no name: give it one (minictr rename {instance.label} NAME)")
    if not state.command_line:
        raise SpecError(
            f"container {instance.label} was not made by minictr run -d or minictr create: no words to repeat"
        )
    wait = state.stop_timeout if seconds is None else seconds
    program = [*launcher(), "--root", instance.store.path]
    command = [*program, "run", *repeated(state.command_line, state.name)]
    signal = signal_name(state.stop_signal)
    lines = [
        f"{MARK}",
        "[Unit]",
        f"Description=minictr container {state.name}",
        *((f"RequiresMountsFor={quoted(state.spec.rootfs)}",) if state.spec.rootfs else ()),
        "",
        "[Service]",
        "Type=exec",
        *((f"WorkingDirectory={percent(state.directory)}",) if state.directory else ()),
        f"ExecStart={' '.join(map(quoted, command))}",
        f"ExecStopPost=-{' '.join(map(quoted, [*program, 'rm', '-f', state.name]))}",
        "KillMode=mixed",
        f"KillSignal={signal}",
        f"TimeoutStopSec={'infinity' if wait >= 10**9 else f'{wait:g}'}",
        f"SuccessExitStatus={128 + state.stop_signal}" + (f" {REBOOTED}" if is_init(state.spec) else ""),
        f"Restart={policy}",
        *((f"RestartForceExitStatus={REBOOTED}",) if is_init(state.spec) else ()),
        "Delegate=yes",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ]
    return "\n".join(lines)


def repeated(words: Sequence[str], name: str) -> Iterator[str]:
    """The words after ``run`` or ``create`` of a command line, for a run in the foreground under NAME."""
    rest = list(words)
    while rest and rest[0].startswith("--root"):
        rest = rest[1 if "=" in rest[0] else 2 :]
    table = TABLES["run"]
    yield from ("--name", name, "--replace")
    for row, flag, value in scan(rest[1:], table):
        if row is None:
            yield from ("--", *value)
        elif row[1] in LEFT_OUT:
            continue
        elif row[2] == FLAG:
            yield flag
        elif row[2] == OPTIONAL:
            yield f"{flag}={value}" if value else flag
        else:
            yield from (flag, value)


def launcher() -> list[str]:
    """This very minictr."""
    beside = os.path.join(os.path.dirname(sys.executable), "minictr")
    return [beside] if os.access(beside, os.X_OK) else [sys.executable, "-m", "minictr"]


def signal_name(number: int) -> str:
    """As systemd.kill(5) writes it."""
    known = next((name for name, value in SIGNALS.items() if value == number), "")
    return f"SIG{known}" if known else f"SIGRTMIN+{number - SIGRTMIN}"


def percent(text: str) -> str:
    """systemd.unit(5), "Specifiers"."""
    return text.replace("%", "%%")


def quoted(word: str) -> str:
    """WORD for a command line of a unit: systemd.syntax(7), "Quoting", and the variables of systemd.service(5)."""
    if word and word.isascii() and all(c.isalnum() or c in "-_./=:,@+" for c in word):
        return word
    out = []
    for byte in word.encode("utf-8", "surrogateescape"):
        char = chr(byte)
        if char in '"\\':
            out.append(f"\\{char}")
        elif char in "%$":
            out.append(char * 2)
        else:
            out.append(char if 32 <= byte < 127 else f"\\x{byte:02x}")
    return f'"{"".join(out)}"'


def save(path: str, text: str) -> None:
    """TEXT into PATH, whole; another unit of ours is replaced, a file of somebody else's is not."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            if file.readline().rstrip("\n") != MARK:
                raise SpecError(f"{path}: is there already, and not written by minictr: move it away")
    except FileNotFoundError:
        pass
    new = f"{path}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(new, path)
