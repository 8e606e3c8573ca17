"""Capabilities, by /proc/PID/status and by what the kernel then refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from minictr.errors import SpecError, StepFailed
from minictr.kernel import capabilities, network, procfs
from minictr.kernel.capabilities import NAMES, get, mask, names

NOBODY = 65534
ROWS = {
    "effective": "CapEff",
    "permitted": "CapPrm",
    "inheritable": "CapInh",
    "bounding": "CapBnd",
    "ambient": "CapAmb",
}


def shown(row: str) -> int:
    return int(procfs.status()[row], 16)


def executed(*rows: str) -> list[int]:
    """The capability rows of a program this process executes."""
    reader, writer = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, writer, 1)]
    pid = os.posix_spawn("/bin/cat", ["cat", "/proc/self/status"], {}, file_actions=actions)
    os.close(writer)
    with os.fdopen(reader) as file:
        found = dict(line.split(":\t") for line in file.read().splitlines() if line.startswith("Cap"))
    os.waitpid(pid, 0)
    return [int(found[row], 16) for row in rows]


def test_names_and_numbers_agree_with_the_kernels_header() -> None:
    import prctl

    for number, name in enumerate(NAMES):
        known = getattr(prctl, f"CAP_{name}", number)
        assert known == number, name
    assert len(NAMES) == 41


def test_mask_and_names() -> None:
    assert mask(("CHOWN", "cap_kill", "Net_Raw", "cap_63")) == 1 | 1 << 5 | 1 << 13 | 1 << 63
    assert names(1 | 1 << 40 | 1 << 41) == ("CHOWN", "CHECKPOINT_RESTORE", "cap_41")
    assert names(mask(NAMES)) == NAMES
    assert mask(names((1 << 64) - 1)) == (1 << 64) - 1
    for wrong in ("", "CAP_", "ROOT", "64", "-1", "cap_4x"):
        with pytest.raises(SpecError, match="not one of capabilities"):
            mask((wrong,))


def test_last_cap() -> None:
    assert mask(capabilities.bounding()) == shown("CapBnd")
    assert 1 << capabilities.last_cap() <= (1 << 64)
    with pytest.raises(StepFailed, match=f"EINVAL.*last capability is {capabilities.last_cap()}|EPERM"):
        capabilities.drop_bounding("cap_63")


def test_get_is_what_status_shows() -> None:
    for sets in (get(), get(os.getpid()), get("self")):
        assert {name: mask(getattr(sets, name)) for name in ROWS} == {name: shown(row) for name, row in ROWS.items()}
    with pytest.raises(StepFailed, match="ENOENT"):
        get(4194305)


def test_set(in_child: Any) -> None:
    def body() -> Any:
        capabilities.set(permitted=("CHOWN", "KILL", "SETPCAP"), effective=("KILL",), inheritable=("CHOWN",))
        first = get().replace(bounding=())
        capabilities.set(effective=())
        with pytest.raises(StepFailed) as caught:
            capabilities.set(permitted=("NET_ADMIN",))
        return first, get().effective, get().permitted, caught.value.errno

    first, effective, permitted, errno = in_child(body)
    assert first == capabilities.Sets(("KILL",), ("CHOWN", "KILL", "SETPCAP"), ("CHOWN",), (), ())
    assert (effective, permitted, errno) == ((), ("CHOWN", "KILL", "SETPCAP"), 1)


def test_without_it_the_kernel_refuses(in_child: Any, place: Path) -> None:
    (place / "file").touch()

    def body() -> bool:
        os.chown(place / "file", 1, 1)
        left = tuple(name for name in get().effective if name != "CHOWN")
        capabilities.set(effective=left)
        with pytest.raises(PermissionError):
            os.chown(place / "file", 2, 2)
        capabilities.set(effective=(*left, "CHOWN"))  # still permitted
        os.chown(place / "file", 3, 3)
        return (place / "file").stat().st_uid == 3

    assert in_child(body)


def test_drop_bounding(in_child: Any) -> None:
    def body() -> tuple[bool, bool, bool, list[int]]:
        capabilities.drop_bounding("NET_RAW", "cap_sys_boot")
        gone = mask(("NET_RAW", "SYS_BOOT"))
        return (
            not shown("CapBnd") & gone,
            bool(shown("CapPrm") & gone),
            True,
            [bits & gone for bits in executed("CapPrm", "CapBnd")],
        )

    assert in_child(body) == (True, True, True, [0, 0])


def test_ambient_is_kept_over_execve(in_child: Any) -> None:
    def body() -> Any:
        capabilities.keep_caps()
        os.setresuid(NOBODY, NOBODY, NOBODY)
        capabilities.set(permitted=("KILL", "CHOWN"), effective=(), inheritable=("KILL", "CHOWN"))
        without = executed("CapEff", "CapAmb")
        capabilities.ambient("KILL")
        having = executed("CapEff", "CapAmb"), get().ambient
        capabilities.ambient()
        with pytest.raises(StepFailed) as caught:
            capabilities.ambient("NET_ADMIN")
        return without, having, get().ambient, caught.value.errno

    bit = mask(("KILL",))
    assert in_child(body) == ([0, 0], ([bit, bit], ("KILL",)), (), 1)


def test_each_of_the_five_sets_alone(in_child: Any) -> None:
    """Every set is brought to one value of its own, by its own function, and the others stay."""

    def body() -> Any:
        begin, seen = get(), []
        few = ("CHOWN", "KILL", "SETPCAP")
        for change in (
            lambda: capabilities.set(inheritable=("KILL", "CHOWN")),
            lambda: capabilities.ambient("KILL"),
            lambda: capabilities.drop_bounding("NET_RAW"),
            lambda: capabilities.set(effective=few),
            lambda: capabilities.set(permitted=few),
        ):
            before = get()
            change()
            seen.append({name for name in ROWS if getattr(get(), name) != getattr(before, name)})
            assert {name: mask(getattr(get(), name)) for name in ROWS} == {
                name: shown(row) for name, row in ROWS.items()
            }
        return begin, seen, get()

    begin, seen, end = in_child(body)
    assert begin.ambient == begin.inheritable == ()
    assert seen == [{"inheritable"}, {"ambient"}, {"bounding"}, {"effective"}, {"permitted"}]
    few = ("CHOWN", "KILL", "SETPCAP")
    less = tuple(name for name in begin.bounding if name != "NET_RAW")
    assert end == capabilities.Sets(few, few, ("CHOWN", "KILL"), less, ("KILL",))


def test_a_number_beyond_the_kernels_last(in_child: Any) -> None:
    last = capabilities.last_cap()

    def body() -> Any:
        with pytest.raises(StepFailed, match=f"EINVAL.*last capability is {last}") as caught:
            capabilities.drop_bounding(f"cap_{last + 1}")
        with pytest.raises(StepFailed, match="ambient") as other:
            capabilities.ambient("cap_63")
        capabilities.drop_bounding(str(last))
        return caught.value.errno, other.value.errno, mask(capabilities.bounding()) >> last

    assert in_child(body) == (22, 22, 0)


def secure_bits_and_sets(*rows: str) -> Any:
    """The securebits, and the sets of a program that is executed under them."""
    return capabilities.securebits(), executed(*rows)


def test_noroot_takes_roots_capabilities_at_execve(in_child: Any) -> None:
    def body() -> Any:
        capabilities.set(inheritable=("KILL",))
        capabilities.ambient("KILL")
        off = secure_bits_and_sets("CapEff", "CapPrm")
        capabilities.set_securebits("noroot")
        on = secure_bits_and_sets("CapEff", "CapPrm"), shown("CapEff")
        capabilities.set_securebits(off=("SECBIT_NOROOT",))
        return off, on, secure_bits_and_sets("CapEff", "CapPrm"), shown("CapEff")

    off, (on, mine), again, all_bits = in_child(body)
    assert off[0] == () and off[1] == [all_bits, all_bits]
    assert on == (("noroot",), [1 << 5, 1 << 5]) and mine == all_bits  # at execve, not before
    assert again == off


def test_a_locked_bit_stays(in_child: Any) -> None:
    def body() -> Any:
        capabilities.set_securebits("noroot", "no-setuid-fixup", "noroot_locked", "no-setuid-fixup-locked")
        errors = []
        for attempt in ({"off": ("noroot",)}, {"off": ("noroot_locked",)}):
            with pytest.raises(StepFailed, match="not locked") as caught:
                capabilities.set_securebits(**attempt)
            errors.append(caught.value.errno)
        capabilities.set_securebits("no_cap_ambient_raise")  # what is not locked still goes
        with pytest.raises(StepFailed, match="no_cap_ambient_raise"):
            capabilities.ambient("KILL")
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return errors, capabilities.securebits(), bool(shown("CapEff"))

    bits = ("noroot", "noroot_locked", "no_setuid_fixup", "no_setuid_fixup_locked", "no_cap_ambient_raise")
    assert in_child(body) == ([1, 1], bits, True)


def test_a_new_user_namespace_begins_without_them(in_child: Any) -> None:
    """What the page says they are not: none of them holds in a user namespace that is made later."""

    def body() -> Any:
        capabilities.set_securebits("noroot", "noroot_locked")
        own, new = (
            subprocess.run([*words, "setpriv", "--dump"], check=True, capture_output=True, text=True).stdout
            for words in ((), ("unshare", "-U"))
        )
        return [next(line for line in text.splitlines() if line.startswith("Securebits")) for text in (own, new)]

    assert in_child(body) == ["Securebits: noroot,noroot_locked", "Securebits: [none]"]


def test_securebits_want_privilege_and_exec_bits_none(as_nobody: Any) -> None:
    def body() -> Any:
        with pytest.raises(StepFailed, match="CAP_SETPCAP") as caught:
            capabilities.set_securebits("noroot")
        try:
            capabilities.set_securebits("exec_restrict_file")
        except StepFailed as err:  # older than Linux 6.14
            return caught.value.errno, err.errno
        return caught.value.errno, capabilities.securebits()

    release = tuple(int(word) for word in os.uname().release.split("-")[0].split(".")[:2])
    assert as_nobody(body) == (1, ("exec_restrict_file",) if release >= (6, 14) else 1)


def test_keep_caps_off_is_the_kernels_way(in_child: Any) -> None:
    def body() -> list[int]:
        found = []
        for keep in (False, True):
            pid = os.fork()
            if pid == 0:
                capabilities.keep_caps(keep)
                os.setresuid(NOBODY, NOBODY, NOBODY)
                os._exit(bool(get().permitted))
            found.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return found

    assert in_child(body) == [0, 1]


def test_an_ordinary_user_has_none_and_drops_none(as_nobody: Any) -> None:
    def body() -> Any:
        sets = get()
        with pytest.raises(StepFailed, match="CAP_SETPCAP") as caught:
            capabilities.drop_bounding("KILL")
        with pytest.raises(StepFailed):
            network.loopback_up()
        return sets.effective, sets.permitted, sets.ambient, caught.value.errno

    assert as_nobody(body) == ((), (), (), 1)


def test_no_new_privs_stops_set_user_id(as_nobody: Any, place: Path) -> None:
    program = place / "cat"
    shutil.copy("/bin/cat", program)
    program.chmod(0o4755)

    def runs_as() -> int:
        """The effective user of a set-user-id root program."""
        reader, writer = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, writer, 1)]
        pid = os.posix_spawn(str(program), ["cat", "/proc/self/status"], {}, file_actions=actions)
        os.close(writer)
        with os.fdopen(reader) as file:
            found = next(line.split()[2] for line in file if line.startswith("Uid:"))
        os.waitpid(pid, 0)
        return int(found)

    def body() -> Any:
        without = capabilities.has_no_new_privs(), runs_as()
        capabilities.no_new_privs()
        return without, (capabilities.has_no_new_privs(), runs_as())

    assert as_nobody(body) == ((False, 0), (True, NOBODY))


def test_the_library_does_not_import_prctl_by_itself() -> None:
    import sys

    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; import minictr.kernel.capabilities; sys.exit('prctl' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-I", "-c", code], check=False).returncode == 0
