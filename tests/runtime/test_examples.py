"""Every program in examples/ runs, and prints what it says it proves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import minictr as mc

OF_DEBIAN = {"service", "system_container"}  # they are given a root: tests/life
EXAMPLES = [
    path
    for path in sorted((Path(__file__).resolve().parent.parent.parent / "examples").glob("*.py"))
    if path.stem not in OF_DEBIAN
]

# Lines that must be there, in order. An example without a row here must only run and print something.
PROOFS = {
    "run_like_subprocess": [
        "exit code 3, host name minictr, process 2",
        "host name outside: another",
        "THROUGH A PIPE",
        "kill -9 $$: returncode -9, signal 9",
        "timeout: 'sleep 60' timed out after 0.2 seconds; killed by signal 9",
        "CommandNotFound, exit code 127",
        "running: True, said: hello",
    ],
    "userns_auto": [
        "both have ids 0 to 65535 inside; apart outside: True",
        "/etc/passwd of the running one is its root's: True",
        "inside: ['root', 'root']; on disk the new file is user 0's",
        "user namespaces inside: 0",
    ],
    "sandbox_judge": [
        "right answer           accepted",
        "wrong answer           wrong (exit code 0)",
        "crash                  killed by signal 11",
        "endless loop           cpu time limit",
        "sleeps for ever        time limit",
        "too much output        output limit",
        "writes to the system   wrong (exit code 1)",
        "fills the disk         wrong (exit code 153)",
        "looks for a network    wrong (exit code 1)",
    ],
    "ablation": ["- mnt            cannot be left out", "- masked_paths", "- no_new_privs     2 fewer", "- init"],
    "async_many": [
        "50 containers of half a second each, all right: True",
        "side by side: True",
        "cancelled: True, gone in less than a second: True",
    ],
    "landlock": [
        "without it                                 secret file directory beside port",
        "the system's programs may be read          port",
        "and all done in out                        file directory port",
        "or files made there only                   file port",
        "make_dir denied, and nothing else          secret file beside port",
        "no port at all                             secret file directory beside\n",
        "that port only                             secret file directory beside port",
    ],
    "network": [
        "a container has bridge conntrack nat publish veth",
        "its address: 10.99.7.2",
        "127.0.0.1:8080 says: hello 10.99.7.1",
        "127.0.0.1:8080 afterwards: Connection refused",
        "left here: lo\n",
    ],
    "denials": [
        "seccomp          unshare(0x20000)",
        "--cap-add SYS_ADMIN",
        "capability       mknodat(/tmp/null, 020666, 0x103)",
        "CAP_MKNOD is missing; --cap-add MKNOD",
        "read-only mount  openat(/proc/sys/kernel/domainname, O_WRONLY|O_CREAT|O_TRUNC, 0666)",
        "masked path      openat(/proc/interrupts, O_RDONLY)",
        "with both capabilities: read-only mount; masked path;",
        "not observed: ()",
    ],
    "seccomp_filter": [
        "mkdir on x86_64: errno EDQUOT, by rule 1",
        "socket on x86_64: allow, by default",
        "mkdir with the default policy: made",
        "mkdir with the filter: Disk quota exceeded",
        "arches: x86_64 x86 x32 -> x86_64 x86",
    ],
    "notify": [
        "mknod on x86_64: notify, by rule" if os.uname().machine == "x86_64" else "mknod on",
        "mknod /dev/mine: done, as it seems",
        "/dev/other: Disk quota exceeded",
        "what only the host can read",
        "/tmp/x': Operation not permitted",
        "raised: RuntimeError('no rule for directories')",
        "asked about openat: True",
        "exec: done, as it seems",
    ],
    "custom_features": [
        "processes seen: 0",
        "with pid and proc: processes seen: 1",
        "with uts and hostname: lab inside, as before outside",
        "with user, umask and cwd: 1234 5678 0077 /tmp",
        "with overlay: written b'x\\n', in the image afterwards: []",
        "+setup",
    ],
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_and_proves_what_it_says(path, requires):
    requires.root()
    if path.stem.endswith("landlock"):
        requires.landlock(6)
    environment = {**os.environ, "PYTHONPATH": str(Path(mc.__file__).parent.parent)}
    command = [sys.executable, "-W", "error", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout and not done.stderr
    rest = done.stdout
    for proof in PROOFS.get(path.stem, []):
        before, found, rest = rest.partition(proof)
        assert found, f"no {proof!r} after {before!r}"


def test_each_of_ours_is_there():
    assert set(PROOFS) <= {path.stem for path in EXAMPLES}
