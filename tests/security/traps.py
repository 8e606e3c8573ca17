"""How the host looks before and after: two equal listings, and nothing was touched."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

# ways from an image to PATH of the host: absolute, relative, and by procfs
ESCAPES = ("{path}", "../../../../../../../../../../../..{path}", "/proc/self/root{path}", "/proc/1/root{path}")


def listing(root: Path) -> list[tuple[object, ...]]:
    """Of all at and below ROOT: name, mode, owner, links, size, mtime, ctime, and a link's target or the SHA-256."""
    rows = []
    for directory, below, files in os.walk(root):
        for name in (".", *below, *files):
            path = os.path.join(directory, name)
            info = os.lstat(path)
            content = ""
            if stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(info.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            owner, times = (info.st_uid, info.st_gid), (info.st_mtime_ns, info.st_ctime_ns)
            rows.append((path, info.st_mode, owner, info.st_nlink, info.st_size, times, content))
    return sorted(rows)
