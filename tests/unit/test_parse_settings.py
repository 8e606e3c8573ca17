"""Sizes, durations, environment, ids, limits, capabilities, sysctls, namespaces: meaning, round trips, bounds."""

from __future__ import annotations

from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minictr.errors import SpecError
from minictr.features.capabilities import CAPABILITIES
from minictr.features.check import ID_MAX
from minictr.features.names import Hosts
from minictr.features.namespaces import NetNamespace, TimeNamespace, UserNamespace
from minictr.features.process import Env, Rlimits, Sysctl
from minictr.features.tables import RESOURCES, SIGNALS
from minictr.features.users import Identity

parse = import_module("minictr.parse")

ANY = st.text(st.characters(exclude_categories=()), max_size=40)
NUMBERISH = st.text("0123456789.-+kmgtpbi: ,=eE_x", max_size=24)


def refused(function: object, *args: object) -> str:
    """What the SpecError says; anything else is a failure."""
    with pytest.raises(SpecError) as caught:
        function(*args)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- environment ---


def test_env() -> None:
    caller = {"HERE": "1"}
    assert parse.env("A=b=c", caller) == ("A", "b=c")
    assert parse.env("A=", caller) == ("A", "")
    assert parse.env("HERE", caller) == ("HERE", "1")
    assert parse.env("GONE", caller) is None
    assert "no name" in refused(parse.env, "=b", caller)
    assert "no name" in refused(parse.env, "", caller)
    assert "NUL" in refused(parse.env, "A=\0", caller)
    assert "NUL" in refused(parse.env, "A\0", caller)


def test_env_file_is_read_as_docker_reads_it() -> None:
    text = '\ufeff# comment\n\nA=1\r\n  B= 2 \nC="quoted" # not a comment\nHERE\nGONE\nD=a=b\nA=3'
    assert parse.env_file(text, {"HERE": "h"}) == (
        ("A", "1"),
        ("B", " 2 "),
        ("C", '"quoted" # not a comment'),
        ("HERE", "h"),
        ("D", "a=b"),
        ("A", "3"),
    )
    assert parse.env_file("", {}) == ()
    assert refused(parse.env_file, "A=1\nB C=2", {}).startswith("line 2: the name 'B C'")
    assert refused(parse.env_file, "A=1\n\n=2", {}).startswith("line 3: env: ")


NAME = st.text(st.characters(codec="utf-8", exclude_characters="=#\0"), min_size=1, max_size=10).filter(
    lambda name: not any(letter.isspace() for letter in name) and not name.startswith("\ufeff")
)
LINE = st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r"), max_size=20)


@given(st.lists(st.tuples(NAME, LINE), max_size=6))
def test_env_files_keep_every_variable(pairs: list[tuple[str, str]]) -> None:
    text = "\n".join(f"{name}={value}" for name, value in pairs)
    assert parse.env_file(text, {}) == tuple(pairs)


# --- ids ---


def test_id_maps() -> None:
    assert parse.id_map("0:100000:65536") == (0, 100000, 65536)
    assert parse.id_map("5:6") == (5, 6, 1)
    assert parse.id_maps("0:1000:1,1:100000:65536") == ((0, 1000, 1), (1, 100000, 65536))


@pytest.mark.parametrize(
    "text", ["", "0", "0:1:2:3", "0:1:0", "-1:0:1", "a:b:c", "0:4294967294:2", "0:0:4294967296", " 0:1:1", "0:1:1,"]
)
def test_id_map_refuses(text: str) -> None:
    assert "id map" in refused(parse.id_maps, text)


def test_id_maps_must_not_overlap() -> None:
    assert "mapped twice" in refused(parse.id_maps, "0:100:10,9:500:1")


@given(st.integers(0, ID_MAX), st.integers(0, ID_MAX), st.data())
def test_id_maps_keep_their_value(inside: int, outside: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, ID_MAX + 1 - max(inside, outside)))
    row = parse.id_map(f"{inside}:{outside}:{count}")
    assert row == (inside, outside, count)
    UserNamespace((row,), (row,))


def test_user() -> None:
    assert parse.user("1000:1000").resolved() == Identity("1000:1000", 1000, 1000)
    assert parse.user("7").resolved() == Identity("7", 7, 0)
    assert parse.user("me:staff").user == "me:staff"
    assert "resolve()" in refused(parse.user("me").resolved)
    refused(parse.user, "me:")


@given(st.integers(0, ID_MAX), st.integers(0, ID_MAX))
def test_numeric_users_need_no_looking_up(uid: int, gid: int) -> None:
    who = parse.user(f"{uid}:{gid}").resolved()
    assert (who.uid, who.gid) == (uid, gid)


