"""Rules of nftables: whole tables by Debian's ``nft``, elements of their sets and maps by netlink. nft(8), Linux 3.13.

``apply`` gives nft a text that the kernel takes whole or not at all; ``listed`` reads tables back as nft's JSON
(libnftables-json(5)). What comes and goes with a container is an element, and one netlink message
(``add_elements``, ``remove_elements``): no process, no rule changed. An element's comment says whose it is. A table is
of the family inet where its name has no other before it: ``"lab"``, ``"bridge lab"``.
"""

from __future__ import annotations

import os
import struct
from _thread import allocate_lock

from minictr.errors import StepFailed, Unsupported
from minictr.kernel.netlink import HEADER, NETFILTER, NLM_F_ACK, NLM_F_REQUEST, Netlink, attribute, nest, request, text
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from minictr.kernel.netlink import Request
    from minictr.steps import Support

__all__ = ["Element", "add_elements", "apply", "delete_table", "listed", "probe", "program", "remove_elements"]

SUBSYSTEM = 10  # linux/netfilter/nfnetlink.h: NFNL_SUBSYS_NFTABLES
BATCH_BEGIN, BATCH_END = 0x10, 0x11  # NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END
DELTABLE, NEWSETELEM, DELSETELEM, DESTROYSETELEM = (
    2,
    12,
    14,
    30,
)  # linux/netfilter/nf_tables.h: enum nf_tables_msg_types
TABLE_NAME = 1  # NFTA_TABLE_NAME
LIST_TABLE, LIST_SET, LIST_ELEMENTS, LIST_ELEM = 1, 2, 3, 1
ELEM_KEY, ELEM_DATA, ELEM_USERDATA, ELEM_KEY_END, DATA_VALUE = 1, 2, 6, 10, 1
FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}  # linux/netfilter.h: NFPROTO_*
NLM_F_CREATE = 0x400
COMMENT = 0  # libnftnl's udata: NFTNL_UDATA_SET_ELEM_COMMENT
COMMENT_MAX = 128  # bytes: NFTNL_UDATA_COMMENT_MAXLEN
ENOENT, EPERM = 2, 1
UNKNOWN = frozenset({22, 95})  # EINVAL, EOPNOTSUPP: a message that an older kernel does not know
CHUNK = 400  # elements of one message: an attribute's length has 16 bits
WORDS = 4000  # characters of nft's complaint that are kept
PATHS = ("/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft")
NEEDS_ADMIN = "needs CAP_NET_ADMIN over this network namespace"


class Element(Value):
    """What is in a set, or in a map: ``key`` and ``data`` (none in a set) as bytes, each field padded to four.

    ``comment`` at most 127 bytes. ``end``: in a set of intervals the last key of this one, each field at its last;
    intervals of one set do not overlap. Linux 5.6.
    """

    set: str
    key: bytes
    data: bytes = b""
    comment: str = ""
    end: bytes = b""


def program() -> str:
    """The path of nft. Raises Unsupported where it is not installed."""
    for path in PATHS:
        if os.access(path, os.X_OK):
            return path
    raise Unsupported("nftables", "the program nft is not here", "apt-get install nftables")


def apply(ruleset: str) -> None:
    """RULESET, in nft's language, whole or not at all. Raises Unsupported without nft, StepFailed with its words.

    >>> apply("add table inet lab; add chain inet lab c; flush chain inet lab c")
    """
    _run(["-f", "-"], ruleset.encode(), f"nft: {ruleset.split(chr(10), 1)[0][:60]}")


def listed(*words: str) -> list[dict[str, Any]]:
    """What ``nft -j list WORDS`` says, as a list of objects. Raises as :func:`apply`; StepFailed ENOENT for a table
    that is not there.

    >>> listed("table", "inet", "lab")
    """
    from minictr.jsontext import loads

    answer = _run(["-j", "list", *words], b"", f"nft list {' '.join(words)}")
    found: list[dict[str, Any]] = loads(answer.decode("utf-8", "surrogateescape"))["nftables"]
    return [item for item in found if "metainfo" not in item]


def _run(arguments: list[str], given: bytes, what: str) -> bytes:
    """nft with ARGUMENTS, GIVEN as its standard input: what it printed."""
    path = program()
    files = [os.memfd_create(f"minictr-nft-{name}", os.MFD_CLOEXEC) for name in ("in", "out", "err")]
    try:
        os.write(files[0], given)
        os.lseek(files[0], 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(files)]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
        pid = os.posix_spawn(path, [path, *arguments], environment, file_actions=actions)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        printed, said = (os.pread(fd, os.fstat(fd).st_size, 0) for fd in files[1:])
    except OSError as err:
        raise StepFailed(what, err.errno or 0) from err
    finally:
        for fd in files:
            os.close(fd)
    if status:
        words = " ".join(said.decode("utf-8", "replace").split())[:WORDS]
        number = next((code for code, mark in MARKS if mark in words), 22)
        raise StepFailed(what, number, cure=NEEDS_ADMIN if number == EPERM else words)
    return printed


MARKS = ((ENOENT, "No such file or directory"), (EPERM, "Operation not permitted"), (17, "File exists"))


# --- elements ---


