"""Which security module confines this process, and what it can give the next program.

Proves: a module that is not live is told from one that is; where AppArmor or SELinux is live, a label that is asked for
is read back by the program that has it.
"""

from __future__ import annotations

import os

from minictr.errors import Unsupported
from minictr.kernel import apparmor, labels, selinux


def own_label(set_label: object, label: str, path: str) -> None:
    """A child asks for the label it has, and the program it becomes says which one that is."""
    child = os.fork()
    if child == 0:
        set_label(label)  # type: ignore[operator]
        os.execv("/bin/cat", ["cat", f"/proc/self/attr/{path}"])
    assert os.waitpid(child, 0)[1] == 0
    print(flush=True)


def main() -> None:
    print(f"modules: {', '.join(labels.active()) or 'not to be seen'}", flush=True)
    for name, module in (("apparmor", apparmor), ("selinux", selinux)):
        support = module.probe()[name]
        print(f"{name}: live {module.enabled()}, can be had: {support}", flush=True)
    confined = apparmor.current()
    if confined is None:
        try:
            apparmor.check("docker-default")
        except Unsupported as err:
            print(f"asked for all the same: {err.reason}", flush=True)
    else:
        own_label(apparmor.exec_label, confined.profile, "apparmor/current")
    context = selinux.current()
    if context is not None:
        own_label(selinux.exec_context, context, "current")


if __name__ == "__main__":
    main()
