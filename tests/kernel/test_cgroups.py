"""Where groups are, how they are made and removed, and what is refused: live, and on made-up hosts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from cgrouptools import outcome, start, text

from minictr.errors import SpecError, StepFailed, Unsupported
from minictr.kernel import cgroup2, cgroup_places, cgroup_tasks, cgroups
from minictr.kernel.cgroups import Hierarchy, Place
from minictr.kernel.child import Child

HYBRID = """\
3:name=systemd:/user
2:cpu,cpuacct:/user
1:blkio:/outside
0::/user/leaf
"""
MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:34 /user /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio
34 31 0:35 /user /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
"""


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``host(cgroup, mountinfo, controllers)``: a machine with these files."""

    def become(own: str, mounts: str, controllers: str = "memory pids\n") -> None:
        files = {"/proc/self/cgroup": own, "/proc/self/mountinfo": mounts}
        monkeypatch.setattr(cgroup_places, "_bytes", lambda path: files.get(path, controllers).encode())
        for name, empty in (("text", b""), ("hierarchies", ()), ("homes", {})):
            monkeypatch.setattr(cgroup_places._Seen, name, empty)

    return become


def test_a_hybrid_host(host: Any) -> None:
    host(HYBRID, MOUNTS + "35 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n")
    assert cgroups.hierarchies() == (
        Hierarchy(1, ("named:systemd",), "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/systemd"),
        Hierarchy(1, ("cpu", "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/user"),
        Hierarchy(1, ("io",), "/sys/fs/cgroup/blkio", ""),
        Hierarchy(2, ("memory", "pids"), "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/user/leaf"),
    )
    versions = {name: cgroups.home(name).version for name in ("cpu", "memory", "freezer", "devices", "raw", "unified")}
    assert versions == {"cpu": 1, "memory": 2, "freezer": 2, "devices": 2, "raw": 2, "unified": 2}
    assert cgroups.locate("memory", "lab").directory == "/sys/fs/cgroup/unified/user/leaf/lab"
    assert cgroups.locate("memory", "a/b", "x/y").directory == "/sys/fs/cgroup/unified/user/leaf/x/y/a/b"
    assert cgroups.locate("memory", "lab", "/x").directory == "/sys/fs/cgroup/unified/x/lab"
    assert cgroups.locate("named:systemd", "lab").directory == "/sys/fs/cgroup/systemd/lab"
    with pytest.raises(Unsupported, match="io: .*/blkio shows another part of the tree"):
        cgroups.locate("io", "lab")
    assert cgroups.locate("io", "lab", "/").directory == "/sys/fs/cgroup/blkio/lab"


def test_v1_alone(host: Any) -> None:
    host(HYBRID.removesuffix("0::/user/leaf\n"), MOUNTS)
    assert cgroups.has("cpuacct")
    for name in ("raw", "devices", "freezer"):
        with pytest.raises(Unsupported, match=f"{name}: no cgroup v2 hierarchy is mounted here; mount -t cgroup2"):
            cgroups.home(name)
    with pytest.raises(Unsupported, match="memory: this kernel has no such controller.*/proc/cgroups"):
        cgroups.home("memory")
    with pytest.raises(Unsupported, match="no such v1 hierarchy; mount -t cgroup -o none,name=other"):
        cgroups.home("named:other")


def test_v2_alone(host: Any) -> None:
    host("0::/\n", "30 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "cpu memory\n")
    assert cgroups.locate("cpu", "lab").directory == "/sys/fs/cgroup/lab"
    with pytest.raises(Unsupported, match="cpuacct: it is on cgroup v1 only"):
        cgroups.home("cpuacct")


def test_a_hierarchy_that_is_mounted_nowhere(host: Any) -> None:
    host("1:blkio:/\n0::/\n", "")
    for name, how in (("io", "-t cgroup -o blkio none"), ("raw", "-t cgroup2")):
        with pytest.raises(Unsupported, match=f"{name}: its hierarchy is mounted nowhere here; mount {how}"):
            cgroups.home(name)


def test_inside_a_container(host: Any) -> None:
    """The outer runtime mounted the container's part only; /proc tells paths from the host's root, or from its own."""
    host("1:pids:/docker/abc\n", "9 1 0:1 /docker/abc /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n")
    assert cgroups.locate("pids", "lab").directory == "/sys/fs/cgroup/pids/lab"
    host("1:pids:/\n", "9 1 0:1 /../.. /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n")
    with pytest.raises(Unsupported, match="shows another part"):
        cgroups.locate("pids", "lab")


@pytest.mark.parametrize("name", ["", "..", "a/../b", "a//b", "/a", "a/", ".", "a\nb", "a\0b", "x" * 256])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(SpecError, match="cgroup name"):
        cgroups.locate("pids", name)


@pytest.mark.parametrize("parent", ["..", "/..", "/a/../..", "a/..", "//a//b/../"])
def test_no_parent_leads_out(parent: str) -> None:
    with pytest.raises(SpecError, match="cgroup parent"):
        cgroups.locate("pids", "lab", parent)


@pytest.mark.parametrize("name", ["tasks", "memory.max", "cgroup.procs", "a/cpu.weight"])
def test_names_of_files(name: str) -> None:
    with pytest.raises(SpecError, match="control file"):
        cgroups.locate("pids", name)


def test_places_are_found_again_when_this_process_moves(group: Any) -> None:
    place = group("pids")
    before = cgroups.locate("pids", "x").directory
    cgroup_tasks.add(place)
    try:
        assert cgroups.locate("pids", "x").directory == f"{place.directory}/x"
        for refused in (cgroups.remove, lambda directory: cgroups.kill([place.replace(directory=directory)])):
            for directory in (place.directory, place.base):
                with pytest.raises(
                    SpecError, match="this very process is in|no group below another|not made by minictr"
                ):
                    refused(directory)
        with pytest.raises(SpecError, match="remove cgroup .*: this very process is in"):
            cgroups.remove(place.directory, recorded=True)
    finally:
        cgroup_tasks.add(place.replace(directory=place.base))
    assert cgroups.locate("pids", "x").directory == before


def test_make_and_remove(group: Any) -> None:
    place = group("pids", "a/b")
    top = os.path.dirname(place.directory)
    assert cgroups.marked(place.directory) and cgroups.marked(top)
    assert not cgroups.create(place), "it was there"
    os.mkdir(f"{place.directory}/by-somebody-inside")
    cgroups.remove(top)
    assert not os.path.exists(top)
    cgroups.remove(top)
    cgroups.remove(f"{top}/never/was")


def test_what_is_not_ours_is_not_removed(group: Any, tmp_path: Path) -> None:
    place = group("pids")
    theirs = f"{place.directory}/theirs"
    os.mkdir(theirs)
    with pytest.raises(SpecError, match="not made by minictr"):
        cgroups.remove(theirs)
    (tmp_path / "plain").mkdir()
    with pytest.raises(SpecError, match="no group below another"):
        cgroups.remove(str(tmp_path / "plain"), recorded=True)
    with pytest.raises(SpecError, match="no group below another"):
        cgroups.remove(place.mount, recorded=True)
    (tmp_path / "link").symlink_to(theirs)
    with pytest.raises(SpecError, match="no group below another"):
        cgroups.remove(str(tmp_path / "link"), recorded=True)
    assert os.path.isdir(theirs)
    cgroups.remove(theirs, recorded=True)


def test_remove_waits_for_who_is_about_to_end_and_names_who_is_not(group: Any) -> None:
    place = group("pids")
    with start("import time; time.sleep(0.3)", place):
        began = time.monotonic()
        cgroups.remove(place.directory)
        assert 0.1 < time.monotonic() - began < 5
    cgroups.create(place)
    with start("import time; time.sleep(60)", place) as process:
        with pytest.raises(StepFailed, match=rf"rmdir .*EBUSY.*in {place.directory}: {process.pid} \(python"):
            cgroups.remove(place.directory, timeout=0.05)
        process.kill()


def test_delegated(group: Any) -> None:
    """The directory and the files of processes change hands; limits do not."""
    place = group("pids")
    cgroups.delegate(place, 1234, 2345)
    found = os.stat(place.directory)
    assert (found.st_uid, found.st_gid) == (1234, 2345)
    handed = {name for name in os.listdir(place.directory) if os.stat(f"{place.directory}/{name}").st_uid == 1234}
    wanted = {"tasks"} if place.version == 1 else {"cgroup.threads", "cgroup.subtree_control"}
    assert handed == {"cgroup.procs", *wanted}


def test_entrance(group: Any) -> None:
    """v1: whoever has the descriptor moves itself by "0", without a permission of its own. v2: born inside."""
    place = group("pids")
    fd = cgroups.entrance(place)
    assert not os.get_inheritable(fd)
    try:
        if place.version == 2:
            with Child(cgroup=fd) as child:
                assert cgroups.processes(place.directory) == (child.pid,)
            return
        program = "import os\nos.setgid(65534); os.setuid(65534)\n"
        program += f"os.write({fd}, b'0')\nprint(open('/proc/self/cgroup').read())"
        with start(program, pass_fds=(fd,)) as process:
            assert f":pids:{place.directory.removeprefix(place.mount)}\n" in process.communicate(timeout=10)[0]
    finally:
        os.close(fd)
    with pytest.raises(StepFailed, match="ENOENT"):
        cgroups.entrance(place.replace(directory=place.directory + "/gone"))


def test_born_inside_v2(group: Any) -> None:
    """CLONE_INTO_CGROUP, on a hybrid host as well."""
    place = group("unified")
    fd = cgroups.entrance(place)
    try:
        with Child(cgroup=fd) as child:
            assert cgroups.processes(place.directory) == (child.pid,)
            assert text(place, "cgroup.events") == "populated 1\nfrozen 0"
    finally:
        os.close(fd)


def test_the_named_hierarchy(group: Any) -> None:
    place = group("named:systemd")
    assert outcome("print('in')", place) == (0, "in\n")
    with pytest.raises(SpecError, match="no setting; there are: none"):
        cgroups.write(place, max=1)


# --- rules of v2, by name ---


def top() -> Hierarchy:
    found = [each for each in cgroups.hierarchies() if each.version == 2 and each.own and each.controllers]
    return found[0] if found else pytest.skip("no cgroup v2 with a controller here")


def given_by_v2(*wanted: str) -> list[str]:
    """Those of WANTED that are on v2 here."""
    return [name for name in wanted if name in top().controllers] or pytest.skip(f"none of {wanted} on v2 here")


def test_no_internal_processes(group: Any) -> None:
    """Who is in the way is named."""
    controller = given_by_v2("memory", "hugetlb", "io")[0]
    inner = group("unified", "inner")
    with start("import time; time.sleep(60)", inner) as process:
        with pytest.raises(StepFailed) as caught:
            cgroups.create(Place(2, controller, f"{inner.directory}/below"))
        process.kill()
    words = str(caught.value)
    assert f"write '+{controller}' to {inner.directory}/cgroup.subtree_control: EBUSY" in words
    assert "no internal processes" in words and f"{process.pid} (python" in words
    assert not os.path.exists(f"{inner.directory}/below"), "what was made is taken back"
    cgroups.create(Place(2, controller, f"{inner.directory}/below"))
    with pytest.raises(StepFailed, match=rf"gives {controller} to the groups below it"):
        cgroup_tasks.add(inner)


def test_no_internal_processes_of_a_threaded_controller(group: Any) -> None:
    """The kernel would enable it, and make the group a threaded domain: not done to a group that has processes."""
    controller = given_by_v2("pids", "cpu")[0]
    inner = group("unified", "inner")
    below = Place(2, controller, f"{inner.directory}/below")
    with start("import time; time.sleep(60)", inner) as process:
        with pytest.raises(StepFailed) as caught:
            cgroups.create(below)
        assert f"write '+{controller}' to {inner.directory}/cgroup.subtree_control: EBUSY" in str(caught.value)
        assert "no internal processes" in str(caught.value) and f"{process.pid} (python" in str(caught.value)
        assert (text(inner, "cgroup.subtree_control"), text(inner, "cgroup.type")) == ("", "domain")
        Path(inner.directory, "cgroup.subtree_control").write_text(f"+{controller}")  # somebody else does
        with pytest.raises(StepFailed, match="'domain invalid': ENOTSUP .*no internal processes"):
            cgroups.create(below)
        assert not os.path.exists(below.directory)


def test_step_aside(group: Any, in_child: Any) -> None:
    """Makes room where this process is the only one."""
    controller = given_by_v2("memory", "hugetlb", "io")[0]
    inner = group("unified", "inner")

    def body() -> Any:
        cgroup_tasks.add(inner)
        hierarchy = next(each for each in cgroups.hierarchies() if each.version == 2)
        place = cgroups.locate(controller, "lab")
        with pytest.raises(StepFailed, match="step_aside"):
            cgroups.create(place)
        aside = cgroup_tasks.step_aside(hierarchy)
        return cgroups.create(place), aside

    assert in_child(body) == (True, f"{inner.directory}/minictr.self")


def test_a_controller_that_the_parent_does_not_have(group: Any) -> None:
    inner = group("unified", "inner")
    with pytest.raises(StepFailed, match=r"write '\+nonsense' to .*subtree_control: (EINVAL|ENOENT).*controllers has"):
        cgroup2.enable(inner.directory, "nonsense")


def test_too_many_groups(group: Any) -> None:
    place = group("unified")
    Path(place.directory, "cgroup.max.descendants").write_text("0")
    with pytest.raises(
        StepFailed, match=rf"mkdir {place.directory}/x: EAGAIN.*{place.directory}/cgroup.max.descendants says 0"
    ):
        cgroups.create(Place(2, "unified", f"{place.directory}/x"))


def test_an_ordinary_user(as_nobody: Any) -> None:
    def body() -> tuple[str, str]:
        with pytest.raises(StepFailed) as caught:
            cgroups.create(cgroups.locate("pids", "lab"))
        return str(caught.value), str(cgroups.probe()["pids"])

    words, answer = as_nobody(body)
    for said in (words, answer):
        assert "EACCES" in said
        assert "belongs to user 0, this is user 65534" in said
        assert "Delegate=yes" in said


def test_probe(requires: Any) -> None:
    requires.root()
    before = {each: [*cgroups.tree(each)] for each in cgroups.own_groups()}
    found = cgroups.probe()
    assert found["pids"] and found["memory"] and found["cpu"]
    assert all(str(answer) == "yes" or (answer.reason and answer.cure) for answer in found.values())
    assert {each: [*cgroups.tree(each)] for each in cgroups.own_groups()} == before


def test_the_cost(group: Any) -> None:
    """Each start pays it for each controller: some 0.07 to 0.15 ms here; the limit is generous for a busy machine."""
    if not cgroups.has("pids"):
        pytest.skip("no pids")
    place = cgroups.locate("pids", f"{group.name}-cost")
    best = 1.0
    for _ in range(50):
        began = time.perf_counter()
        found = cgroups.locate("pids", f"{group.name}-cost")
        cgroups.create(found)
        cgroups.write(found, max=64)
        os.close(cgroups.entrance(found))
        cgroups.remove(found.directory)
        best = min(best, time.perf_counter() - began)
    assert not os.path.exists(place.directory)
    assert best < 0.25e-3 or os.environ.get("GUEST"), f"{best * 1e3:.3f} ms"
