"""Every option of ``run`` and ``plan``, as one table of data.

The fast parser (:mod:`minictr.cli.fastparse`), click's commands with their help and completion
(:mod:`minictr.cli.main`) and the tests are all made from it. Plain tuples: they are constants of the compiled module
and cost nothing at start.

A row is ``(flags, dest, kind, metavar, help, group)``. ``flags`` is written as click writes it: ``--init/--no-init``
is a switch with a negative. Kinds:

========  ==================================================================
flag      True; a switch's negative gives False; the last one wins
value     a str, ``--opt value`` or ``--opt=value``; the last one wins
optional  a str, ``--opt=value`` only; ``--opt`` alone gives ""
many      a list of str, in the order given
========  ==================================================================

An option that was not given has no entry in the parsed dictionary.
"""

from __future__ import annotations

FLAG, VALUE, OPTIONAL, MANY = "flag", "value", "optional", "many"

CONTAINER, PROGRAM, FILES, PRIVILEGE = "Container", "Program", "Files and mounts", "Privilege"
LANDLOCK = "Landlock (what is not named is denied; for anybody, without a container)"
NETWORK = "Network (none is loopback only; -p and --ip mean --network bridge)"
RESOURCES = "Resources (control groups; --without takes each out)"
NAMESPACES, RUNNING, KEPT, PLAN = "Namespaces (NS is host, private, ns:PATH or pid:N)", "Running", "Life", "Plan"
RECORDING = "Recording"

Row = tuple[tuple[str, ...], str, str, str, str, str]

