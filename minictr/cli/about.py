"""What help says of every verb: its line in the overview, its words, its text. Read by click's side only."""

from __future__ import annotations

# subject -> verbs, in the order of the overview
SUBJECTS: dict[str, tuple[str, ...]] = {
    "Run": ("run", "create", "start", "exec", "attach"),
    "Look": ("ps", "top", "stats", "logs", "inspect", "events", "diff"),
    "Change": ("update", "rename", "pause", "unpause", "cp", "commit"),
    "End": ("wait", "stop", "kill", "rm", "gc"),
    "Prepare": ("plan", "record", "features", "doctor", "rootfs", "network", "generate", "completion", "version"),
}

# verb -> (line of the overview, words after the options, what help says)
ABOUT: dict[str, tuple[str, str, str]] = {
    "run": (
        "Run a command in a container.",
        "COMMAND [ARGUMENT]...",
        """Run COMMAND in a container.

        The first word that is not an option is the command; all after it is its own. Exit code: the program's own;
        125 minictr failed, 126 not executable, 127 not found, 128+N killed by signal N, 124 --timeout.""",
    ),
    "record": (
        "Run a command observed, and write down the least that it needs.",
        "COMMAND [ARGUMENT]...",
        """Run COMMAND in a container, and write what it needed: a seccomp profile, capabilities and Landlock's paths.

        It is run again with just that, until nothing is missing; so it should do the same twice. With --once it is run
        once. The file is OCI's config.json; the last line printed is the command that confines to it.""",
    ),
    "create": (
        "Set a container up to just before its command.",
        "COMMAND [ARGUMENT]...",
        """Set the container of COMMAND up to its last step, and print its id; 'minictr start' lets it go.

        Namespaces, mounts, limits and the program's identity are all there; the program itself is not yet executed.""",
    ),
    "exec": (
        "Run a command in a running container.",
        "NAME COMMAND [ARGUMENT]...",
        """Run COMMAND in container NAME, which runs.

        It joins all that the container has, and is confined as its program is. Exit codes are those of run.""",
    ),
    "plan": (
        "Print what run would do.",
        "COMMAND [ARGUMENT]...",
        "Print every kernel operation that 'minictr run' with the same words would do, in order. Does none.",
    ),
    "ps": (
        "List containers.",
        "",
        """List the containers that run; with -a all of them.

        One whose state on disk cannot be read is listed as damaged.""",
    ),
    "top": (
        "List the processes of a container.",
        "NAME [PS OPTION]...",
        """List the processes of the container NAME.

        PID is as the host counts, NSPID as the container does. With options of ps(1), ps prints the table.""",
    ),
    "stats": (
        "Show what containers use, live.",
        "[NAME]...",
        """Show what the containers named use, or all that run, anew every second.

        CPU % is of one processor; THROTTLED % is the part of its periods in which --cpus stopped it.""",
    ),
    "logs": (
        "Print a container's output.",
        "NAME",
        """Print what the container NAME wrote: its standard output to ours, its standard error to ours.

        TIME is 2024-05-01T10:00:00Z, seconds since 1970, or so long ago: 90s, 10m, 1h30m.""",
    ),
    "inspect": (
        "Print all that is known of containers.",
        "NAME...",
        """Print a JSON list with all that is known of each container. The fields are described in docs/life.md.

        With --effective, or --diff A B, a table (or --format json) of what truly confines a process, read from the
        kernel: of a container, or by its process id of anything else. The fields: docs/features/isolation.md.""",
    ),
    "wait": ("Wait for containers to end.", "NAME...", "Wait for each container to end, and print its exit code."),
    "start": (
        "Start containers that were created, or ended.",
        "NAME...",
        "Start each container; with -a or -i one, and stay with it until it ends. Exit code then: the program's own.",
    ),
    "attach": (
        "Connect to a running container.",
        "NAME",
        """Connect our input and output to those of the container NAME.

        ctrl-p ctrl-q leaves it running. Exit code: the program's own when it ended, 0 when it was left running.""",
    ),
    "stop": (
        "Stop containers.",
        "NAME...",
        "Send each container its stop signal, and kill it when it still runs after 10 seconds.",
    ),
    "kill": (
        "Send containers a signal.",
        "NAME...",
        "Send a signal, KILL if none is named, to the first process of each container.",
    ),
    "pause": ("Freeze containers.", "NAME...", "Freeze every process of each container (feature freezer)."),
    "unpause": ("Let frozen containers go on.", "NAME...", "Let each container that was frozen go on."),
    "rename": ("Rename a container.", "OLD NEW", "Call the container OLD by the name NEW. Its host name stays."),
    "rm": ("Remove containers.", "NAME...", "Remove what is left of each container that is over; with -f of any."),
    "update": (
        "Change the limits of containers.",
        "NAME...",
        "Change limits of containers, all or none of them: what was written is put back when a write fails.",
    ),
    "events": (
        "Print what happens to containers.",
        "",
        """Print what happens to containers, from now on, or from --since on.

        TIME is 2024-05-01T10:00:00Z, seconds since 1970, or so long ago: 90s, 10m, 1h30m.""",
    ),
    "gc": (
        "Take back what was left behind.",
        "",
        "Remove what containers left whose runtime was killed, and print a line for each thing removed.",
    ),
    "generate": (
        "Write a unit file for systemd.",
        "systemd NAME",
        """Write a unit for systemd that runs the container NAME at boot and restarts it.

        Restarting is init's job: there is no daemon that could. The unit runs the words that made the container.""",
    ),
    "cleanup": ("", "NAME", "What a container's monitor executes at its end. For people there is gc."),
    "features": ("List every feature, and whether it can be had here.", "", ""),
    "doctor": ("Try what containers need here, and say who refuses the rest.", "", ""),
    "rootfs": ("Make a root file system.", "", ""),
    "network": ("Make, list, repair and remove networks.", "", ""),
    "cp": ("Copy files between a container and the host.", "", ""),
    "diff": ("List what changed in a container's layer.", "", ""),
    "commit": ("Keep a container's layer as a directory or a tarball.", "", ""),
    "completion": ("Print the completion script of a shell.", "", ""),
    "version": ("Print the version.", "", ""),
}
