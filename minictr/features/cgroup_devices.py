"""Control groups over devices: block input and output, which devices may be used, huge pages, RDMA, misc.

Devices are numbers here. A path of the host ("/dev/sda") is kept as it is until the runtime has looked at it
(``runtime.resolve``), for a pure plan cannot. cgroups(7), Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import choice, decimal, frozen, inside, integer, sequence, shown, word
from minictr.features.controllers import UNLIMITED, Controller, count, limit, pairs, said
from minictr.features.mounts import DEVICES, MKDIR, NOFOLLOW, S_IFCHR
from minictr.steps import SETUP, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from minictr.features.controllers import Settings

    Number = tuple[int, int]
    Rows = tuple[tuple[Number | str, int], ...] | Mapping[Any, Any]
    Rule = tuple[bool, str, int, int, str]

MAJOR_MAX, MINOR_MAX = (1 << 12) - 1, (1 << 20) - 1  # linux/kdev_t.h
RATE_MAX = (1 << 62) - 1
ANY = -1
S_IFBLK = 0o060000  # linux/stat.h
EEXIST = 17


def device(value: object, what: str) -> Number | str:
    """(major, minor) from itself or from "8:0"; an absolute path as it is, for the runtime to look at."""
    if isinstance(value, str):
        if value.startswith("/"):
            return word(value, what)
        major, colon, minor = value.partition(":")
        if not colon or not decimal(major) or not decimal(minor):
            raise SpecError(f"{what}: {shown(value)} is not a device: write /dev/sda, or MAJOR:MINOR")
        value = (int(major), int(minor))
    numbers = sequence(value, what)
    if len(numbers) != 2:
        raise SpecError(f"{what}: {shown(value)} is not (major, minor)")
    return integer(numbers[0], f"{what} major", 0, MAJOR_MAX), integer(numbers[1], f"{what} minor", 0, MINOR_MAX)


RATES = ("read_bps", "write_bps", "read_iops", "write_iops")


class Io(Controller):
    """Block devices: a share, and rates by device. Linux 2.6.33 (v1 blkio), 4.5 (v2); io.max, io.weight.

    ``weight``: 1 to 10000, 100 is everybody's (v1: 10 to 1000, converted). ``read_bps`` and ``write_bps``: bytes a
    second, ``read_iops`` and ``write_iops``: operations a second, ``weight_device``: weights, each {"/dev/sda": "1M"}
    or {"8:0": "1M"}; -1 for no limit.
    """

    NAME = "io"
    SUMMARY = "how fast it may read and write block devices"

    weight: int | None = None
    read_bps: Rows = ()
    write_bps: Rows = ()
    read_iops: Rows = ()
    write_iops: Rows = ()
    weight_device: Rows = ()

    def check(self) -> None:
        count(self.weight, "io weight", 1, 10_000)
        for field in RATES:
            frozen(self, field, self.rows(field, lambda value, what: limit(value, what, low=1)))
        frozen(self, "weight_device", self.rows("weight_device", lambda value, what: count(value, what, 1, 10_000)))

    def rows(self, field: str, measure: Any) -> tuple[tuple[Number | str, int], ...]:
        """The normal form of a field, devices as numbers where they are known."""
        what = f"io {field}"
        found = []
        for name, value in pairs(getattr(self, field), what):
            amount = measure(value, f"{what} {shown(name)}")
            if amount is None:
                raise SpecError(f"{what} {shown(name)}: no number is given")
            found.append((device(name, what), amount))
        return pairs(tuple(found), what)

    @property
    def paths(self) -> tuple[str, ...]:
        """The devices that are still paths."""
        rows: Any = (row for field in (*RATES, "weight_device") for row in getattr(self, field))
        return tuple(name for name, _ in rows if isinstance(name, str))

    def resolved(self, numbers: Mapping[str, Number]) -> Io:
        """The same with each path as NUMBERS say."""

        def known(field: str) -> Any:
            return tuple((numbers.get(name, name), value) for name, value in getattr(self, field))

        return self.replace(**{field: known(field) for field in (*RATES, "weight_device")})

    def settings(self) -> Settings:
        if self.paths:
            raise SpecError(f"io: {self.paths[0]} is not looked at yet: resolve() must run before plan()")
        return said(weight=self.weight, **{field: getattr(self, field) or None for field in (*RATES, "weight_device")})


# moby and runc: libcontainer/specconv AllowedDevices, oci/defaults.go: nothing, but to make any node, and these
DOCKER_RULES: tuple[Rule, ...] = (
    (False, "a", ANY, ANY, "rwm"),
    (True, "c", ANY, ANY, "m"),
    (True, "b", ANY, ANY, "m"),
    *((True, "c", major, minor, "rwm") for _, major, minor in DEVICES),  # null zero full random urandom tty
    (True, "c", 5, 1, "rwm"),  # console
    (True, "c", 5, 2, "rwm"),  # ptmx
    (True, "c", 136, ANY, "rwm"),  # pts
)

# lxc: config/templates/common.conf.in
LXC_RULES: tuple[Rule, ...] = (*DOCKER_RULES, (True, "c", 10, 229, "rwm"))  # fuse


def rule(value: object, what: str = "devices") -> Rule:
    """(allow, kind, major, minor, access) from itself or from docker's "c 1:3 rwm", with "deny" before it or not."""
    if not isinstance(value, str):
        row = sequence(value, what)
        if len(row) != 5 or not isinstance(row[0], bool):
            raise SpecError(f"{what}: {shown(value)} is not (allow, kind, major, minor, access)")
        allow, kind, major, minor, access = row
    else:
        words = word(value, what, limit=64).split()
        allow = words[:1] != ["deny"]
        words = words[1:] if words[:1] in (["deny"], ["allow"]) else words
        major_text, colon, minor_text = [*words, "", ""][1].partition(":")
        if len(words) != 3 or not colon:
            raise SpecError(f"{what}: {shown(value)} is not KIND MAJOR:MINOR ACCESS, as c 1:3 rwm")
        numbers = [_number(text, value, what) for text in (major_text, minor_text)]
        kind, (major, minor), access = words[0], numbers, words[2]
    choice(kind, f"{what} kind", ("a", "b", "c"))
    integer(major, f"{what} major", ANY, MAJOR_MAX)
    integer(minor, f"{what} minor", ANY, MINOR_MAX)
    word(access, f"{what} access", limit=3)
    if set(access) - set("rwm") or len(set(access)) != len(access):
        raise SpecError(f"{what}: {shown(access)} is not made of r (read), w (write), m (make a node), each once")
    if kind == "a" and (major, minor) != (ANY, ANY):
        raise SpecError(f"{what}: kind a is every device: write a *:* {access}, or b or c")
    return allow, kind, major, minor, "".join(letter for letter in "rwm" if letter in access)


