"""From programs to all files they need to start: links, libraries, loaders, interpreters of scripts."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from minictr.errors import SpecError
from minictr.images import dpkg
from minictr.images.loader import Search

if TYPE_CHECKING:
    from collections.abc import Iterable

    from minictr.images.hostfiles import HostFiles

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not in an ordinary user's PATH, and asked for all the same
HEAD = 256  # BINPRM_BUF_SIZE: as much of the first line as the kernel reads
LANGUAGES = re.compile(r"(perl|python|ruby|lua|tclsh|wish|php|guile|node)[\d.]*")
# glibc opens these by itself: name services before 2.34, and pthread_cancel(3) to unwind the stack.
OPENED_BY_GLIBC = ("libnss_files.so.2", "libnss_dns.so.2", "libgcc_s.so.1")
# The C library's own UTF-8 locale, where it is not built in (before 2.35).
LOCALES = ("/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8")


class Closure:
    """Collects into ``files``. What cannot be had is listed in ``missing``, and told at once by the caller."""

    def __init__(self, files: HostFiles) -> None:
        self.files, self.search = files, Search()
        self.missing: list[str] = []
        self.notes: list[str] = []
        self.glibc = ""  # a program that is linked to glibc, if any
        self._done: set[str] = set()
        self._languages: set[str] = set()

    def add(self, words: Iterable[str]) -> None:
        """Programs as the user names them: a name in PATH, an absolute path, or @PACKAGE."""
        not_found = []
        for word in words:
            if word.startswith("@"):
                try:
                    for path in dpkg.programs(word[1:]):
                        self.program(path, strict=False)
                except SpecError as error:
                    self.missing.append(str(error))
            elif not word or ("/" in word and not word.startswith("/")):
                self.missing.append(f"{word!r} is neither a program's name nor an absolute path")
            else:
                path = find(word)
                if path:
                    self.program(path)
                else:
                    not_found.append(word)
        if not_found:
            self.missing.append(f"not found: {', '.join(not_found)} (PATH is {os.environ.get('PATH', '')})")

    def program(self, path: str, *, strict: bool = True, depth: int = 0) -> None:
        """One program. ``strict``: what it lacks is an error; otherwise a note."""
        complain = self.missing.append if strict else self.notes.append
        try:
            real = self.files.add(path)
            if real in self._done:
                return
            self._done.add(real)
            if LANGUAGES.fullmatch(os.path.basename(real)):
                self._languages.add(os.path.basename(path))
            if self.search.file(real) is None:
                self._script(real, strict, depth)
            else:
                self._linked(real, complain)
        except SpecError as error:
            complain(str(error))
        except OSError as error:
            complain(f"{path}: {error.strerror}")

    def tree(self, path: str) -> None:
        """A file or directory the user wants as well; libraries and programs in it get their libraries."""
        try:
            for file in self.files.add_tree(path):
                if file in self._done:
                    continue
                self._done.add(file)
                try:
                    if self.search.file(file) is not None:
                        self._linked(file, self.notes.append)
                    elif os.access(file, os.X_OK):
                        self._script(file, False, 0)
                except SpecError as error:
                    self.notes.append(str(error))
        except SpecError as error:
            self.missing.append(str(error))
        except OSError as error:
            self.missing.append(f"{error.filename or path}: {error.strerror}")

    def _linked(self, path: str, complain: object) -> None:
        assert callable(complain)
        program = self.search.file(path)
        assert program is not None
        if program.interpreter:
            try:
                self.files.add(program.interpreter)
            except OSError as error:
                complain(f"{path}: its loader {program.interpreter}: {error.strerror}")
        libraries, lacking = self.search.libraries(path)
        for library in libraries:
            self._done.add(self.files.add(library))
            if os.path.basename(library) == "libc.so.6" and program.interpreter:
                self.glibc = self.glibc or path
        if lacking:
            complain(f"{path}: libraries not found: {', '.join(lacking)}")

    def _script(self, path: str, strict: bool, depth: int) -> None:
        """The ``#!`` line as execve(2) reads it, and the program behind ``env``."""
        with open(path, "rb") as file:
            line = file.read(HEAD).split(b"\n")[0]
        if not line.startswith(b"#!"):
            return
        words = os.fsdecode(line[2:]).split()
        if not words:
            return
        if depth > 4:
            raise SpecError(f"{path}: scripts that interpret scripts, too deep for the kernel")
        self._interpreter(path, words[0], strict, depth)
        if os.path.basename(words[0]) == "env":
            name = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")
            if name:
                self._interpreter(path, name, strict, depth)

    def _interpreter(self, script: str, name: str, strict: bool, depth: int) -> None:
        path = find(name)
        if path:
            self.program(path, strict=strict, depth=depth + 1)
        else:
            (self.missing if strict else self.notes).append(f"{script}: its interpreter {name} is not on this host")

    def finish(self) -> None:
        """What the C library opens by itself, and the last notes."""
        if self.glibc:
            for name in OPENED_BY_GLIBC:
                library = self.search.locate(name, self.glibc)
                if library:
                    self.files.add(library)
            for path in filter(os.path.isdir, LOCALES):
                self.files.add_tree(path)
        if self._languages:
            names = ", ".join(sorted(self._languages))
            self.notes.append(
                f"{names}: modules that programs load are not seen; name their directories with --include"
            )
        self.notes = list(dict.fromkeys(self.notes + self.files.notes))


def find(name: str) -> str:
    """The absolute path of a program: itself if absolute, or from PATH, then the sbin directories; "" if none."""
    directories = [*os.environ.get("PATH", os.defpath).split(":"), *SBIN]
    candidates = (
        [name] if name.startswith("/") else [os.path.join(each, name) for each in directories if each.startswith("/")]
    )
    return next((path for path in candidates if os.path.isfile(path) and os.access(path, os.X_OK)), "")
