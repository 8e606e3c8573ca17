"""What is written down of one container, and who answers for it.

::

    ROOT/containers/ID/    the directory's flock is the owner's: it goes when its process goes, however that ends
        journal            one line for each host resource, written before it is made
        state.json         what the container is, for people and for other processes; replaced whole
        exit               how it ended, written once by the monitor into room made before
        final/             copies of the cgroups' last readings
        log, log.1 ...     output of a detached container
        stopped            there when somebody asked it to end
        attach             socket of its monitor
        exec               what its first exec compiled, for the next: see runtime/exec_cache.py

A journal's line is words separated by tabs. A last line without its newline was never finished, and what it announces
was never made.
"""

from __future__ import annotations

import fcntl
import os
import time

from minictr.errors import StateError, StepFailed
from minictr.jsontext import dumps, loads
from minictr.kernel.handles import Handle, shut
from minictr.runtime.store import ID_DIGITS, SHORT, Store, read_text, replace_text, write_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.runtime.editing import Editing
    from minictr.runtime.ended import ExitRecord

__all__ = ["EXIT_ROOM", "SCHEMA", "Record"]

SCHEMA = 1  # of state.json: raised when an older minictr would read it wrongly
STATE_MAX, JOURNAL_MAX, EXIT_ROOM = 8 << 20, 1 << 20, 256  # bytes
STOPPED = "stopped"  # an empty file
EAGAIN, EEXIST, ENOENT = 11, 17, 2


