"""A judge for submitted programs: each is run with limits, and gets a verdict. Needs root.

Proves: an endless loop, a fork bomb's first step, a write to the system and a look at the network end as they should,
and none of them harms the next one.
"""

from __future__ import annotations

import tempfile

import minictr as mc
from minictr.images.minimal import minimal

SUBMISSIONS = {
    "right answer": "read a b; echo $((a + b))",
    "wrong answer": "echo 5",
    "crash": "kill -SEGV $$",
    "endless loop": "while :; do :; done",
    "sleeps for ever": "sleep 1000",
    "too much output": "while :; do echo 0123456789012345678901234567890123456789; done",
    "writes to the system": "echo 42 > /etc/passwd && echo 42",
    "fills the disk": "head -c 20000000 /dev/zero > /tmp/big && echo 42",
    "looks for a network": "exec 3<>/dev/tcp/192.0.2.1/80 && echo 42",
}


def judge(box: mc.Container, program: str) -> str:
    with tempfile.TemporaryFile() as output:  # a file: what the program writes is limited by fsize
        try:
            done = box.run(["bash", "-c", program], input=b"40 2\n", stdout=output, stderr=mc.DEVNULL, timeout=3)
        except mc.TimeoutExpired:
            return "time limit"
        output.seek(0)
        answer = output.read(100)
    if done.signal == 24 or done.signal == 9:
        return "cpu time limit"
    if done.signal == 25:
        return "output limit"
    if done.signal:
        return f"killed by signal {done.signal}"
    return "accepted" if (done.returncode, answer) == (0, b"42\n") else f"wrong (exit code {done.returncode})"


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        image = minimal(f"{work}/root", ["bash", "@coreutils"]).directory
        limits = mc.Rlimits((("cpu", 1, 2), ("fsize", 1 << 20, 1 << 20), ("core", 0, 0), ("nofile", 32, 32)))
        features = (mc.ReadonlyRoot(), mc.Tmpfs("/tmp", size="1M"), mc.Identity("65534"), mc.Capabilities(()), limits)
        box = mc.Container(image).with_(*features)
        for name, program in SUBMISSIONS.items():
            print(f"{name:22} {judge(box, program)}")


if __name__ == "__main__":
    main()
