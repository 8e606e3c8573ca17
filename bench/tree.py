"""A writable copy of the root's bytes, and the way back to what it was: between two samples, not by copying it again.

Whoever has no layer of its own runs in this copy, one after another: the same files, at the same place on the same
disk, in the same page cache. What a sample changed is found by inode, size and time of change (ctime, which no program
can set) and taken from the root again; what it made is removed.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time

# Kernel time is as coarse as a tick: a change within the same one as our look would not be seen
SETTLE = 0.02
Seen = tuple[int, ...]


class Tree:
    """The copy of SOURCE at PATH. All its owners are OWNER more than there: for user namespaces whose root is no mount
    with an id map.

    Raises OSError, or CalledProcessError of cp, when it cannot be made; nothing is left then.
    """

    def __init__(self, source: str, path: str, owner: int = 0) -> None:
        self.source, self.path, self.owner = source, path, owner
        self._seen: dict[str, Seen] = {}
        try:
            self._copy("")
            time.sleep(SETTLE)
            self._seen = dict(self._walk())
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise

    def _copy(self, name: str) -> None:
        """NAME and what is below it, as it is in the source."""
        target = os.path.join(self.path, name) if name else self.path
        command = ["cp", "-a", "--reflink=auto", "--", os.path.join(self.source, name).rstrip("/"), target]
        subprocess.run(command, check=True, capture_output=True, text=True)
        if self.owner:
            for top, directories, files in os.walk(target):
                for path in (top, *(os.path.join(top, one) for one in (*directories, *files))):
                    self._shift(path)
            if not os.path.isdir(target) or os.path.islink(target):
                self._shift(target)

    def _shift(self, path: str) -> None:
        info = os.lstat(path)
        if info.st_uid < self.owner:
            os.lchown(path, info.st_uid + self.owner, info.st_gid + self.owner)
            if not stat.S_ISLNK(info.st_mode):
                os.chmod(path, stat.S_IMODE(info.st_mode))  # a chown takes the set-user-ID bit away

    def _walk(self) -> list[tuple[str, Seen]]:
        """(name, what tells a change) of everything, directories before what is in them."""
        found, ahead = [("", _look(os.lstat(self.path)))], [""]
        while ahead:
            directory = ahead.pop()
            with os.scandir(os.path.join(self.path, directory)) as entries:
                for entry in entries:
                    name = os.path.join(directory, entry.name)
                    found.append((name, _look(entry.stat(follow_symlinks=False))))
                    if entry.is_dir(follow_symlinks=False):
                        ahead.append(name)
        return found

    def restore(self) -> int:
        """Back to what it was: how many entries had to be removed, copied or put right."""
        now, gone, changed = dict(self._walk()), "\0", 0
        for name in sorted(now, key=_parts):
            if name.startswith(gone):
                continue
            if name not in self._seen or stat.S_IFMT(now[name][0]) != stat.S_IFMT(self._seen[name][0]):
                _remove(os.path.join(self.path, name))
                gone, changed = f"{name}/", changed + 1
                del now[name]
        there = {name for name in now if os.path.lexists(os.path.join(self.path, name))}
        gone = "\0"
        for name in sorted(self._seen, key=_parts):
            if name.startswith(gone):
                continue
            if name not in there:
                self._copy(name)
                gone, changed = f"{name}/", changed + 1
            elif now[name] != self._seen[name]:
                self._mend(name)
                changed += 1
        if changed:
            time.sleep(SETTLE)
            self._seen = dict(self._walk())
        return changed

    def _mend(self, name: str) -> None:
        """A directory's mode and owner, or another file's bytes and all, as the source has them."""
        path, source = os.path.join(self.path, name), os.path.join(self.source, name)
        info = os.lstat(source)
        if not stat.S_ISDIR(info.st_mode):
            os.remove(path)
            self._copy(name)
            return
        os.chown(path, info.st_uid + self.owner, info.st_gid + self.owner)
        os.chmod(path, stat.S_IMODE(info.st_mode))

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _parts(name: str) -> list[str]:
    """To sort by: what is in a directory comes right after it, before "a-b" that would stand between "a" and "a/b"."""
    return name.split("/")


def _look(info: os.stat_result) -> Seen:
    """What tells whether an entry is still the same; of a directory only its mode and owner: entries come and go."""
    if stat.S_ISDIR(info.st_mode):
        return (info.st_mode, info.st_uid, info.st_gid, info.st_ino)
    return (info.st_mode, info.st_uid, info.st_gid, info.st_ino, info.st_size, info.st_ctime_ns, info.st_rdev)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.remove(path)