def _number(text: str, whole: str, what: str) -> int:
    if text == "*":
        return ANY
    if not decimal(text):
        raise SpecError(f"{what}: {shown(whole)} has {shown(text)} for a number: write a number or *")
    return int(text)


def allowed(rules: tuple[Rule, ...], kind: str, major: int, minor: int, access: str) -> bool:
    """Whether RULES let all of ACCESS pass: for each letter the last rule that is about it decides; what no rule is
    about is denied. Without any rule all is as the group above has it: let pass, as far as is known here."""
    answers = dict.fromkeys(access, not rules)
    for allow, its_kind, its_major, its_minor, its_access in rules:
        if its_kind in ("a", kind) and its_major in (ANY, major) and its_minor in (ANY, minor):
            answers.update({letter: allow for letter in its_access if letter in answers})
    return all(answers.values())


class Devices(Controller):
    """Which devices may be read, written and made, by rules of which the last that fits decides. Linux 2.6.26 (v1),
    4.15 (v2: a BPF program).

    A rule is "c 1:3 rwm" or "deny a *:* rwm", or (allow, kind, major, minor, access) with -1 for any number; what no
    rule is about is denied. Without ``rules`` it is docker's list: the devices of every /dev, terminals, and making any
    node, but not opening it. With () none is written: what the group above allows.
    """

    NAME = "devices"
    SUMMARY = "which devices may be read, written and made"

    rules: tuple[Rule | str, ...] = DOCKER_RULES

    def check(self) -> None:
        frozen(self, "rules", tuple(rule(row) for row in sequence(self.rules, "devices")))

    def settings(self) -> Settings:
        return said(rules=self.rules or None)

    def allowing(self, *more: Rule | str) -> Devices:
        """The same with MORE rules, which decide before those there are."""
        return self.replace(rules=(*self.rules, *more))


