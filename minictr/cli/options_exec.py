"""The options of ``exec``, in the form of :mod:`minictr.cli.options`."""

from __future__ import annotations

from minictr.cli.options import CONTAINER, FLAG, MANY, OPTIONAL, PRIVILEGE, PROGRAM, RUNNING, VALUE, Row

EXEC_OPTIONS: tuple[Row, ...] = (
    # --- the container ---
    (("--without",), "without", MANY, "NAME", "Do not join this (net, memory), nor repeat it (user).", CONTAINER),
    # --- the program ---
    (("-e", "--env"), "env", MANY, "KEY[=VALUE]", "Set a variable; KEY alone copies the caller's.", PROGRAM),
    (("--env-file",), "env_file", MANY, "FILE", "Read variables from a file.", PROGRAM),
    (("-w", "--workdir"), "workdir", VALUE, "DIR", "Working directory; the container's if not given.", PROGRAM),
    (("-u", "--user"), "user", VALUE, "USER[:GROUP]", "Names from the container's own files, or ids.", PROGRAM),
    # --- privilege ---
    (("--cap-add",), "cap_add", MANY, "CAP", "Add a capability, or ALL.", PRIVILEGE),
    (("--cap-drop",), "cap_drop", MANY, "CAP", "Drop a capability, or ALL.", PRIVILEGE),
    (("--privileged",), "privileged", FLAG, "", "All capabilities, no filter, no Landlock, no label.", PRIVILEGE),
    (("--security-opt",), "security_opt", MANY, "OPT", "apparmor=... or label=... instead of its own.", PRIVILEGE),
    # --- running ---
    (("-d", "--detach"), "detach", FLAG, "", "Leave it to the container as soon as it runs.", RUNNING),
    (("-i", "--interactive"), "interactive", FLAG, "", "Accepted; standard input is always connected.", RUNNING),
    (("-t", "--tty/--no-tty"), "tty", FLAG, "", "A terminal, or none; else one if called from one.", RUNNING),
    (("--timeout",), "timeout", VALUE, "TIME", "Stop after 90, 2.5, 1m30s; exit code 124.", RUNNING),
    (("--trace",), "trace", OPTIONAL, "FILE", "Time line of the start; =FILE writes Chrome JSON.", RUNNING),
    (("--json-status-fd",), "json_status_fd", VALUE, "FD", "Write child-pid and exit-code there, as JSON.", RUNNING),
    (("--preserve-fds",), "preserve_fds", VALUE, "N", "Pass file descriptors 3 to 3+N-1 on.", RUNNING),
)

# Options of docker and runc that are knowingly not here: (flags, reason).
REFUSED = (
    (("--detach-keys",), "no keys are kept from the program; -d leaves it to the container"),
    (("--pid-file",), "--json-status-fd tells the pid"),
    (("-p", "--process"), "name the command, and give options"),
)

TABLES = {"exec": EXEC_OPTIONS}
REFUSALS = {"exec": REFUSED}
