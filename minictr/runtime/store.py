"""Where containers are written down: a directory of ours, one directory a container, one link a name.

::

    ROOT/containers/ID/    see runtime/record.py
    ROOT/names/NAME        symbolic link to ID: making it is what takes the name
    ROOT/events            see runtime/events.py

ROOT is what :func:`choose_root` said (``--root``), else ``MINICTR_ROOT``, else /run/minictr for root, and for others
``XDG_RUNTIME_DIR``/minictr. All of it is the user's alone: who could write here could make us kill or remove
what is not ours.
"""

from __future__ import annotations

import os

from minictr.errors import NoSuchContainer, SpecError, StateError

__all__ = ["ID_DIGITS", "SHORT", "Store", "choose_root", "root_path"]

ID_DIGITS = 64  # hexadecimal digits of an id, as docker's
SHORT = 12  # how many of them are shown
FORBIDDEN_BITS = 0o022  # write access of group and others

_chosen = ""  # for the whole process; not by its environment, which a container may be given


def choose_root(path: str) -> None:
    """PATH is where state lives from now on, for whoever names no other root. SpecError when it is empty."""
    global _chosen
    if not path:
        raise SpecError("--root: empty: name a directory")
    _chosen = os.path.abspath(path)


def root_path(root: str | os.PathLike[str] = "") -> str:
    """Where state lives: ROOT, or what was chosen, or what the environment says."""
    path = os.fspath(root) or _chosen or os.environ.get("MINICTR_ROOT", "") or default_root()
    return path if path == _chosen else os.path.abspath(path)  # that one is absolute


class Store:
    """The containers of one root directory. Nothing is made on disk before the first container is."""

    def __init__(self, root: str | os.PathLike[str] = "") -> None:
        self.path = root_path(root)
        self.containers = os.path.join(self.path, "containers")
        self.names = os.path.join(self.path, "names")

    def ensure(self) -> None:
        """The directories, made if missing. Raises StateError when they are somebody else's."""
        try:
            for path in (self.path, self.containers, self.names):
                try:
                    os.mkdir(path, 0o700)
                except FileExistsError:
                    pass
                except FileNotFoundError:
                    os.makedirs(path, 0o700)
        except OSError as err:
            cure = "name a directory that can be written: --root or MINICTR_ROOT"
            raise StateError(f"make state directory {path}: {os.strerror(err.errno or 0)}; {cure}") from err
        self.check()

    def check(self) -> None:
        """Raise StateError unless the directories are the user's alone."""
        for path in (self.path, self.containers, self.names):
            try:
                stat = os.lstat(path)
            except FileNotFoundError:
                continue
            except OSError as err:
                raise StateError(f"state directory {path}: {os.strerror(err.errno or 0)}") from err
            if stat.st_mode >> 12 != 0o04:
                raise StateError(f"state directory {path}: is not a directory: move it away, or choose another --root")
            if stat.st_uid not in (0, os.geteuid()) or stat.st_mode & FORBIDDEN_BITS:
                who = f"uid {stat.st_uid}, mode {stat.st_mode & 0o7777:04o}"
                raise StateError(
                    f"state directory {path} is open to others ({who}): choose another --root, or chmod go-w"
                )

    def ids(self) -> list[str]:
        """The ids of all containers, in no order. Other entries of the directory are not ours and not looked at."""
        try:
            names = os.listdir(self.containers)
        except FileNotFoundError:
            return []
        except OSError as err:
            raise StateError(f"read {self.containers}: {os.strerror(err.errno or 0)}") from err
        return [name for name in names if is_id(name)]

    def named(self, name: str) -> str:
        """The id that NAME stands for, or ""."""
        try:
            target = os.readlink(os.path.join(self.names, name))
        except OSError:
            return ""
        return target if is_id(target) else ""

    def candidates(self, word: str) -> list[str]:
        """The ids that WORD may stand for: the one so named, or all that begin so. SpecError if it can be neither."""
        if not word or not (word[0].isalnum() and word.replace("-", "").replace("_", "").replace(".", "").isalnum()):
            raise SpecError(f"container {word!r}: neither a name nor an id")
        found = self.named(word)
        if found and os.path.isdir(os.path.join(self.containers, found)):
            return [found]
        return [one for one in self.ids() if one.startswith(word)]

    def lookup(self, word: str) -> str:
        """The id of the container called WORD: its name, its id, or a beginning of its id that no other has.

        Raises NoSuchContainer; SpecError for what can be neither.
        """
        matches = self.candidates(word)
        if len(matches) == 1:
            return matches[0]
        if matches:
            some = ", ".join(sorted(one[:SHORT] for one in matches)[:4])
            raise NoSuchContainer(f"container {word}: {len(matches)} ids begin so ({some}): give more digits")
        raise NoSuchContainer(f"no container {word}: minictr ps -a lists those there are (below {self.path})")

    def take_name(self, name: str, identity: str) -> None:
        """NAME stands for the container IDENTITY from now on. SpecError when it stands for another."""
        path = os.path.join(self.names, name)
        for _ in range(3):
            try:
                os.symlink(identity, path)
                return
            except FileExistsError:
                owner = self.named(name)
            except OSError as err:
                raise StateError(f"write {path}: {os.strerror(err.errno or 0)}") from err
            if owner == identity:
                return
            if owner and os.path.isdir(os.path.join(self.containers, owner)):
                cure = f"remove it (minictr rm {name}), or choose another name"
                raise SpecError(f"name {name} is taken by container {owner[:SHORT]}: {cure}")
            self._drop_stale(path, owner)
        raise StateError(f"name {name}: {path} changes all the time")

    def _drop_stale(self, path: str, owner: str) -> None:
        """Remove a name whose container is gone; only that one, whoever else is at it."""
        try:
            if os.readlink(path) == owner or not owner:
                os.unlink(path)
        except OSError:
            return

    def names_of(self, identity: str) -> list[str]:
        """Every name that stands for IDENTITY: one, but for a rename that was interrupted."""
        try:
            names = os.listdir(self.names)
        except OSError:
            return []
        return sorted(name for name in names if self.named(name) == identity)

    def drop_name(self, name: str, identity: str) -> None:
        """NAME is free again, if it stood for IDENTITY."""
        if name and self.named(name) == identity:
            try:
                os.unlink(os.path.join(self.names, name))
            except FileNotFoundError:
                pass


def is_id(text: str) -> bool:
    """Whether TEXT is an id of ours."""
    return len(text) == ID_DIGITS and text.isascii() and text.isalnum() and text == text.lower()


def default_root() -> str:
    """Where state lives when nobody says: lost at the next boot, as the containers are."""
    uid = os.geteuid()
    if uid == 0:
        return "/run/minictr"
    for place in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        if place.startswith("/") and os.access(place, os.W_OK):
            return os.path.join(place, "minictr")
    return os.path.join(os.environ.get("TMPDIR", "/tmp"), f"minictr-{uid}")