class Device(Feature):
    """One more device node in /dev, with the host's numbers. mknod(2).

    ``path``: where it is, below /dev. ``kind``: c or b. ``mode``: its permissions. Where the feature ``devices`` is
    present, it has to allow it: :meth:`Devices.allowing`. In a user namespace the host's own node ``source`` is bound.
    """

    NAME = "device"
    SUMMARY = "one more device node in /dev"
    MANY = True
    NEEDS = (("dev", "the node would be made in the image"),)

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    source: str = ""

    def check(self) -> None:
        frozen(self, "path", inside(self.path, "device path", root=False))
        if not self.path.startswith("/dev/"):
            raise SpecError(f"device: {shown(self.path)} is not below /dev: the node would be made in the image")
        choice(self.kind, f"device {self.path} kind", ("b", "c"))
        integer(self.major, f"device {self.path} major", 0, MAJOR_MAX)
        integer(self.minor, f"device {self.path} minor", 0, MINOR_MAX)
        integer(self.mode, f"device {self.path} mode", 0, 0o777)
        word(self.source, f"device {self.path} source", empty=True)

    @property
    def label(self) -> str:
        return f"device:{self.path}"

    def steps(self, ctx: Context) -> Iterator[Step]:
        about = f"{self.path} {self.major}:{self.minor}"
        if ctx.has("userns"):
            source = self.source or self.path
            yield self.step("open_tree", SETUP, f"the host's {source}", into=self.label, path=source, flags=0)
            yield self.step("attach", SETUP, about, tree=self.label, path=self.path, flags=MKDIR | NOFOLLOW)
            return
        parts = self.path.split("/")
        for depth in range(3, len(parts)):
            # another device of that directory, or devpts and its like, may have made it
            above = "/".join(parts[:depth])
            yield self.step("mkdir", SETUP, above, tolerate=(EEXIST,), path=above, mode=0o755, uid=0, gid=0)
        mode = self.mode | (S_IFBLK if self.kind == "b" else S_IFCHR)
        yield self.step("mknod", SETUP, about, path=self.path, mode=mode, major=self.major, minor=self.minor)


class Hugetlb(Controller):
    """Memory in huge pages, by page size: {"2MB": "64M"}, sizes as in the kernel's file names. Linux 3.6 (v1), 5.6."""

    NAME = "hugetlb"
    SUMMARY = "how much memory in huge pages it may use"

    limits: tuple[tuple[str, int], ...] | Mapping[str, Any] = ()

    def check(self) -> None:
        rows = []
        for page, value in pairs(self.limits, "hugetlb"):
            digits = word(page, "hugetlb page size", limit=16).rstrip("KMGB")
            if not decimal(digits) or page[len(digits) :] not in ("KB", "MB", "GB"):
                raise SpecError(f"hugetlb: {shown(page)} is not the size of a page, as 2MB")
            rows.append((page, limit(UNLIMITED if value is None else value, f"hugetlb {page}")))
        frozen(self, "limits", tuple(rows))

    def settings(self) -> Settings:
        return said(limits=self.limits or None)


class Rdma(Controller):
    """What it may have of RDMA devices: {"mlx5_0": "hca_handle=2 hca_object=2000"}. Linux 4.11; rdma.max."""

    NAME = "rdma"
    SUMMARY = "how much of RDMA devices it may use"

    limits: tuple[tuple[str, str], ...] | Mapping[str, str] = ()

    def check(self) -> None:
        rows = pairs(self.limits, "rdma")
        for name, row in rows:
            if " " in word(name, "rdma device", limit=63):
                raise SpecError(f"rdma: {shown(name)} is not the name of a device")
            for part in word(row, f"rdma {shown(name)}", limit=255).split(" "):
                key, _, value = part.partition("=")
                if key not in ("hca_handle", "hca_object") or not (decimal(value) or value == "max"):
                    wanted = "hca_handle=N or hca_object=N, N may be max"
                    raise SpecError(f"rdma {shown(name)}: {shown(part)} is not {wanted}")
        frozen(self, "limits", rows)

    def settings(self) -> Settings:
        return said(limits=self.limits or None)


class Misc(Controller):
    """Resources that are counted and nothing else, as keys of encrypted guests: {"sev": 4}. Linux 5.13; misc.max."""

    NAME = "misc"
    SUMMARY = "how many of the kernel's miscellaneous resources it may use"

    limits: tuple[tuple[str, int], ...] | Mapping[str, Any] = ()

    def check(self) -> None:
        rows = []
        for name, value in pairs(self.limits, "misc"):
            if " " in word(name, "misc resource", limit=63):
                raise SpecError(f"misc: {shown(name)} is not the name of a resource")
            most = UNLIMITED if value in ("max", UNLIMITED) else count(value, f"misc {shown(name)}", 0, RATE_MAX)
            if most is None:
                raise SpecError(f"misc {shown(name)}: no number is given")
            rows.append((name, most))
        frozen(self, "limits", tuple(rows))

    def settings(self) -> Settings:
        return said(limits=self.limits or None)