RUN_OPTIONS: tuple[Row, ...] = (
    # --- the container ---
    (("--rootfs",), "rootfs", VALUE, "DIR", "Root file system.", CONTAINER),
    (("--profile",), "profile", VALUE, "NAME", "Begin as bare, lxc, docker, default or landlock.", CONTAINER),
    (("--with",), "with", MANY, "NAME", "Add a feature (see: minictr features).", CONTAINER),
    (("--without",), "without", MANY, "NAME", "Take a feature out; applied last.", CONTAINER),
    (("--best-effort",), "best_effort", MANY, "NAME", "Do without that feature, and say so, if need be.", CONTAINER),
    (("--name",), "name", VALUE, "NAME", "Name of the container, and its host name.", CONTAINER),
    (("--rm",), "rm", FLAG, "", "Remove it when it ends; without -d that is always so.", CONTAINER),
    (("--init/--no-init",), "init", FLAG, "", "A small init reaps and forwards signals as PID 1.", CONTAINER),
    # --- the program ---
    (("-e", "--env"), "env", MANY, "KEY[=VALUE]", "Set a variable; KEY alone copies the caller's.", PROGRAM),
    (("--env-file",), "env_file", MANY, "FILE", "Read variables from a file.", PROGRAM),
    (("--clearenv",), "clearenv", FLAG, "", "Begin without the caller's variables (as profiles).", PROGRAM),
    (("-w", "--workdir"), "workdir", VALUE, "DIR", "Working directory, made if missing.", PROGRAM),
    (("-u", "--user"), "user", VALUE, "USER[:GROUP]", "Names from the container's own files, or ids.", PROGRAM),
    (("-h", "--hostname"), "hostname", VALUE, "NAME", "Host name.", PROGRAM),
    (("--domainname",), "domainname", VALUE, "NAME", "NIS domain name.", PROGRAM),
    (("--stop-signal",), "stop_signal", VALUE, "SIGNAL", "Sent when --timeout is over; TERM if not given.", PROGRAM),
    # --- files and mounts ---
    (("-v", "--volume"), "volume", MANY, "SRC:DST[:OPT]", "Bind mount; OPT is ro, rro, rw, idmap.", FILES),
    (("--mount",), "mount", MANY, "type=TYPE,...", "Mount of type bind, tmpfs or overlay.", FILES),
    (("--tmpfs",), "tmpfs", MANY, "DIR[:OPT]", "Fresh tmpfs; OPT as size=64M,mode=755.", FILES),
    (("--read-only",), "read_only", FLAG, "", "Root mounted read-only.", FILES),
    (("--overlay",), "overlay", FLAG, "", "Writes go to a layer that is thrown away.", FILES),
    (("--upper",), "upper", VALUE, "DIR", "Writes go to DIR and are kept (as --overlay).", FILES),
    (("--shm-size",), "shm_size", VALUE, "SIZE", "Size of /dev/shm.", FILES),
    # --- privilege and limits ---
    (("--cap-add",), "cap_add", MANY, "CAP", "Add a capability, or ALL.", PRIVILEGE),
    (("--cap-drop",), "cap_drop", MANY, "CAP", "Drop a capability, or ALL.", PRIVILEGE),
    (("--securebits",), "securebits", MANY, "+BIT,-BIT", "noroot and others, as in setpriv.", PRIVILEGE),
    (("--privileged",), "privileged", FLAG, "", "All capabilities and devices, nothing hidden.", PRIVILEGE),
    (("--security-opt",), "security_opt", MANY, "OPT", "seccomp=, apparmor=, label= and others; see docs.", PRIVILEGE),
    (("--seccomp-log",), "seccomp_log", FLAG, "", "The kernel's log tells what the filter denies.", PRIVILEGE),
    (("--disable-userns",), "disable_userns", FLAG, "", "No user namespace can be made inside.", PRIVILEGE),
    (("--ulimit",), "ulimit", MANY, "NAME=SOFT[:HARD]", "Resource limit.", PRIVILEGE),
    (("--sysctl",), "sysctl", MANY, "KEY=VALUE", "Kernel setting of the container's own namespaces.", PRIVILEGE),
    (("--oom-score-adj",), "oom_score_adj", VALUE, "N", "-1000 (never) to 1000 (first).", PRIVILEGE),
    (("--device",), "device", MANY, "SRC[:DST[:rwm]]", "A device of the host, made in /dev and allowed.", PRIVILEGE),
    (("--device-cgroup-rule",), "device_cgroup_rule", MANY, "RULE", "Allow devices, as 'c 10:* rw'.", PRIVILEGE),
    # --- landlock ---
    (("--ro",), "ro", MANY, "PATH", "May be read and executed, and all below it.", LANDLOCK),
    (("--rw",), "rw", MANY, "PATH", "May be used in every way, and all below it.", LANDLOCK),
    (("--landlock-access",), "landlock_access", MANY, "fs[:RIGHTS]", "Deny these alone, as in setpriv.", LANDLOCK),
    (("--landlock-rule",), "landlock_rule", MANY, "RULE", "path-beneath:RIGHTS:PATH, as in setpriv.", LANDLOCK),
    (("--landlock-bind",), "landlock_bind", MANY, "PORT", "Listen on this TCP port only; or none.", LANDLOCK),
    (("--landlock-connect",), "landlock_connect", MANY, "PORT", "Connect to this TCP port only; or none.", LANDLOCK),
    (("--landlock-scope",), "landlock_scope", MANY, "SCOPE", "signal, abstract-unix-socket: none outside.", LANDLOCK),
    (("--landlock-ignore-missing",), "landlock_ignore_missing", FLAG, "", "Paths may be missing.", LANDLOCK),
    (("--landlock-log",), "landlock_log", FLAG, "", "What is denied goes to the audit log.", LANDLOCK),
    # --- resources ---
    (("-m", "--memory"), "memory", VALUE, "SIZE", "Memory; as much swap, if not said.", RESOURCES),
    (("--memory-swap",), "memory_swap", VALUE, "SIZE", "Memory and swap together; -1 is no limit.", RESOURCES),
    (("--memory-reservation",), "memory_reservation", VALUE, "SIZE", "Kept while others have to spare.", RESOURCES),
    (("--memory-swappiness",), "memory_swappiness", VALUE, "N", "0 to 100; cgroup v1.", RESOURCES),
    (("--oom-kill-disable",), "oom_kill_disable", FLAG, "", "At the limit wait, not die; cgroup v1.", RESOURCES),
    (("--cpus",), "cpus", VALUE, "N", "Processors' worth of time, as 1.5.", RESOURCES),
    (("-c", "--cpu-shares"), "cpu_shares", VALUE, "N", "Share of the time, 2 to 262144; 1024 is normal.", RESOURCES),
    (("--cpu-quota",), "cpu_quota", VALUE, "US", "Microseconds in each period.", RESOURCES),
    (("--cpu-period",), "cpu_period", VALUE, "US", "Length of a period; 100000 if not given.", RESOURCES),
    (("--cpuset-cpus",), "cpuset_cpus", VALUE, "LIST", "Processors, as 0-3,5.", RESOURCES),
    (("--cpuset-mems",), "cpuset_mems", VALUE, "LIST", "Memory nodes, as 0,1.", RESOURCES),
    (("--pids-limit",), "pids_limit", VALUE, "N", "Processes and threads at once; -1 is no limit.", RESOURCES),
    (("--blkio-weight",), "blkio_weight", VALUE, "N", "Share of block devices, 10 to 1000.", RESOURCES),
    (("--blkio-weight-device",), "blkio_weight_device", MANY, "DEV:N", "Share of one block device.", RESOURCES),
    (("--device-read-bps",), "device_read_bps", MANY, "DEV:SIZE", "Bytes read a second.", RESOURCES),
    (("--device-write-bps",), "device_write_bps", MANY, "DEV:SIZE", "Bytes written a second.", RESOURCES),
    (("--device-read-iops",), "device_read_iops", MANY, "DEV:N", "Reads a second.", RESOURCES),
    (("--device-write-iops",), "device_write_iops", MANY, "DEV:N", "Writes a second.", RESOURCES),
    (("--cgroup-conf",), "cgroup_conf", MANY, "FILE=TEXT", "A file of its v2 group, as memory.high=1G.", RESOURCES),
    (("--cgroup-parent",), "cgroup_parent", VALUE, "PATH", "Group that its own are made in.", RESOURCES),
    # --- network ---
    (("--net", "--network"), "net", MANY, "NET", "none, host, bridge, container:NAME; see docs.", NETWORK),
    (("-p", "--publish"), "publish", MANY, "[HOST:]PORT", "[[IP:]HOST:]PORT[/udp|sctp], ranges too.", NETWORK),
    (("--publish-proxy",), "publish_proxy", OPTIONAL, "only", "Ports by a process too, or only by it.", NETWORK),
    (("-P", "--publish-all"), "publish_all", FLAG, "", "Each exposed port at a free one of the host.", NETWORK),
    (("--expose",), "expose", MANY, "PORT[/udp]", "A port for --publish-all.", NETWORK),
    (("--egress",), "egress", MANY, "RULES", "What it may reach: none, or allow= and deny=.", NETWORK),
    (("--ip",), "ip", VALUE, "ADDRESS", "IPv4 address; else one that is free.", NETWORK),
    (("--ip6",), "ip6", VALUE, "ADDRESS", "IPv6 address, in a network that has IPv6.", NETWORK),
    (("--mac-address",), "mac_address", VALUE, "MAC", "Of its first device.", NETWORK),
    (("--network-alias",), "network_alias", MANY, "NAME", "Its neighbours call it so too.", NETWORK),
    (("--add-host",), "add_host", MANY, "NAME:IP", "In /etc/hosts; IP or host-gateway.", NETWORK),
    (("--dns",), "dns", MANY, "ADDRESS", "Name server; none: the image's file.", NETWORK),
    (("--dns-search",), "dns_search", MANY, "DOMAIN", "Short names are looked for in it; . is none.", NETWORK),
    (("--dns-option",), "dns_option", MANY, "OPTION", "Of resolv.conf, as ndots:2.", NETWORK),
    (("--no-hosts",), "no_hosts", FLAG, "", "/etc/hosts is the image's.", NETWORK),
    (("--no-hostname",), "no_hostname", FLAG, "", "/etc/hostname is the image's.", NETWORK),
    # --- namespaces ---
    (("--pid",), "pid", VALUE, "NS", "Process ids.", NAMESPACES),
    (("--ipc",), "ipc", VALUE, "NS", "System V IPC and POSIX message queues.", NAMESPACES),
    (("--uts",), "uts", VALUE, "NS", "Host name and domain name.", NAMESPACES),
    (("--userns",), "userns", VALUE, "NS", "User and group ids; also auto[:size=N].", NAMESPACES),
    (("--cgroupns",), "cgroupns", VALUE, "NS", "What /proc/self/cgroup shows.", NAMESPACES),
    (("--time",), "time", VALUE, "NS", "Monotonic and boot time clocks.", NAMESPACES),
    (("--uidmap",), "uidmap", MANY, "IN:OUT:COUNT", "User ids (as --userns private).", NAMESPACES),
    (("--gidmap",), "gidmap", MANY, "IN:OUT:COUNT", "Group ids (as --userns private).", NAMESPACES),
    (("--time-offset",), "time_offset", MANY, "CLOCK=SEC", "monotonic, boottime (as --time private).", NAMESPACES),
    # --- running ---
    (("-i", "--interactive"), "interactive", FLAG, "", "Keep standard input open; without -d it always is.", RUNNING),
    (("-t", "--tty/--no-tty"), "tty", FLAG, "", "A terminal, or none; else one if called from one.", RUNNING),
    (("--timeout",), "timeout", VALUE, "TIME", "Stop after 90, 2.5, 1m30s; exit code 124.", RUNNING),
    (("--trace",), "trace", OPTIONAL, "FILE", "Time line of the start; =FILE writes Chrome JSON.", RUNNING),
    (("--json-status-fd",), "json_status_fd", VALUE, "FD", "Write child-pid and exit-code there, as JSON.", RUNNING),
    (("--preserve-fds",), "preserve_fds", VALUE, "N", "Pass file descriptors 3 to 3+N-1 on.", RUNNING),
    (("--die-with-parent",), "die_with_parent", FLAG, "", "Be killed when the caller dies.", RUNNING),
)

