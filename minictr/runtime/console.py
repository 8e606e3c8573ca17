"""A terminal for the container: its own devpts' pty, and the caller's terminal tied to it.

The pty is made *inside*, from the container's devpts, and its master comes out over a socket: the container never holds
a descriptor of the caller's terminal (TIOCSTI, CVE-2016-7545), and ``tty`` inside shows a name that exists there.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from minictr.runtime.process import Process

CHUNK = 65536


class Console:
    """The caller's side of a container's terminal.

    Give it to a start; afterwards ``master`` is the pty's descriptor. ``socket`` is the container's end of the socket
    pair until then. The window size is that of ``terminal``, a descriptor, from before the program runs; without one
    it is ``window``, rows and columns, or 0 by 0. ``with`` or ``close()`` closes all.
    """

    def __init__(self, terminal: int = -1, window: tuple[int, int] = (0, 0)) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.terminal, self.window, self.master = terminal, window, -1

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
            _, fds, _, _ = socket.recv_fds(self._ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
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
        try:
            size = fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))
        except OSError:
            return
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def make_raw(terminal: int) -> list[Any]:
    """Put TERMINAL into raw mode as cfmakeraw(3) does; the attributes it had."""
    before = termios.tcgetattr(terminal)
    mode = [*before[:6], list(before[6])]
    mode[0] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    mode[1] &= ~termios.OPOST
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    termios.tcsetattr(terminal, termios.TCSANOW, mode)
    return before


def interact(console: Console, process: Process, stdin: int = 0, stdout: int = 1) -> None:
    """Tie STDIN and STDOUT to the console until the program is gone; the terminal is put back whatever happens.

    Window size and its changes are passed on; in raw mode Ctrl-C and Ctrl-Z are the container's own.
    """
    terminal = next((fd for fd in (stdin, stdout) if os.isatty(fd)), -1)
    before = make_raw(stdin) if os.isatty(stdin) else None
    resized, previous = _on_resize() if terminal >= 0 else ((-1, -1), None)
    try:
        if terminal >= 0:
            console.copy_size(terminal)
        _copy(console, process, stdin, stdout, terminal, resized[0])
    finally:
        if before is not None:
            termios.tcsetattr(stdin, termios.TCSAFLUSH, before)
        _no_more_resize(resized, previous)


def _on_resize() -> tuple[tuple[int, int], Any]:
    """A pipe that becomes readable at SIGWINCH. Only the main thread may handle signals: elsewhere it stays silent."""
    import _signal

    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        previous = _signal.signal(_signal.SIGWINCH, lambda *_: _poke(write))
    except ValueError:
        previous = None
    return (read, write), previous


def _poke(fd: int) -> None:
    try:
        os.write(fd, b"w")
    except BlockingIOError:
        pass  # it is readable already


def _no_more_resize(pipe: tuple[int, int], previous: Any) -> None:
    import _signal

    if previous is not None:
        _signal.signal(_signal.SIGWINCH, previous)
    for fd in pipe:
        if fd >= 0:
            os.close(fd)


def _copy(console: Console, process: Process, stdin: int, stdout: int, terminal: int, resized: int) -> None:
    poll = select.poll()
    poll.register(console.master, select.POLLIN)
    poll.register(stdin, select.POLLIN)
    poll.register(process.pidfd, select.POLLIN)
    if resized >= 0:
        poll.register(resized, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if resized in ready:
            os.read(resized, CHUNK)
            console.copy_size(terminal)
        if console.master in ready and not _forward(console.master, stdout):
            poll.unregister(console.master)  # every slave is closed: all that is left is the program's end
        if stdin in ready and not _forward(stdin, console.master):
            poll.unregister(stdin)
            _end_of_input(console.master)
        if process.pidfd in ready:
            _drain(console.master, stdout)
            return


def _forward(source: int, target: int) -> bool:
    """One read and its writes; False at the end. EIO is how a pty master says that no slave is open."""
    try:
        data = os.read(source, CHUNK)
    except OSError:
        return False
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(target, view) :]
        except OSError:
            return False
    return bool(data)


def _end_of_input(master: int) -> None:
    """Our input ended (a pipe or file): the terminal's end-of-file character tells the program."""
    try:
        os.write(master, termios.tcgetattr(master)[6][termios.VEOF])
    except OSError:
        pass  # the program closed its terminal already


def _drain(master: int, stdout: int) -> None:
    """What the program wrote before it ended."""
    os.set_blocking(master, False)
    while _forward(master, stdout):
        pass
