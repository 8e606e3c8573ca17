"""A service in the background, as a supervisor written in Python would keep it. Needs root and a Debian with nginx:

    minictr rootfs debian --include nginx-light,python3 ./debian
    python service.py ./debian

Proves: nginx runs under the default profile as it is, answers, keeps within its limits, and is found by its name; its
log and its exit code outlive it until it is removed, and nothing else of it does.
"""

from __future__ import annotations

import sys
import time

import minictr as mc

FETCH = "import urllib.request as u; print(u.urlopen('http://127.0.0.1/', timeout=5).status)"


def main(rootfs: str) -> None:
    box = mc.Container(rootfs, name="lab-web").with_(mc.Overlay(), mc.Memory("128M"), mc.Pids(64))
    web = box.start(["nginx", "-g", "daemon off; error_log stderr notice;"])
    try:
        print(f"answers: {answer(web)}")
        print(f"processes: {sum('nginx' in row.command for row in web.top())} of nginx")
        usage = mc.container("lab-web").stats()  # by name: any process of this user can
        print(f"memory: below its limit of {usage.memory.limit >> 20} MiB: {usage.memory.peak < usage.memory.limit}")
        web.stop(timeout=10)
        print(f"stopped: {web.status}, exit code {web.returncode}")
        log = b"".join(data for _when, _stream, data in web.logs())
        print(f"log: {log.count(b'start worker process ')} workers started")
    finally:
        web.remove(force=True)
    print(f"left: {[each.name for each in mc.containers(all=True) if each.name == 'lab-web']}")


def answer(web: mc.Instance) -> str:
    """The status of a request from inside, where its network is; asked until it is there."""
    for _ in range(100):
        done = web.exec(["python3", "-c", FETCH], capture_output=True, text=True)
        if done.returncode == 0:
            return str(done.stdout).strip()
        time.sleep(0.1)
    raise SystemExit("it does not answer")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
