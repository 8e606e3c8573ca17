"""What each arm adds to each operation, as lines of text, from the records of results files. Pure."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from bench import paired
from bench.attribution import FOUND, NO_COST, UNRESOLVED, Costs, verdicts
from bench.micro.arms import LAN, Wish
from bench.micro.program import NETWORK
from bench.paired import FEWEST, Effect
from bench.samples import AGAIN, BARE

COLUMNS = (
    ("getppid", "personality", "open_close", "stat_deep", "readdir", "create_unlink", "write_1"),
    ("read_1", "read_4k", "read_64k", "append_1", "append_4k", "append_64k"),
    ("fault_anon", "fault_file", "mmap", "pipe", "socket", "futex", "fork_exit", "fork_exec"),
    ("copyup_4k", "copyup_64k", "copyup_1m", "copyup_16m", "copyup_64m"),
    ("clone_uts", "clone_ipc", "clone_pid", "clone_mnt", "clone_net", "clone_user", "clone_cgroup", "clone_time"),
)
WIDTH, NAME = 14, 20


@dataclasses.dataclass(frozen=True)
class Cell:
    """Nanoseconds that an arm takes more than the one it stands on. ``verdict`` as in bench/attribution.py."""

    nanoseconds: float
    verdict: str

    def __str__(self) -> str:
        """+41, "no cost", or (+3) where nothing is resolved."""
        value = f"{self.nanoseconds:+,.0f}" if abs(self.nanoseconds) >= 10 else f"{self.nanoseconds:+.1f}"
        return {FOUND: value, NO_COST: NO_COST}.get(self.verdict, f"({value})")


Column = dict[str, Cell]  # arm's key -> cell


def differences(costs: Costs, arm: str, over: str, operation: str) -> list[float]:
    """Nanoseconds that ARM takes more than OVER, in each block that has both."""
    mine, base = costs.get(arm, {}).get(operation, {}), costs.get(over, {}).get(operation, {})
    return [mine[block] - base[block] for block in sorted(mine.keys() & base.keys())]


def column(costs: Costs, wishes: Sequence[Wish], operation: str, prefix: str = "", gates: Sequence[str] = ()) -> Column:
    """One operation in all arms of WISHES: a family of Holm's, behind its own A/A check and GATES."""
    found = {it.key: differences(costs, it.key, prefix + it.over, operation) for it in wishes if it.over != it.name}
    effects = {key: Effect(tuple(values)) for key, values in found.items() if len(values) > 1}
    base = costs.get(prefix + BARE, {}).get(operation, {}).values()
    margin = paired.MARGIN * statistics.fmean(base) if base else 0.0
    said = verdicts(effects, margin, shut=bool(gates) or bool(twins_differ(costs, operation, prefix)))
    return {key: Cell(statistics.fmean(values), said.get(key, UNRESOLVED)) for key, values in found.items() if values}


def twins_differ(costs: Costs, operation: str, prefix: str = "") -> str:
    """Why the two bare arms let nothing be said of OPERATION; "" when they do."""
    found = differences(costs, prefix + AGAIN, prefix + BARE, operation)
    if len(found) < FEWEST:
        return f"{operation}: {len(found)} of {FEWEST} blocks with both bare arms"
    interval = Effect(tuple(found)).interval()
    if 0.0 in interval:
        return ""
    return f"{operation}: bare differs from itself by {interval.low:+,.0f} to {interval.high:+,.0f} ns"


def lines(costs: Costs, wishes: Sequence[Wish], gates: Sequence[str] = ()) -> list[str]:
    """Tables of what is added, a block of columns after the other; bare itself in nanoseconds. GATES: why nothing may
    be said, whatever the figures are."""
    found: list[str] = []
    for lan, groups in ((False, COLUMNS), (True, (NETWORK,))):
        mine = [wish for wish in wishes if wish.lan == lan and wish.key in costs]
        for columns in groups:
            shown = [name for name in columns if any(name in costs[wish.key] for wish in mine)]
            if shown:
                found += [*_table(costs, mine, shown, f"{LAN}:" if lan else "", gates), ""]
    return [*found, *(f"all unresolved: {why}" for why in gates)]


def _table(
    costs: Costs, wishes: Sequence[Wish], columns: Sequence[str], prefix: str, gates: Sequence[str]
) -> list[str]:
    title = "over the network, the client on another machine" if prefix else "inside"
    found = [f"{title}, ns:", f"{'':<{NAME}}{'over':<{NAME}}" + "".join(f"{name:>{WIDTH}}" for name in columns)]
    bare: Mapping[str, Mapping[int, float]] = costs.get(prefix + BARE, {})
    values = [statistics.fmean(bare[name].values()) if bare.get(name) else 0.0 for name in columns]
    found.append(f"{BARE:<{NAME}}{'':<{NAME}}" + "".join(f"{value:>{WIDTH},.0f}" for value in values))
    table = {name: column(costs, wishes, name, prefix, gates) for name in columns}
    for wish in wishes:
        cells = [str(table[name].get(wish.key, "-")) for name in columns]
        if wish.name != BARE and set(cells) != {"-"}:
            row = "".join(f"{one:>{WIDTH}}" for one in cells)
            found.append(f"{wish.name:<{NAME}}{wish.over:<{NAME}}{row}")
    shut = [why for name in columns if (why := twins_differ(costs, name, prefix))]
    return [*found, *(f"unresolved, a column: {why}" for why in shut)]


NOTE = (
    "added to the arm named beside it: mean of differences within blocks; in brackets: unresolved, after Holm's "
    "adjustment by column"
)
