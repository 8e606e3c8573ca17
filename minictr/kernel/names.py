"""A file of our own over one of the root's, which stays as it is: /etc/hosts and its kin. Linux 5.12, open_tree(2)."""

from __future__ import annotations

from minictr.kernel import ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.steps import Support

__all__ = ["cover_file", "probe"]


def cover_file(path: str, text: str, *, by: str = "/dev") -> None:
    """PATH, in this mount namespace alone, is a new file with TEXT; a link there is covered itself, and not followed.

    BY: a directory on a file system that holds it; nothing is seen of it there. A missing PATH is made, empty, and the
    directory's age stays. Raises StepFailed: EPERM without CAP_SYS_ADMIN, ELOOP for a link on the way to PATH, ENOTDIR
    where it is a directory.

    >>> with namespaces.unshare("mnt"):
    ...     cover_file("/etc/hosts", "127.0.0.1 localhost\\n")
    """
    cure = "needs CAP_SYS_ADMIN, a mount namespace of its own, and no link on the way"
    ops.execute("etc_file", about=path, cure=cure, path=path, data=text.encode(), dir=by, source=-1, flags=0, beside=[])


def probe() -> dict[str, Support]:
    """Whether a file can lie over another: done in a child that ends at once."""
    from minictr.kernel.probing import tried

    return tried("names")