class Record(Handle):
    """One container's directory, by descriptor. ``id``, ``directory``; ``owned``: whether its lock is ours.

    Made by :meth:`new` (owned) or :meth:`at`. Closing gives the lock back, unless somebody inherited the descriptor.
    """

    def __init__(self, store: Store, identity: str, fd: int, *, owned: bool) -> None:
        self.store, self.id, self.fd, self.owned = store, identity, fd, owned
        self.directory = os.path.join(store.containers, identity)
        self._journal, self._written = -1, 0
        self._open = True

    @property
    def group(self) -> str:
        """The name of its cgroups."""
        return f"minictr-{self.id[:SHORT]}"

    @classmethod
    def new(cls, store: Store, name: str = "") -> Record:
        """A new container's directory, locked by us, with NAME taken. StateError; SpecError for a name in use."""
        store.ensure()
        for _ in range(8):
            identity = os.urandom(ID_DIGITS // 2).hex()
            path = os.path.join(store.containers, identity)
            try:
                os.mkdir(path, 0o700)
            except OSError as err:
                if err.errno in (ENOENT, EEXIST):
                    continue
                raise StateError(f"make {path}: {os.strerror(err.errno or 0)}") from err
            record = cls._owned(store, identity)
            if record is None:  # a sweep was faster than our lock
                continue
            try:
                if name:
                    record.write_ahead(("name", name))
                    store.take_name(name, identity)
            except BaseException:
                record.forget(name)
                raise
            return record
        raise StateError(f"make a directory in {store.containers}: it is removed again all the time")

    @classmethod
    def _owned(cls, store: Store, identity: str) -> Record | None:
        """The directory just made, with its lock; None when somebody else has that. It goes when this fails."""
        record = None
        try:
            record = cls.at(store, identity)
            if record.own():
                return record
        except BaseException as err:
            if record is None and isinstance(err, StateError) and not store.has(identity):
                return None  # it was gone before it was opened
            try:
                os.rmdir(os.path.join(store.containers, identity))
            except OSError:
                pass  # the next sweep does it
            if record is not None:
                record.close()
            raise
        record.close()
        return None

    @classmethod
    def at(cls, store: Store, identity: str) -> Record:
        """The directory of a container that is there. StateError when it is gone."""
        path = os.path.join(store.containers, identity)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as err:
            raise StateError(f"container {identity[:SHORT]}: open {path}: {os.strerror(err.errno or 0)}") from err
        return cls(store, identity, fd, owned=False)

    def own(self, timeout: float = 0) -> bool:
        """Take the owner's lock within TIMEOUT seconds; whether it is ours, and the directory still there. flock(2)."""
        deadline = time.monotonic() + timeout
        while not self.owned:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as err:
                if err.errno != EAGAIN:
                    raise StateError(f"lock {self.directory}: {os.strerror(err.errno or 0)}") from err
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.002)
                continue
            self.owned = True
        return self.is_there()

    def lend(self) -> None:
        """The descriptors stay open, and the lock ours, until this process ends: nobody closes it any more."""
        self._open = False

    def is_there(self) -> bool:
        """Whether our descriptor is still what the path names; that it is not is believed when it is said twice.

        Raises StateError when it cannot be known.
        """
        for _ in range(2):
            try:
                if os.stat(self.directory).st_ino == os.fstat(self.fd).st_ino:
                    return True
            except FileNotFoundError:
                pass
            except OSError as err:
                raise StateError(f"look at {self.directory}: {os.strerror(err.errno or 0)}") from err
        return False

    # --- the journal ---

    def write_ahead(self, *rows: tuple[object, ...]) -> None:
        """ROWS of words to the journal, before what they announce is made. Raises StepFailed."""
        text = "".join("\t".join(map(str, row)) + "\n" for row in rows).encode("utf-8", "surrogateescape")
        try:
            if self._journal < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._journal = os.open("journal", flags, 0o600, dir_fd=self.fd)
            written = os.write(self._journal, text)
        except OSError as err:
            raise self.failed("write", "journal", err) from err
        self._written += written
        if written != len(text):
            raise StepFailed(f"write {self.directory}/journal", 28, cure="the disk is full: make room")

    def rows(self) -> list[tuple[str, ...]]:
        """The journal's finished lines as words. Raises StateError when it cannot be read."""
        text = self._read("journal", JOURNAL_MAX)
        lines = text.split("\n")[:-1]
        return [tuple(line.split("\t")) for line in lines if line]

    def settled(self) -> None:
        """All that the journal announced is gone, and the container is kept: that is all it says from now on.

        Replaced whole: a container whose journal says nothing is taken for one that was never finished. On a full disk
        the old rows stay, and do no harm: they announce what is gone.
        """
        self._close_journal()
        try:
            for name in ("exit.new", "state.json.new"):  # of a start that came to nothing
                self._unlink(name)
            replace_text(self.fd, "journal", "committed\n")
        except OSError:
            pass

    def forget_rows(self, limit: int) -> None:
        """The journal begins anew if we wrote more than LIMIT bytes into it: all it announced is gone."""
        if self._journal >= 0 and self._written > limit:
            os.ftruncate(self._journal, 0)
            self._written = 0

    # --- the state ---

    def save(self, text: str) -> None:
        """Replace state.json by TEXT, whole or not at all. Raises StepFailed."""
        try:
            replace_text(self.fd, "state.json", text)
        except OSError as err:
            raise self.failed("write", "state.json", err) from err

    def make_room(self, text: str) -> None:
        """Room on the disk for a state of the length of TEXT: :meth:`save` needs none then. Raises StepFailed."""
        try:
            write_text(self.fd, "state.json.new", text)
        except OSError as err:
            raise self.failed("write", "state.json", err) from err

    def load(self) -> dict[str, Any]:
        """What state.json says; {} when none was written yet. Raises StateError naming the file for anything wrong."""
        path = f"{self.directory}/state.json"
        text = self._read("state.json", STATE_MAX)
        if not text and not self._exists("state.json"):
            return {}
        try:
            state = loads(text)
        except ValueError as err:
            raise StateError(f"{path}: is damaged ({err}): minictr rm -f {self.id[:SHORT]} removes it") from err
        if not isinstance(state, dict) or "schema" not in state:
            raise StateError(f"{path}: is not a state file of minictr")
        if state["schema"] != SCHEMA:
            raise StateError(f"{path}: schema {state['schema']!r}, this minictr knows {SCHEMA}: use a newer minictr")
        if state.get("id") != self.id:
            raise StateError(f"{path}: belongs to another container ({str(state.get('id'))[:SHORT]})")
        return state

    @property
    def is_written(self) -> bool:
        """Whether there is a state.json."""
        return self._exists("state.json")

    def edit(self, **changes: Any) -> dict[str, Any]:
        """state.json with CHANGES; what it says now. One editor at a time: hold :meth:`editing`."""
        state = {**self.load(), **changes}
        self.save(dumps(state))
        return state

    def editing(self) -> Editing:
        """``with record.editing():`` one process at a time changes this container."""
        from minictr.runtime.editing import Editing

        return Editing(self)

    # --- the end ---

    def make_exit_room(self) -> int:
        """A descriptor of the exit record, with room on disk for what will be written into it. Raises StepFailed."""
        try:
            fd = os.open("exit.new", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
            try:
                if os.write(fd, b" " * EXIT_ROOM) != EXIT_ROOM:
                    raise OSError(28, "")
                # how its last life ended stays until then, and for who has it open
                os.rename("exit.new", "exit", src_dir_fd=self.fd, dst_dir_fd=self.fd)
            except BaseException:
                os.close(fd)
                raise
        except OSError as err:
            raise self.failed("write", "exit", err) from err
        return fd

    def begin_anew(self) -> None:
        """What its last life left goes: readings, socket. Log and layers stay, and how it ended until there is room for
        how the new one will."""
        for name in ("attach", STOPPED):
            self._unlink(name)
        if self._exists("final"):
            self._remove_tree("final")

    def mark_stopped(self) -> None:
        """Somebody asked it to end: it is not started again when its init says reboot."""
        try:
            os.close(os.open(STOPPED, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.fd))
        except OSError:
            pass  # a full disk must not keep anybody from stopping it

    @property
    def stopped(self) -> bool:
        """Whether it was marked so since it was started."""
        return self._exists(STOPPED)

    def write_exit(self, record: ExitRecord) -> None:
        """Into the room made before."""
        try:
            fd = os.open("exit", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
            try:
                os.pwrite(fd, record.text().encode().ljust(EXIT_ROOM), 0)
            finally:
                os.close(fd)
        except OSError as err:
            raise self.failed("write", "exit", err) from err

    def open_log(self) -> int:
        """A descriptor to append to the log by. Raises StepFailed."""
        try:
            return os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
        except OSError as err:
            raise self.failed("write", "log", err) from err

    def open_exit(self) -> int:
        """A descriptor to read the exit record by, also after it was removed; -1 when there is none."""
        try:
            return os.open("exit", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self.fd)
        except OSError:
            return -1

    def exit_record(self) -> ExitRecord | None:
        """How it ended, or None: it did not yet, or nobody wrote it down."""
        from minictr.runtime.ended import ExitRecord

        return ExitRecord.parse(self._read("exit", EXIT_ROOM))

    def forget(self, name: str = "") -> None:
        """Remove the directory and NAME, and close. Once more when it fails: who comes here is the last who would.

        What is left of a failure is found by the next sweep: the journal goes first, and what has none is removed.
        Nothing happens to one that is closed.
        """
        if not self._open:
            return
        try:
            self._remove(name)
        except (StateError, OSError):
            self._remove(name)
        self.close()

    def _remove(self, name: str) -> None:
        self._close_journal()
        self._unlink("journal")
        self.store.drop_name(name, self.id)
        entry = ""
        try:
            for entry in os.listdir(self.fd):
                try:
                    os.unlink(entry, dir_fd=self.fd)
                except IsADirectoryError:
                    self._remove_tree(entry)
                except FileNotFoundError:
                    pass
            entry = ""
            os.rmdir(self.directory)
        except StepFailed:
            raise
        except FileNotFoundError as err:
            if self.is_there():  # else somebody was faster
                raise self.failed("remove", entry, err) from err
        except OSError as err:
            raise self.failed("remove", entry, err) from err

    def _remove_tree(self, entry: str) -> None:
        from minictr.runtime.removal import remove

        try:
            remove(entry, self.fd)
        except OSError as err:
            raise self.failed("remove", entry, err) from err

    # --- files ---

    def _read(self, name: str, limit: int) -> str:
        return read_text(self.fd, name, f"{self.directory}/{name}", limit)

    def _exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as err:
            raise StateError(f"look at {self.directory}/{name}: {os.strerror(err.errno or 0)}") from err
        return True

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            pass
        except OSError as err:
            raise self.failed("remove", name, err) from err

    def failed(self, verb: str, name: str, err: OSError) -> StepFailed:
        """The error for ERR of what VERB did to our file NAME."""
        cures = {28: "the disk is full: make room, or choose another --root", 30: "choose another --root"}
        cure = cures.get(err.errno or 0, "")
        return StepFailed(f"{verb} {self.directory}/{name}".rstrip("/"), err.errno or 0, cure=cure)

    def _close_journal(self) -> None:
        if self._journal >= 0:
            shut(self._journal)
            self._journal = -1

    def _close(self) -> None:
        self._close_journal()
        shut(self.fd)
        self.fd, self.owned = -1, False

    def __repr__(self) -> str:
        return f"<Record {self.id[:SHORT]}{' owned' if self.owned else ''}>"