PLAN_OPTIONS: tuple[Row, ...] = (
    (("--format",), "format", VALUE, "text|json", "How the plan is printed.", PLAN),
    (("--diff",), "diff", VALUE, "PROFILE", "Print only what differs from a plain profile.", PLAN),
)

RECORD_OPTIONS: tuple[Row, ...] = (
    (("-o", "--output"), "output", VALUE, "FILE", "Where it is written; recorded.json.", RECORDING),
    (("--once",), "once", FLAG, "", "Do not run it again with what was recorded.", RECORDING),
    (("--any-exit",), "any_exit", FLAG, "", "Write even if it ends with an exit code other than 0.", RECORDING),
)

# A container that outlives the command that made it.
KEPT_OPTIONS: tuple[Row, ...] = (
    (("--replace",), "replace", FLAG, "", "Remove another of this --name first.", KEPT),
    (("--cidfile",), "cidfile", VALUE, "FILE", "Write the id there.", KEPT),
    (("--pidfile",), "pidfile", VALUE, "FILE", "Write the pid of its first process there.", KEPT),
    (("--log-driver",), "log_driver", VALUE, "NAME", "k8s-file, or none.", KEPT),
    (("--log-opt",), "log_opt", MANY, "KEY=VALUE", "max-size=SIZE, max-file=N.", KEPT),
    (("--stop-timeout",), "stop_timeout", VALUE, "TIME", "Until stop kills it; 10 seconds.", KEPT),
)
EXPLAIN: Row = (
    *(("--explain-denials",), "explain_denials", OPTIONAL, "FILE"),
    *("Tell what was denied, and why; =FILE writes JSON.", RUNNING),
)
DETACH: Row = (("-d", "--detach"), "detach", FLAG, "", "In the background; prints the id.", KEPT)

