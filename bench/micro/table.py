"""What each arm adds to each operation, as lines of text, from the records of results files. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench import stats
from bench.attribution import FEWEST, Costs
from bench.micro.arms import LAN, Wish
from bench.micro.program import NETWORK
from bench.samples import BARE

COLUMNS = (
    ("getppid", "personality", "open_close", "stat_deep", "readdir", "create_unlink", "write_1", "write_64k"),
    ("fault_anon", "fault_file", "mmap", "pipe", "futex", "fork_exit", "fork_exec"),
    ("copyup_4k", "copyup_64k", "copyup_1m", "copyup_16m", "copyup_64m"),
    ("clone_uts", "clone_ipc", "clone_pid", "clone_mnt", "clone_net", "clone_user", "clone_cgroup"),
)
WIDTH, NAME = 14, 20


def added(costs: Costs, arm: str, over: str, operation: str) -> stats.Interval | None:
    """Nanoseconds that ARM takes more than OVER, within blocks; None where one of them was not measured.

    The interval is without end when there are too few blocks for one.
    """
    mine, base = costs.get(arm, {}).get(operation, {}), costs.get(over, {}).get(operation, {})
    both = sorted(mine.keys() & base.keys())
    if not both:
        return None
    found = stats.paired_difference([mine[block] for block in both], [base[block] for block in both])
    return found if len(both) >= FEWEST else stats.Interval(found.estimate, -math.inf, math.inf)


def cell(found: stats.Interval | None) -> str:
    """+41, or (+3) where the interval holds zero; "-" where nothing is known."""
    if found is None:
        return "-"
    value = f"{found.estimate:+,.0f}" if abs(found.estimate) >= 10 else f"{found.estimate:+.1f}"
    return f"({value})" if 0.0 in found else value


def lines(costs: Costs, wishes: Sequence[Wish]) -> list[str]:
    """Tables of what is added, a block of columns after the other; bare itself in nanoseconds."""
    found: list[str] = []
    for lan, groups in ((False, COLUMNS), (True, (NETWORK,))):
        mine = [wish for wish in wishes if wish.lan == lan and wish.key in costs]
        for columns in groups:
            shown = [name for name in columns if any(name in costs[wish.key] for wish in mine)]
            if shown:
                found += [*_table(costs, mine, shown, f"{LAN}:" if lan else ""), ""]
    return found


def _table(costs: Costs, wishes: Sequence[Wish], columns: Sequence[str], prefix: str) -> list[str]:
    title = "over the network, the client on another machine" if prefix else "inside"
    found = [f"{title}, ns:", f"{'':<{NAME}}{'over':<{NAME}}" + "".join(f"{name:>{WIDTH}}" for name in columns)]
    bare: Mapping[str, Mapping[int, float]] = costs.get(prefix + BARE, {})
    values = [stats.quartiles(list(bare[name].values())).median if bare.get(name) else 0.0 for name in columns]
    found.append(f"{BARE:<{NAME}}{'':<{NAME}}" + "".join(f"{value:>{WIDTH},.0f}" for value in values))
    for wish in wishes:
        cells = [cell(added(costs, wish.key, prefix + wish.over, name)) for name in columns]
        if wish.name != BARE and set(cells) != {"-"}:
            row = "".join(f"{one:>{WIDTH}}" for one in cells)
            found.append(f"{wish.name:<{NAME}}{wish.over:<{NAME}}{row}")
    return found


NOTE = "added to the arm named beside it: median of differences within blocks; in brackets: it may be zero"
