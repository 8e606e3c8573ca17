"""A network without a daemon: a bridge, a container in it, a port of this host that leads there. Needs root and nft.

All of it in a network namespace of its own, so that this machine's network is left alone. Proves: what each feature
adds, that 127.0.0.1 leads to the container, and that nothing is left.
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import minictr as mc
from minictr.images.minimal import minimal
from minictr.kernel import links

FEATURES = ("veth", "bridge", "conntrack", "nat", "publish")


def ask() -> str:
    try:
        with socket.create_connection(("127.0.0.1", 8080), 5) as client:
            return client.recv(64).decode()
    except OSError as err:
        return err.strerror


def main(root: str) -> None:
    with mc.Bridge("lab0", "10.99.7.1/24") as lan:
        box = mc.Container(root).with_(*lan.features(), mc.Publish(8080, 80))
        with box.popen(["sleep", "60"]) as process:
            print("a container has", *sorted(box.spec().names.intersection(FEATURES)))
            with mc.enter(process.pid, "net"):
                print("its address:", next(row.address for row in links.addresses() if row.address.startswith("10.")))
                server = socket.create_server(("", 80))  # what the program would do: a socket is of its namespace
            with server, socket.create_connection(("127.0.0.1", 8080), 5) as client:
                served, who = server.accept()
                served.sendall(f"hello {who[0]}".encode())
                served.close()
                print("127.0.0.1:8080 says:", client.recv(64).decode())
            process.kill()
        for name in ("publish", "bridge"):
            print(f"without {name}:", *sorted(box.without(name).spec().names.intersection(FEATURES)))
        print("127.0.0.1:8080 afterwards:", ask())
    print("left here:", *(link.name for link in links.links()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, mc.unshare("net"):
        links.set_up(1)
        minimal(str(Path(directory) / "rootfs"), ("sleep", "true"))
        main(str(Path(directory) / "rootfs"))