# --- limits and privilege ---


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("nofile=1024:2048", ("nofile", 1024, 2048)),
        ("nofile=1024", ("nofile", 1024, 1024)),
        ("core=0", ("core", 0, 0)),
        ("stack=8192:-1", ("stack", 8192, -1)),
        ("memlock=unlimited", ("memlock", -1, -1)),
        ("cpu=1:unlimited", ("cpu", 1, -1)),
    ],
)
def test_ulimit(text: str, row: tuple[str, int, int]) -> None:
    assert parse.ulimit(text) == row
    Rlimits((row,))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nofile",
        "files=1",
        "nofile=",
        "80:",
        "[::1]:80:",
        "bridge:lan:ip=",
        "nofile=1:",
        "nofile=x",
        "nofile=2:1",
        "nofile=-1:1",
        "nofile=-2",
        "nofile=1:2:3",
        "NOFILE=1",
        "nofile=9223372036854775808",
    ],
)
def test_ulimit_refuses(text: str) -> None:
    assert refused(parse.ulimit, text).startswith("ulimit")


@given(st.sampled_from(list(RESOURCES)), st.integers(0, 1 << 61), st.integers(0, 1 << 61))
def test_ulimits_keep_their_value(name: str, low: int, more: int) -> None:
    assert parse.ulimit(f"{name}={low}:{low + more}") == (name, low, low + more)


DOCKER = ("CHOWN", "KILL", "NET_RAW")


@pytest.mark.parametrize(
    ("add", "drop", "kept"),
    [
        ([], [], DOCKER),
        (["SYS_TIME"], [], ("CHOWN", "KILL", "NET_RAW", "SYS_TIME")),
        (["cap_sys_time", "13"], ["Kill"], ("CHOWN", "NET_RAW", "SYS_TIME")),
        (["KILL"], ["KILL"], DOCKER),
        ([], ["ALL"], ()),
        (["chown"], ["all"], ("CHOWN",)),
        (["ALL"], [], CAPABILITIES),
        (["ALL"], ["NET_RAW"], tuple(name for name in CAPABILITIES if name != "NET_RAW")),
        (["CAP_ALL"], ["ALL"], CAPABILITIES),
        (["ALL", "41"], ["KILL"], (*(name for name in CAPABILITIES if name != "KILL"), "cap_41")),
        (["CAP_63", "41"], ["ALL"], ("cap_41", "cap_63")),
    ],
)
def test_capabilities_as_docker_adds_and_drops(add: list[str], drop: list[str], kept: tuple[str, ...]) -> None:
    assert parse.capabilities(DOCKER, add, drop) == kept


@pytest.mark.parametrize("name", ["", "CAP_", "ROOT", "CAP_CAP_KILL", "64", "-1", "٣", "NET_RAW "])
def test_capabilities_refuse(name: str) -> None:
    assert refused(parse.capabilities, (), [name]).startswith("capability: ")


@given(
    st.sets(st.sampled_from(CAPABILITIES)),
    st.sets(st.sampled_from(CAPABILITIES)),
    st.sets(st.sampled_from(CAPABILITIES)),
)
def test_capabilities_are_set_arithmetic(base: set[str], add: set[str], drop: set[str]) -> None:
    assert set(parse.capabilities(base, add, drop)) == (base - drop) | add
    assert parse.capabilities(base, add, {*drop, "ALL"}) == parse.capabilities((), add)


def test_sysctl() -> None:
    assert parse.sysctl("net.ipv4.ip_forward=1") == ("net.ipv4.ip_forward", "1")
    assert parse.sysctl("net/core/somaxconn = 128") == ("net/core/somaxconn", "128")
    assert parse.sysctl("net.ipv4.ping_group_range=0 5") == ("net.ipv4.ping_group_range", "0 5")
    assert "KEY=VALUE" in refused(parse.sysctl, "net.x")
    assert "whole host" in refused(parse.sysctl, "vm.swappiness=1")
    assert "not a key" in refused(parse.sysctl, "net/../vm/swappiness=1")


@pytest.mark.parametrize(
    ("text", "number"),
    [("TERM", 15), ("sigterm", 15), ("15", 15), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("64", 64)],
)
def test_signal(text: str, number: int) -> None:
    assert parse.signal(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SIG",
        "0",
        "65",
        "-9",
        "TERMS",
        "RTMIN-1",
        "RTMIN+31",
        "RTMAX+1",
        "RTMIN+",
        "RTMIN3",
        "٣",
        "SIGSIGTERM",
        "9 ",
    ],
)
def test_signal_refuses(text: str) -> None:
    assert refused(parse.signal, text).startswith("signal: ")


