"""A terminal for the container: its own devpts' pty, and the caller's terminal tied to it.

The pty is made *inside*, from the container's devpts, and its master comes out over a socket: the container never holds
a descriptor of the caller's terminal (TIOCSTI, CVE-2016-7545), and ``tty`` inside shows a name that exists there.
"""

from __future__ import annotations

import fcntl
import os
import termios

from minictr.kernel.handles import shut
from minictr.kernel.packets import connected_pair, receive
from minictr.runtime.terminal import CHUNK, Peer, tie, window_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from minictr.runtime.process import Process


TIOCGPTPEER = 0x5441  # asm-generic/ioctls.h


class Console:
    """The caller's side of a container's terminal.

    Give it to a start; afterwards ``master`` is the pty's descriptor. ``socket`` is the container's end of the socket
    pair until then. The window size is that of ``terminal``, a descriptor, from before the program runs; without one
    it is ``window``, rows and columns. ``with`` or ``close()`` closes all.
    """

    def __init__(self, terminal: int = -1, window: tuple[int, int] = (0, 0)) -> None:
        self._ours, self._theirs = connected_pair()
        self.terminal, self.window, self.master = terminal, window, -1
        self._slave = -1

    @property
    def socket(self) -> int:
        return self._theirs.fileno()

    def receive(self, timeout: float) -> None:
        """Take the master that the container sends while it starts, set its window size, and let the container go on.

        Returns without one when the child died or TIMEOUT seconds passed: the start itself will say why.
        """
        self._theirs.close()  # the child has its copy, and its death must be the end of file here
        self._ours.settimeout(max(timeout, 0.001))
        try:
            _, fds = receive(self._ours, 1, 1)
            if fds:
                self.master = fds[0]
                if self.terminal >= 0:
                    self.copy_size(self.terminal)
                elif any(self.window):
                    self.resize(*self.window)
                self._ours.send(b"g")
        except OSError:
            return

    def resize(self, rows: int, columns: int) -> None:
        """Set the window size; programs inside get SIGWINCH."""
        import struct

        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def copy_size(self, terminal: int) -> None:
        """The window size of TERMINAL, a descriptor, becomes ours. Nothing happens if it has none."""
        size = window_size(terminal)
        if size is not None:
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def reopen(self) -> bool:
        """No slave is open: the last one was closed, as init systems do with /dev/console between two words, or hung up
        (vhangup(2)). Ours is opened anew, by the master, so that what is written later is seen. ioctl_tty(2).
        """
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1
        try:
            self._slave = fcntl.ioctl(self.master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()
        for fd in (self.master, self._slave):
            if fd >= 0:
                shut(fd)
        self.master = self._slave = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def interact(console: Console, process: Process, stdin: int = 0, stdout: int = 1) -> None:
    """Tie STDIN and STDOUT to the console until the program is gone; the terminal is put back whatever happens.

    Window size and its changes are passed on; in raw mode Ctrl-C and Ctrl-Z are the container's own.
    """
    tie(_Pty(console, process), stdin, stdout)


class _Pty(Peer):
    """A terminal whose master is here, and its process."""

    def __init__(self, console: Console, process: Process) -> None:
        self.console, self.process, self.input = console, process, console.master
        self._is_open = True
        os.set_blocking(console.master, False)

    def waits(self) -> tuple[int, ...]:
        # when no slave can be had, all that is left is the program's end
        return (self.input, self.process.pidfd) if self._is_open else (self.process.pidfd,)

    def take(self, fd: int, show: Callable[[str, bytes], None]) -> bool:
        if fd == self.input:
            self._is_open = self._read(show) != b"" or self.console.reopen()
            return True
        while self._read(show):  # what the program wrote before it ended
            pass
        return False

    def _read(self, show: Callable[[str, bytes], None]) -> bytes | None:
        """One read, shown. EIO is how a pty's master says that no slave is open; None: nothing at the moment."""
        try:
            data = os.read(self.input, CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        show("stdout", data)
        return data

    def send(self, data: memoryview) -> int:
        try:
            return os.write(self.input, data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # nobody will read it

    def end_of_input(self) -> bool:
        """Our input ended (a pipe or file): the terminal's end-of-file character tells the program."""
        try:
            os.write(self.input, termios.tcgetattr(self.input)[6][termios.VEOF])
        except BlockingIOError:
            return False
        except OSError:
            pass  # the program closed its terminal already
        return True

    def resize(self, terminal: int, *, redraw: bool = False) -> None:
        self.console.copy_size(terminal)
