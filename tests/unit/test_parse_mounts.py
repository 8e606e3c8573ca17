"""--volume, --mount and --tmpfs: what they mean, round trips, and nothing but SpecError whatever the text."""

from __future__ import annotations

from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minictr.errors import SpecError
from minictr.features.mounts import TMPFS_WORDS, Bind, Tmpfs
from minictr.features.rootfs import Overlay

parse = import_module("minictr.parse")


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("/a:/b", Bind("/a", "/b")),
        ("./a:/b:ro", Bind("./a", "/b", "ro")),
        ("/a:/b:rro", Bind("/a", "/b", "rro")),
        ("/a:/b:rw", Bind("/a", "/b")),
        ("/a:/b/:idmap,nosuid,nodev,noexec", Bind("/a", "/b", idmap=True, nosuid=True, nodev=True, noexec=True)),
        ("/a:/b:ro,rslave,bind", Bind("/a", "/b", "ro", False, "rslave")),
        ("/a:/b:rbind,private", Bind("/a", "/b", propagation="private")),
        (r"/a\:b:/c\\d", Bind("/a:b", "/c\\d")),
        (r"/a\x:/c", Bind("/a\\x", "/c")),
    ],
)
def test_volume(text: str, bind: Bind) -> None:
    assert parse.volume(text) == bind


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not SOURCE:TARGET"),
        ("/a", "not SOURCE:TARGET"),
        ("/a:/b:ro:rw", "not SOURCE:TARGET"),
        (":/b", "no source"),
        ("/a:", "bind target: empty"),
        ("/a:b", "relative"),
        ("/a:/", "container's root itself"),
        ("/a:/b/../c", r"'\.\.'"),
        ("/a:/b\n", "newline"),
        ("/a\0:/b", "NUL"),
        ("/a:/b:", "option '' is not one of ro, rro"),
        ("/a:/b:ro,", "option '' is not one of"),
        ("/a:/b:readonly", "option 'readonly' is not one of"),
        ("/a:/b:ro,rw", "'rw' says readonly a second time"),
        ("/a:/b:shared", "reach the host"),
        ("/a:/b:Z", "SELinux"),
    ],
)
def test_volume_refuses(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse.volume(text)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("type=bind,source=/a,target=/b", Bind("/a", "/b")),
        ("type=bind,src=/a,dst=/b,readonly", Bind("/a", "/b", "ro")),
        ("type=bind,src=/a,destination=/b,ro=true,bind-propagation=rprivate", Bind("/a", "/b", "ro", True, "rprivate")),
        ("ro=0,type=bind,src=/a,dst=/b", Bind("/a", "/b")),
        ("type=bind,src=/a,dst=/b,ro,bind-recursive=readonly", Bind("/a", "/b", "rro")),
        ("type=bind,src=/a,dst=/b,rro", Bind("/a", "/b", "rro")),
        ("type=bind,src=/a,dst=/b,bind-nonrecursive", Bind("/a", "/b", recursive=False)),
        (
            "type=bind,src=/a,dst=/b,bind-recursive=disabled,idmap,noexec",
            Bind("/a", "/b", "", False, "", True, noexec=True),
        ),
        ('type=bind,"src=/a,""b""",dst=/b', Bind('/a,"b"', "/b")),
        ("type=tmpfs,dst=/t", Tmpfs("/t")),
        ("type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=0700", Tmpfs("/t", 64 << 20, 0o700)),
        (
            "type=tmpfs,dst=/t,size=1k,ro,exec,uid=5,nr_inodes=9",
            Tmpfs("/t", 1024, inodes=9, options=("ro", "exec", "uid=5")),
        ),
        ("type=overlay", Overlay()),
        ("type=overlay,dst=/,lower=/l1,lower=/l2,size=1g", Overlay(("/l1", "/l2"), size=1 << 30)),
        ("type=overlay,upperdir=/u,workdir=/w", Overlay((), "/u", "/w")),
    ],
)
def test_mount(text: str, made: object) -> None:
    assert parse.mount(text) == made


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("type=bind,,src=/a", "empty part"),
        ("src=/a,dst=/b", "type= is missing: it is one of bind, tmpfs, overlay"),
        ("type=volume,src=a,dst=/b", "type 'volume' is not one of"),
        ("type=bind,dst=/b", "no source"),
        ("type=bind,src=/a", "no target"),
        ("type=bind,src=/a,dst=b", "relative"),
        ("type=bind,src=/a,dst=/b,dst=/c", "says target a second time"),
        ("type=bind,src=/a,dst=/b,ro=yes", "readonly='yes' is not true or false"),
        ("type=bind,src=/a,dst=/b,ro=false,rro", "keep one"),
        ("type=bind,src=/a,dst=/b,size=1", "'size' is not an option of type=bind"),
        ("type=bind,src=/a,dst=/b,lower=/l", "of type=overlay"),
        ("type=bind,src=/a,dst=/b,bind-propagation=shared", "reach the host"),
        ("type=bind,src=/a,dst=/b,bind-propagation=loose", "not one of"),
        ("type=bind,src=/a,dst=/b,bind-recursive=maybe", "not one of enabled"),
        ("type=bind,src=/a,dst=/b,bind-recursive=readonly", "add readonly"),
        ("type=tmpfs,dst=/t,src=/a", "'source' is not an option"),
        ("type=tmpfs,dst=/t,size=-1", "not a size"),
        ("type=tmpfs,dst=/t,mode=9", "not an octal number"),
        ("type=tmpfs,dst=/t,uid=x", "not a whole number"),
        ("type=overlay,dst=/x", "leave target out"),
        ("type=overlay,work=/w", "without upper"),
        ('type=bind,"src=/a', "double quote"),
        ('type=bind,"src=/a"b,dst=/c', "double quote"),
        ('""', "double quote"),
    ],
)
def test_mount_refuses(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse.mount(text)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("/run", Tmpfs("/run")),
        ("/run:size=64m,mode=755", Tmpfs("/run", 64 << 20, 0o755)),
        ("/run:rw,noexec,nosuid,size=65536k", Tmpfs("/run", 65536 << 10, options=("rw", "noexec", "nosuid"))),
        ("/run:exec,gid=5,nr_inodes=10", Tmpfs("/run", inodes=10, options=("exec", "gid=5"))),
    ],
)
def test_tmpfs(text: str, made: Tmpfs) -> None:
    assert parse.tmpfs(text) == made


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "tmpfs target: empty"),
        ("run", "relative"),
        ("/", "container's root itself"),
        ("/run:", "option '' is not one of|empty"),
        ("/run:size=1,size=2", "second time"),
        ("/run:size", "option 'size' is not one of"),
        ("/run:huge=always", "'huge=always' is not one of"),
        ("/run:uid=99999999999", "not between"),
        ("/a:/b", "'/b' is not one of"),
    ],
)
def test_tmpfs_refuses(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse.tmpfs(text)


# --- properties ---

# Components of a path: any letter a file name may have, but the newline that we refuse.
COMPONENT = st.text(st.characters(codec="utf-8", exclude_characters="\0\n/"), min_size=1, max_size=12).filter(
    lambda part: part not in (".", "..")
)
INSIDE = st.lists(COMPONENT, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
SOURCE = st.one_of(INSIDE, COMPONENT)
PROPAGATION = st.sampled_from(("", "private", "rprivate", "slave", "rslave"))
BINDS = st.builds(
    Bind,
    SOURCE,
    INSIDE,
    readonly=st.sampled_from(("", "ro", "rro")),
    recursive=st.booleans(),
    propagation=PROPAGATION,
    idmap=st.booleans(),
    nosuid=st.booleans(),
    nodev=st.booleans(),
    noexec=st.booleans(),
)
TMPFS = st.builds(
    Tmpfs,
    INSIDE.filter(lambda path: ":" not in path),
    size=st.one_of(st.just(""), st.integers(1, 1 << 60)),
    mode=st.integers(0, 0o7777),
    inodes=st.integers(0, 1 << 31),
    options=st.lists(st.sampled_from(tuple(TMPFS_WORDS)), max_size=4).map(tuple),
)
SWITCHES = ("idmap", "nosuid", "nodev", "noexec", "dev")


def volume_text(bind: Bind) -> str:
    words = [*filter(None, (bind.readonly, bind.propagation)), *(name for name in SWITCHES if getattr(bind, name))]
    words += [] if bind.recursive else ["bind"]
    paths = [path.replace("\\", "\\\\").replace(":", "\\:") for path in (bind.source, bind.target)]
    return ":".join((*paths, *([",".join(words)] if words else [])))


def mount_text(bind: Bind) -> str:
    parts = ["type=bind", f"source={bind.source}", f"target={bind.target}"]
    parts += {"": [], "ro": ["readonly"], "rro": ["rro"]}[bind.readonly]
    parts += [f"bind-propagation={bind.propagation}"] if bind.propagation else []
    parts += [] if bind.recursive else ["bind-nonrecursive=true"]
    parts += [name for name in SWITCHES if getattr(bind, name)]
    return ",".join('"' + part.replace('"', '""') + '"' for part in parts)


def tmpfs_text(tmpfs: Tmpfs) -> str:
    words = [f"mode={tmpfs.mode:o}", f"nr_inodes={tmpfs.inodes}", *tmpfs.options]
    words += [f"size={tmpfs.size}"] if tmpfs.size != "" else []
    return f"{tmpfs.target}:{','.join(words)}"


@given(BINDS)
def test_every_bind_can_be_written_as_a_volume(bind: Bind) -> None:
    assert parse.volume(volume_text(bind)) == bind


@given(BINDS)
def test_every_bind_can_be_written_as_a_mount(bind: Bind) -> None:
    assert parse.mount(mount_text(bind)) == bind


@given(TMPFS)
def test_every_tmpfs_can_be_written(tmpfs: Tmpfs) -> None:
    assert parse.tmpfs(tmpfs_text(tmpfs)) == tmpfs


# Texts made of what the parsers look for, and of anything.
PIECES = (
    'type=bind type=tmpfs type=overlay src= dst= source=/a target=/b /a /b : , = " \\ ro rw rro size= size=1 mode='
    " mode=755 "
    "lower= upper=/u work= .. / // \0 \n é \ud800 uid= 1 -1 99999999999999999999999 k"
).split(" ")
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=12).map(",".join),
)


@pytest.mark.parametrize("name", ["volume", "mount", "tmpfs"])
@given(text=TEXT)
def test_any_text_is_a_value_or_a_spec_error(name: str, text: str) -> None:
    message = ""
    try:
        made = getattr(parse, name)(text)
    except SpecError as err:
        message = str(err)
    else:
        assert isinstance(made, Bind | Tmpfs | Overlay)
        if not isinstance(made, Overlay):
            assert made.target.startswith("/")
            assert ".." not in made.target.split("/")
            assert made.target != "/"
    assert "\n" not in message
    assert "\0" not in message
