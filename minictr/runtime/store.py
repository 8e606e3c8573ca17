"""Where containers are written down: a directory of ours, one directory a container, one link a name.

::

    ROOT/containers/ID/    see runtime/record.py
    ROOT/names/NAME        symbolic link to ID: making it is what takes the name
    ROOT/events            see runtime/events.py

ROOT is what :func:`choose_root` said (``--root``), else ``MINICTR_ROOT``, else /run/minictr for root, and for others
``XDG_RUNTIME_DIR``/minictr, or without one ``XDG_STATE_HOME``, ~/.local/state. All of it is the user's alone: who could
write here could make us kill or remove what is not ours.
"""

from __future__ import annotations

import os

from minictr.errors import NoSuchContainer, SpecError, StateError
from minictr.kernel.handles import shut

__all__ = ["ID_DIGITS", "SHORT", "Store", "choose_root", "root_path", "unlink"]

ID_DIGITS = 64  # hexadecimal digits of an id, as docker's
SHORT = 12  # how many of them are shown
ABSENT = frozenset({2, 20, 22})  # ENOENT; ENOTDIR; EINVAL: no link
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
        """The id that NAME stands for, or "", which is believed when it is said twice: it might stay for ever.

        Raises StateError when that cannot be known.
        """
        path = os.path.join(self.names, name)
        for _ in range(2):
            try:
                target = os.readlink(path)
                return target if is_id(target) else ""
            except OSError as err:
                if err.errno not in ABSENT:
                    raise StateError(f"read {path}: {os.strerror(err.errno or 0)}") from err
        return ""

    def has(self, identity: str) -> bool:
        """Whether the container IDENTITY has a directory. Raises StateError when that cannot be known."""
        return is_directory(os.path.join(self.containers, identity))

    def candidates(self, word: str) -> list[str]:
        """The ids that WORD may stand for: the one so named, or all that begin so. SpecError if it can be neither."""
        if not word or not (word[0].isalnum() and word.replace("-", "").replace("_", "").replace(".", "").isalnum()):
            raise SpecError(f"container {word!r}: neither a name nor an id")
        for _ in range(2):  # that there is none is believed when it is said twice: rm -f goes by it
            found = self.named(word)
            if found and self.has(found):
                return [found]
            matches = [one for one in self.ids() if one.startswith(word)]
            if matches:
                return matches
        return []

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
            if owner and self.has(owner):
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
            unlink(os.path.join(self.names, name))


def unlink(path: str, *, directory: bool = False) -> None:
    """PATH, an empty directory with DIRECTORY, is not there any more. Raises StateError."""
    try:
        os.rmdir(path) if directory else os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as err:
        raise StateError(f"remove {path}: {os.strerror(err.errno or 0)}") from err


def is_directory(path: str) -> bool:
    """Whether PATH is a directory; that it is not is believed when it is said twice: what is not there is forgotten.

    Raises StateError when it cannot be known, which os.path.isdir takes for a no.
    """
    for _ in range(2):
        try:
            return os.stat(path).st_mode >> 12 == 0o04
        except OSError as err:
            if err.errno not in ABSENT:
                raise StateError(f"look at {path}: {os.strerror(err.errno or 0)}") from err
    return False


def read_text(directory: int, name: str, path: str, limit: int) -> str:
    """The text of NAME in DIRECTORY, "" when it is not there, which is believed when it is said twice: a container
    without a journal is removed. Raises StateError, which calls it PATH."""
    fd = -1
    for _ in range(2):
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
            break
        except FileNotFoundError:
            pass
        except OSError as err:
            raise StateError(f"read {path}: {os.strerror(err.errno or 0)}") from err
    if fd < 0:
        return ""
    data = b""
    try:
        while len(data) <= limit and (block := os.read(fd, limit + 1 - len(data))):
            data += block
    except OSError as err:
        raise StateError(f"read {path}: {os.strerror(err.errno or 0)}") from err
    finally:
        shut(fd)
    if len(data) > limit:
        raise StateError(f"{path}: longer than {limit} bytes: not written by minictr")
    return data.decode("utf-8", "surrogateescape")


def replace_text(directory: int, name: str, text: str | bytes) -> None:
    """NAME in DIRECTORY becomes TEXT, whole or not at all. Raises OSError."""
    write_text(directory, f"{name}.new", text)
    os.rename(f"{name}.new", name, src_dir_fd=directory, dst_dir_fd=directory)


def write_text(directory: int, name: str, text: str | bytes) -> None:
    """TEXT in NAME, where there may be room for it already: that is not given back first. Raises OSError."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        data = memoryview(text.encode("ascii") if isinstance(text, str) else text)
        size = len(data)
        while data:
            data = data[os.write(fd, data) :]
        os.ftruncate(fd, size)
    finally:
        shut(fd)


def is_id(text: str) -> bool:
    """Whether TEXT is an id of ours."""
    return len(text) == ID_DIGITS and text.isascii() and text.isalnum() and text == text.lower()


def default_root() -> str:
    """Where state lives when nobody says. For root, and where an ordinary user has a directory for it, lost at the next
    boot, as the containers are; else in his state directory (XDG base directory specification)."""
    uid = os.geteuid()
    if uid == 0:
        return "/run/minictr"
    for place in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        if place.startswith("/") and os.access(place, os.W_OK):
            return os.path.join(place, "minictr")
    state, home = os.environ.get("XDG_STATE_HOME", ""), os.environ.get("HOME", "")
    if state.startswith("/"):
        return os.path.join(state, "minictr")
    if home.startswith("/") and os.access(home, os.W_OK):
        return os.path.join(home, ".local/state/minictr")
    return os.path.join(os.environ.get("TMPDIR", "/tmp"), f"minictr-{uid}")
