"""Every option of the verbs of a container's life: rows as in :mod:`minictr.cli.options`, one table a verb."""

from __future__ import annotations

from minictr.cli.options import FLAG, MANY, RUN_OPTIONS, VALUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.cli.options import Row

OPTIONS = "Options"

_ALL: Row = (("-a", "--all"), "all", FLAG, "", "Every container that it can be done with.", OPTIONS)
_FORMAT: Row = (("--format",), "format", VALUE, "json|TEMPLATE", "JSON, or '{{.Field}}' as docker's.", OPTIONS)
_SIGNAL = ("-s", "--signal")
_TIME = ("-t", "--time", "--timeout")
_NO_TRUNC: Row = (("--no-trunc",), "no_trunc", FLAG, "", "Do not cut long fields.", OPTIONS)
_KEYS: Row = (("--detach-keys",), "detach_keys", VALUE, "KEYS", "What leaves it running; ctrl-p,ctrl-q.", OPTIONS)
_PROXY: Row = (("--sig-proxy/--no-sig-proxy",), "sig_proxy", FLAG, "", "Pass signals on (without a terminal).", OPTIONS)
_SINCE: Row = (("--since",), "since", VALUE, "TIME", "From 2024-05-01T10:00:00Z, or 10m ago, on.", OPTIONS)
_UNTIL: Row = (("--until",), "until", VALUE, "TIME", "Up to that time.", OPTIONS)

# Limits of `run` that can be changed while a container lives.
UPDATABLE = frozenset(
    "memory memory_swap memory_reservation memory_swappiness cpus cpu_shares cpu_quota cpu_period cpuset_cpus"
    " cpuset_mems pids_limit blkio_weight blkio_weight_device device_read_bps device_write_bps device_read_iops"
    " device_write_iops cgroup_conf".split()
)

TABLES: dict[str, tuple[Row, ...]] = {
    "ps": (
        (("-a", "--all"), "all", FLAG, "", "Those that do not run as well.", OPTIONS),
        (("-q", "--quiet"), "quiet", FLAG, "", "Ids only.", OPTIONS),
        (("-n", "--last"), "last", VALUE, "N", "The last N made, whatever their status.", OPTIONS),
        (("-l", "--latest"), "latest", FLAG, "", "The last one made.", OPTIONS),
        (("-f", "--filter"), "filter", MANY, "KEY=VALUE", "name, id, status, exited.", OPTIONS),
        (("--format",), "format", VALUE, "table|json|TEMPLATE", "'{{.ID}} {{.Names}}' as docker's.", OPTIONS),
        _NO_TRUNC,
    ),
    "top": (),
    "stats": (
        (("-a", "--all"), "all", FLAG, "", "Those that do not run as well.", OPTIONS),
        (("--no-stream",), "no_stream", FLAG, "", "Once, instead of every second.", OPTIONS),
        (("--format",), "format", VALUE, "table|json|TEMPLATE", "'{{.Name}} {{.CPUPerc}}' as docker's.", OPTIONS),
        (("-i", "--interval"), "interval", VALUE, "TIME", "Between two readings; 1 second.", OPTIONS),
        _NO_TRUNC,
    ),
    "logs": (
        (("-f", "--follow"), "follow", FLAG, "", "Go on with what is written from now on.", OPTIONS),
        _SINCE,
        _UNTIL,
        (("-n", "--tail"), "tail", VALUE, "N|all", "The last N lines only.", OPTIONS),
        (("-t", "--timestamps"), "timestamps", FLAG, "", "When each line was written.", OPTIONS),
    ),
    "inspect": (
        (("-f", "--format"), "format", VALUE, "json|TEMPLATE", "'{{.State.Pid}}' as docker's.", OPTIONS),
        (("--effective",), "effective", FLAG, "", "What truly confines NAME|PID, read from the kernel.", OPTIONS),
        (("--diff",), "compare", FLAG, "", "Two of these side by side: what differs.", OPTIONS),
        (("--file-capabilities",), "privileged_files", FLAG, "", "Files of NAME|DIR/ that give privilege.", OPTIONS),
        (("--all",), "all", FLAG, "", "With --diff, what does not differ as well.", OPTIONS),
    ),
    "wait": (),
    "start": (
        (("-a", "--attach"), "attach", FLAG, "", "Stay with it: its output, its signals, its exit code.", OPTIONS),
        (("-i", "--interactive"), "interactive", FLAG, "", "Stay with it, and send it our input.", OPTIONS),
        _KEYS,
        _PROXY,
    ),
    "attach": (
        (("--no-stdin",), "no_stdin", FLAG, "", "Send it no input.", OPTIONS),
        _KEYS,
        _PROXY,
    ),
    "stop": (
        (_TIME, "timeout", VALUE, "SECONDS", "Until it is killed; -1 never; 10 unless it was said.", OPTIONS),
        (_SIGNAL, "signal", VALUE, "SIGNAL", "Instead of its stop signal.", OPTIONS),
        _ALL,
    ),
    "kill": (
        (_SIGNAL, "signal", VALUE, "SIGNAL", "KILL if not given.", OPTIONS),
        _ALL,
        (("--all-processes",), "all_processes", FLAG, "", "To every process, not the first alone.", OPTIONS),
    ),
    "pause": (_ALL,),
    "unpause": (_ALL,),
    "rename": (),
    "update": tuple(row for row in RUN_OPTIONS if row[1] in UPDATABLE),
    "rm": (
        (("-f", "--force"), "force", FLAG, "", "One that runs, or cannot be read; none is no mistake.", OPTIONS),
        _ALL,
    ),
    "events": (
        _SINCE,
        _UNTIL,
        (("-f", "--filter"), "filter", MANY, "KEY=VALUE", "container, event.", OPTIONS),
        (("--format",), "format", VALUE, "text|json|TEMPLATE", "A line of JSON each, or '{{.action}}'.", OPTIONS),
        (("--stream/--no-stream",), "stream", FLAG, "", "Follow; as it does unless --until is given.", OPTIONS),
    ),
    "gc": ((("--format",), "format", VALUE, "text|json", "How what was removed is printed.", OPTIONS),),
    "generate": (
        (("-n", "--new"), "new", FLAG, "", "A container made anew at each start, not this one.", OPTIONS),
        (("--files",), "files", FLAG, "", "Write minictr-NAME.service here, print its path.", OPTIONS),
        (("--restart-policy",), "restart_policy", VALUE, "POLICY", "no, on-failure, always, ...; on-failure.", OPTIONS),
        (_TIME, "timeout", VALUE, "SECONDS", "Until a stop kills.", OPTIONS),
    ),
    "cleanup": (),
}

# Options of docker and podman that are knowingly not here: verb -> (flags, reason).
REFUSALS: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "ps": ((("-s", "--size"), "sizes are not counted: du tells that of the root"),),
    "rm": (
        (("-v", "--volumes"), "there are no volumes: -v of run binds directories of the host"),
        (("-l", "--link"), "there are no links"),
    ),
    "logs": ((("--details",), "there are no log drivers with details"),),
    "inspect": (
        (("-s", "--size"), "sizes are not counted: du tells that of the root"),
        (("--type",), "there are containers only"),
    ),
    "start": ((("--checkpoint", "--checkpoint-dir"), "there are no checkpoints"),),
    "generate": (
        (("--restart-sec", "--wants", "--after", "--requires"), "write it into the unit: systemctl edit"),
        (("--format",), "units are text"),
    ),
}