GROUPS = (
    *(RECORDING, CONTAINER, PROGRAM, FILES, PRIVILEGE, LANDLOCK, RESOURCES, NETWORK, NAMESPACES, RUNNING, KEPT, PLAN),
)

_NAMES = "containers of one network find each other by name; --network-alias gives more names"
_DAEMON = "there is no daemon, and one runtime"
_IMAGES = "there are no images: --rootfs names a directory"
_HEALTH = "there are no health checks"
_REALTIME = "distributions build their kernels without real-time groups (CONFIG_RT_GROUP_SCHED)"

# Options of docker that are knowingly not here: (flags, reason). Refused by name, so that nobody guesses.
REFUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("--kernel-memory",), "the kernel's memory counts in --memory; a limit of its own is gone since Linux 5.16"),
    (("--cpu-rt-period", "--cpu-rt-runtime"), _REALTIME),
    (("--cpu-count", "--cpu-percent"), "is of Windows; --cpus limits processor time"),
    (("--link",), _NAMES),
    (("--net-alias",), "its other name is known here: --network-alias"),
    (("--dns-opt",), "its other name is known here: --dns-option"),
    (("--link-local-ip",), "a device has the link-local address that the kernel gives it"),
    (("--detach-keys", "--sig-proxy", "-a", "--attach"), "run -d, then attach: that one knows it"),
    (("--restart",), "minictr generate systemd NAME writes a unit: starting again is init's matter"),
    (("--pull", "--platform", "--disable-content-trust", "--storage-opt", "-q", "--quiet"), _IMAGES),
    (("--entrypoint",), "there is no entry point: the command is run as given"),
    (("-l", "--label", "--label-file", "--annotation"), "there is no store of containers to label"),
    (("--health-cmd", "--health-interval", "--health-retries", "--health-start-interval"), _HEALTH),
    (("--health-start-period", "--health-timeout", "--no-healthcheck"), _HEALTH),
    (("--gpus", "--cdi"), "name the device nodes with --device, and bind the driver's libraries with -v"),
    (("--group-add",), "supplementary groups are those of the user in the container's /etc/group"),
    (("--volumes-from",), "there is no other container to take volumes from; name them with -v"),
    (("--volume-driver",), "volumes are directories of the host: -v SRC:DST"),
    (("--runtime", "--isolation", "--io-maxbandwidth", "--io-maxiops", "--use-api-socket"), _DAEMON),
)

TABLES = {
    "run": (*RUN_OPTIONS, EXPLAIN, DETACH, *KEPT_OPTIONS),
    "plan": PLAN_OPTIONS + RUN_OPTIONS,
    "create": RUN_OPTIONS + KEPT_OPTIONS,
    "record": RECORD_OPTIONS + RUN_OPTIONS,
}
REFUSALS = dict.fromkeys(TABLES, REFUSED)
