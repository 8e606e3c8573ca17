"""Unpack a root tarball safely: nothing outside the directory is ever written, whatever the archive says.

Every path goes through :class:`minictr.images.tree.Tree`, which follows no link. Absolute names and link targets are
taken as inside the new root; a name with ``..``, and a way through a symbolic link, are refused. Layers of an image
are not understood: whiteouts (``.wh.*``) are plain files here.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from typing import TYPE_CHECKING

from minictr.errors import SpecError
from minictr.images.archive import Archive
from minictr.images.staging import Built, silent, staging
from minictr.images.tree import Meta, Tree, show, split

if TYPE_CHECKING:
    from minictr.images.archive import Member, Tarball
    from minictr.images.staging import Progress, Stage
    from minictr.images.tree import Parts

MAX_ID = 0xFFFFFFFE  # (uid_t) -1 means "leave it" to chown(2)
BLOCK = 512
XATTR = "SCHILY.xattr."  # star(1); GNU tar and bsdtar write the same
# trusted.overlay.* and user.overlay.* steer overlayfs when the directory becomes a layer (redirects, whiteouts);
# security.selinux and the like are labels of another host's policy.
KEPT_XATTRS = re.compile(r"user\.(?!overlay\.).+|security\.capability|system\.posix_acl_(?:access|default)")
TIME = re.compile(r"(-?)(\d{1,10})(?:\.(\d+))?")
EVERY = 5000  # members between two lines of progress
ROOT_MARKS = frozenset({"bin", "usr", "etc", "sbin", "lib"})
IMAGE_MARKS = frozenset({"manifest.json", "oci-layout"})


def import_tarball(
    directory: str,
    tarball: Tarball,
    *,
    devices: bool = False,
    owners: bool | None = None,
    max_size: int | None = None,
    progress: Progress = silent,
) -> Built:
    """Unpack TARBALL (a path, ``-`` for standard input, a binary file) into DIRECTORY, absent or empty.

    gzip, bzip2, xz and zstd are recognised by content. ``devices``: make character and block devices; without, they are
    left out and noted. ``owners``: apply numeric owners and set-ID bits; None means as root only. ``max_size``: refuse
    an archive with more bytes of data than this (holes are free, each member's header counts as 512).

    Raises SpecError for a bad target and a bad archive, StepFailed for the kernel's refusals, Unsupported for what
    cannot be done here (zstd, attributes). Nothing is left of a failure.
    """
    privileged = os.geteuid() == 0 if owners is None else owners
    with Archive(tarball) as archive, staging(directory) as stage, Tree(stage.fd, owners=privileged) as tree:
        work = Unpack(archive, tree, devices=devices, privileged=privileged, max_size=max_size)
        work.run(progress)
        _check_root(archive.label, stage)
    return Built(stage.target, work.files, work.bytes, tuple(work.notes()))


def _check_root(label: str, stage: Stage) -> None:
    names = set(os.listdir(stage.fd))
    if not names:
        raise SpecError(f"{label}: the archive is empty")
    if names & IMAGE_MARKS and not names & ROOT_MARKS:
        raise SpecError(f"{label}: an image of layers, not a root; make a container of it and use `docker export`")


class Unpack:
    """ARCHIVE into TREE: what is counted, and what is left out. ``devices`` and ``max_size`` as
    :func:`import_tarball` has them; ``privileged``: capabilities can be kept."""

    def __init__(
        self, archive: Archive, tree: Tree, *, devices: bool, privileged: bool, max_size: int | None = None
    ) -> None:
        self.archive, self.tree = archive, tree
        self.devices, self.privileged, self.max_size = devices, privileged, max_size
        self.files = self.bytes = self._counted = self._whiteouts = self._absolute = 0
        self._skipped_devices: list[str] = []
        self._skipped_xattrs: set[str] = set()

    def run(self, progress: Progress) -> None:
        """All members, then the metadata of directories. Raises SpecError naming archive and member."""
        self.tree.directory((), Meta(0o755))
        for number, member in enumerate(self.archive, 1):
            try:
                self._member(member)
            except SpecError as error:
                label, text = f"{self.archive.label}: ", str(error)
                raise SpecError(label + text.removeprefix(label)) from error
            if number % EVERY == 0:
                progress(f"{number} members, {self.bytes >> 20} MiB")
        self.tree.finish()

    def _count(self, size: int) -> None:
        self._counted += size
        if self.max_size is not None and self._counted > self.max_size:
            raise SpecError(f"it unpacks to more than the {self.max_size} bytes allowed")

    def _member(self, member: Member) -> None:
        self._count(BLOCK)
        if member.type == b"V":  # a volume label, not a file
            return
        parts = split(member.name)
        self._absolute += member.name.startswith("/")
        self._whiteouts += bool(parts) and parts[-1].startswith(".wh.")
        if member.isdir():
            self.tree.directory(parts, self._meta(member, parts))
        elif member.issym():
            if "\0" in member.linkname:
                raise SpecError(f"{show(parts)}: its target has a NUL byte in it")
            self.tree.symlink(parts, member.linkname, self._meta(member, parts))
        elif member.islnk():
            self.tree.hardlink(parts, split(member.linkname))
        elif member.ischr() or member.isblk() or member.isfifo():
            self._node(member, parts)
        elif member.isreg():
            self._file(member, parts)
        else:
            raise SpecError(f"{show(parts)} is a member of type {member.type!r}, which is not supported")

    def _file(self, member: Member, parts: Parts) -> None:
        if member.size < 0:
            raise SpecError(f"{show(parts)} has a negative size")

        def write(fd: int) -> None:
            for offset, data in self.archive.data(member):
                self._count(len(data))
                done = 0
                while done < len(data):
                    done += os.pwrite(fd, data[done:], offset + done)
            os.ftruncate(fd, member.size)  # the hole at the end

        self.tree.file(parts, self._meta(member, parts), write)
        self.files += 1
        self.bytes += member.size

    def _node(self, member: Member, parts: Parts) -> None:
        meta = self._meta(member, parts)
        if member.isfifo():
            self.tree.node(parts, stat.S_IFIFO, 0, meta)
        elif not self.devices:
            self._skipped_devices.append(show(parts))
        else:
            if not (
                0 <= member.devmajor < 1 << 12 and 0 <= member.devminor < 1 << 20
            ):  # dev_t, makedev(3) and the kernel
                raise SpecError(f"{show(parts)}: no such device number: {member.devmajor}, {member.devminor}")
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            self.tree.node(parts, kind, os.makedev(member.devmajor, member.devminor), meta)

    def _meta(self, member: Member, parts: Parts) -> Meta:
        for number in (member.uid, member.gid):
            if not 0 <= number <= MAX_ID:
                raise SpecError(f"{show(parts)}: no such owner: {number}")
        return Meta(member.mode & 0o7777, member.uid, member.gid, _mtime_ns(member), self._xattrs(member))

    def _xattrs(self, member: Member) -> tuple[tuple[str, bytes], ...]:
        kept = []
        for key, text in member.pax_headers.items():
            if not key.startswith(XATTR):
                continue
            name = key[len(XATTR) :].replace("%3D", "=").replace("%25", "%")  # as GNU tar writes them
            usable = KEPT_XATTRS.fullmatch(name) and (member.isreg() or member.isdir()) and "\0" not in name
            if not usable or (name == "security.capability" and not self.privileged):
                self._skipped_xattrs.add(name)
            else:
                kept.append((name, text.encode("utf-8", "surrogateescape")))
        return tuple(kept)

    def notes(self) -> list[str]:
        """What the user should know of."""
        notes = []
        if self._skipped_devices:
            shown = ", ".join(self._skipped_devices[:3]) + (", ..." if len(self._skipped_devices) > 3 else "")
            notes.append(f"devices left out: {len(self._skipped_devices)} ({shown}); --devices makes them")
        if self._skipped_xattrs:
            notes.append(f"attributes left out: {', '.join(map(repr, sorted(self._skipped_xattrs)[:5]))}")
        if self._absolute:
            notes.append(f"absolute names, taken as inside the new root: {self._absolute}")
        if self._whiteouts:
            notes.append(f"files named .wh.*: {self._whiteouts}; this may be a layer of an image, not a whole root")
        return notes


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """Nanoseconds, exact where PAX has them as text; the epoch for what is no time."""
    text = str(member.pax_headers.get("mtime", ""))
    match = TIME.fullmatch(text) or TIME.fullmatch(str(member.mtime))
    if match is None:
        return 0
    value = int(match[2]) * 10**9 + int(f"{match[3] or '':0<9.9}")
    return -value if match[1] else value
