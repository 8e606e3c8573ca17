"""Programs of the host, in its own root, that may reach only what is named: no container, no privilege.

Proves: what no rule names cannot be read or made, nor a TCP port connected to; each right is a word that can be added
or left out; and what is not asked for stays as it was.
"""

from __future__ import annotations

import os
import socket
import tempfile

import minictr as mc

SYSTEM = tuple(path for path in ("/usr", "/bin", "/lib", "/lib64", "/dev/null") if os.path.exists(path))
QUIET = ("/dev/null", ("write_file",))
SCRIPT = """
tried() { if bash -c "$2" 2>/dev/null >/dev/null; then echo "$1"; fi; }
tried secret "cat secret"
tried file "touch out/file"
tried directory "mkdir out/directory"
tried beside "touch beside"
tried port "echo >/dev/tcp/127.0.0.1/$1"
"""


def done(wish: mc.Feature | None, directory: str, port: int) -> str:
    """What a shell could do there, of all that SCRIPT tries."""
    os.mkdir(f"{directory}/out")
    with open(f"{directory}/secret", "w", encoding="utf-8") as file:
        file.write("secret\n")
    box = mc.Container(features=[mc.NoNewPrivs(), *([wish] if wish else [])])
    script = f"cd {directory}\n{SCRIPT}"
    answer = box.run(["bash", "-c", script, "-", str(port)], capture_output=True, text=True, check=True)
    return " ".join(answer.stdout.split()) or "nothing"


def main() -> None:
    print(f"landlock here: {mc.support('landlock')}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def show(words: str, make: object) -> None:
            with tempfile.TemporaryDirectory() as directory:
                out = f"{directory}/out"
                wish = make(out) if callable(make) else None
                print(f"{words:<42} {done(wish, directory, port)}")

        show("without it", None)
        show("the system's programs may be read", lambda out: mc.Landlock(SYSTEM, rules=(QUIET,)))
        show("and all done in out", lambda out: mc.Landlock(SYSTEM, rw=(out,), rules=(QUIET,)))
        few = ("make_reg", "write_file")
        show("or files made there only", lambda out: mc.Landlock(SYSTEM, rules=(QUIET, (out, few))))
        show("make_dir denied, and nothing else", lambda out: mc.Landlock(access=("make_dir",)))
        show("no port at all", lambda out: mc.Landlock(connect=()))
        show("that port only", lambda out: mc.Landlock(connect=(port,)))


if __name__ == "__main__":
    main()