@given(st.sampled_from(list(SIGNALS)))
def test_signals_by_every_spelling(name: str) -> None:
    number = SIGNALS[name]
    assert {parse.signal(text) for text in (name, name.lower(), f"SIG{name}", str(number))} == {number}


# --- namespaces ---


def test_namespace() -> None:
    assert parse.namespace("net", "host") is None
    assert parse.namespace("net", "private") == NetNamespace()
    assert parse.namespace("net", "ns:/run/netns/a:b") == NetNamespace("/run/netns/a:b")
    assert parse.namespace("userns", "pid:12").join == "/proc/12/ns/user"
    assert parse.namespace("timens", "pid:12").join == "/proc/12/ns/time"
    for text in ("", "none", "ns", "ns:", "pid:", "pid:0", "pid:x", "pid:-1", "pid:99999999", "container:x", "ns:\0"):
        refused(parse.namespace, "net", text)


def test_automatic_ids() -> None:
    assert parse.namespace("userns", "auto") == UserNamespace(auto=65536)
    assert parse.namespace("userns", "auto:size=1000") == UserNamespace(auto=1000)
    for text in ("auto:", "auto:size", "auto:size=0", "auto:size=-1", "auto:size=16777217", "auto:1", "automatic"):
        refused(parse.namespace, "userns", text)
    for text in ("auto:uidmapping=0:1:1", "auto:gidmapping=0:1:1", "keep-id", "keep-id:uid=5", "nomap"):
        assert "not built" in refused(parse.namespace, "userns", text)
    refused(parse.namespace, "net", "auto")


def test_time_offset() -> None:
    assert parse.time_offset("monotonic=5") == {"monotonic": 5}
    assert parse.time_offset("boottime=-1.5,monotonic=+2") == {"boottime": -1.5, "monotonic": 2}
    for text in (
        "",
        "monotonic",
        "monotonic=",
        "realtime=1",
        "monotonic=1,monotonic=2",
        "boottime=1e3",
        "boottime=nan",
        "boottime=99999999999",
        "monotonic=1,",
    ):
        refused(parse.time_offset, text)


@given(st.integers(-(1 << 32) + 1, (1 << 32) - 1))
def test_time_offsets_keep_their_value(seconds: int) -> None:
    assert TimeNamespace(**parse.time_offset(f"boottime={seconds}")).boottime == seconds


# --- whatever the text ---

FUNCTIONS = {
    "size": lambda text: parse.size(text),
    "duration": lambda text: parse.duration(text),
    "seconds": lambda text: parse.seconds(text),
    "mode": lambda text: parse.mode(text),
    "env": lambda text: (pair := parse.env(text, {"HERE": "1"})) and Env((pair,)),
    "env_file": lambda text: Env(parse.env_file(text, {"HERE": "1"})),
    "user": lambda text: parse.user(text),
    "add_host": lambda text: Hosts(parse.add_host(text)),
    "id_map": lambda text: parse.id_map(text),
    "id_maps": lambda text: UserNamespace(maps := parse.id_maps(text), maps),
    "capabilities": lambda text: parse.capabilities((), [text], [text]),
    "securebits": lambda text: parse.securebits([text]),
    "ulimit": lambda text: Rlimits((parse.ulimit(text),)),
    "sysctl": lambda text: Sysctl((parse.sysctl(text),)),
    "signal": lambda text: parse.signal(text),
    "namespace": lambda text: parse.namespace("userns" if text.startswith("auto") else "net", text),
    "network_words": lambda text: parse.network_words(text),
    "publish": lambda text: parse.publish(text),
    "expose": lambda text: parse.expose(text),
    "time_offset": lambda text: TimeNamespace(**parse.time_offset(text)),
}
TRIGGERS = st.sampled_from(
    (
        "nofile=",
        "core=1:",
        "net.ipv4.",
        "kernel.shm",
        "monotonic=",
        "boottime=",
        "pid:",
        "auto:size=",
        "ns:",
        "RTMIN+",
        "RTMAX-",
        "CAP_",
        "+noroot,",
        "",
    )
)


@pytest.mark.parametrize("name", FUNCTIONS)
@given(text=st.one_of(ANY, NUMBERISH, st.tuples(TRIGGERS, st.one_of(NUMBERISH, ANY)).map("".join)))
def test_any_text_is_a_value_or_a_spec_error(name: str, text: str) -> None:
    message = ""
    try:
        FUNCTIONS[name](text)
    except SpecError as err:
        message = str(err)
    assert "\n" not in message
    assert "\0" not in message


def test_every_parser_is_among_them() -> None:
    assert set(FUNCTIONS) | {"volume", "mount", "tmpfs"} == set(parse.__all__)