def _element(item: Element) -> bytes:
    parts = [nest(ELEM_KEY, attribute(DATA_VALUE, item.key))]
    if item.end:
        parts.append(nest(ELEM_KEY_END, attribute(DATA_VALUE, item.end)))
    if item.data:
        parts.append(nest(ELEM_DATA, attribute(DATA_VALUE, item.data)))
    if item.comment:
        words = item.comment.encode("utf-8", "surrogateescape")[: COMMENT_MAX - 1] + b"\0"
        parts.append(attribute(ELEM_USERDATA, bytes([COMMENT, len(words)]) + words))
    return nest(LIST_ELEM, *parts)


def _requests(verb: str, kind: int, flags: int, table: str, elements: Sequence[Element]) -> list[Request]:
    """A request for each run of elements of one set."""
    found: list[Request] = []
    begin, (family, table) = 0, _family(table)
    while begin < len(elements):
        name, end = elements[begin].set, begin
        while end < len(elements) and elements[end].set == name and end - begin < CHUNK:
            end += 1
        inside = nest(LIST_ELEMENTS, *map(_element, elements[begin:end]))
        body = GENERAL.pack(FAMILIES[family], 0, 0) + text(LIST_TABLE, table) + text(LIST_SET, name) + inside
        found.append(request(f"{verb} set {name} of table {family} {table}", SUBSYSTEM << 8 | kind, flags, body))
        begin = end
    return found


GENERAL = struct.Struct(">BBH")  # struct nfgenmsg


def _family(table: str) -> tuple[str, str]:
    """("bridge", "lab") of "bridge lab"; inet where no family is named."""
    family, space, name = table.partition(" ")
    return (family, name) if space else ("inet", table)


_using = allocate_lock()
_kept: tuple[tuple[int, int], Netlink] | None = None


def _batch(requests: list[Request]) -> None:
    """REQUESTS as one transaction.

    By a socket that this process keeps: closing one waits until the kernel has freed what transactions removed
    (nft_rcv_nl_event(), 15 ms), where the transaction itself takes 0.03 ms.
    """
    global _kept
    here = os.getpid(), os.stat("/proc/thread-self/ns/net").st_ino
    with _using:
        if _kept is None or _kept[0] != here:
            if _kept is not None and _kept[0][0] == here[0]:
                _kept[1].close()
            _kept = here, Netlink(NETFILTER)
            _kept[1].lend()
        _transact(_kept[1], requests)


def _transact(socket: Netlink, requests: list[Request]) -> None:
    marks = GENERAL.pack(0, 0, SUBSYSTEM)
    whole = [("nftables transaction", BATCH_BEGIN, 0, marks, frozenset()), *requests]
    data = bytearray()
    for number, (_, kind, flags, body, _) in enumerate(whole):
        flags |= NLM_F_REQUEST | (NLM_F_ACK if number == len(requests) else 0)
        data += HEADER.pack(HEADER.size + len(body), kind, flags, number, 0) + body
        data += b"\0" * (-len(data) % 4)
    data += HEADER.pack(HEADER.size + len(marks), BATCH_END, NLM_F_REQUEST, len(whole), 0) + marks
    socket.exchange(bytes(data), dict(enumerate(whole)), len(requests), first=0)


def add_elements(table: str, elements: Iterable[Element]) -> None:
    """ELEMENTS into sets and maps of TABLE, all or none. One that is there already is no mistake, in
    a map only with the same data. Raises StepFailed: ENOENT for a table or set that is not there, EEXIST for a key that
    stands for other data."""
    requests = _requests("add to", NEWSETELEM, NLM_F_CREATE, table, list(elements))
    if requests:
        _batch(requests)


def remove_elements(table: str, elements: Iterable[Element]) -> None:
    """ELEMENTS out of them; what is not there, table or set too, is not missed. Raises StepFailed."""
    items = list(elements)
    if not items:
        return
    try:
        _batch(_requests("remove from", DESTROYSETELEM, 0, table, items))
    except StepFailed as err:
        if err.errno == ENOENT:  # a set that is not there, or the table
            for name in {item.set for item in items} if len({item.set for item in items}) > 1 else ():
                remove_elements(table, [item for item in items if item.set == name])
            return
        if err.errno not in UNKNOWN:
            raise
        for item in items:  # before Linux 6.3: what is not there ends a transaction, so one by one
            try:
                _batch(_requests("remove from", DELSETELEM, 0, table, [item]))
            except StepFailed as missing:
                if missing.errno != ENOENT:
                    raise


def delete_table(table: str) -> None:
    """TABLE goes with all that is in it; none is not missed. Raises StepFailed."""
    family, name = _family(table)
    body = GENERAL.pack(FAMILIES[family], 0, 0) + text(TABLE_NAME, name)
    try:
        _batch([request(f"remove table {family} {name}", SUBSYSTEM << 8 | DELTABLE, 0, body)])
    except StepFailed as err:
        if err.errno != ENOENT:
            raise


def probe() -> dict[str, Support]:
    """Whether rules with address translation and connection tracking can be had: a table made in a network namespace
    that goes at once."""
    from minictr.kernel.network_probes import nftables_probe

    return nftables_probe()
