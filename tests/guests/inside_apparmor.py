"""Runs inside the guest with AppArmor live, and only there: what a profile allows and denies, and who says so.

Each file is one that every user may read (mode 0644): what is denied here is denied by the profile alone.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from waiting import eventually

import minictr as mc
from minictr.errors import StepFailed
from minictr.images.minimal import minimal
from minictr.kernel import apparmor

# Reads and runs what it needs, and nothing below /srv; {} is where the second one differs.
PROFILE = """
profile {name} flags=({mode}attach_disconnected,mediate_deleted) {{
  capability, network, mount, umount, unix, dbus,
  signal, ptrace,
  /{{bin,lib,lib64,usr,sbin,proc,dev,sys}}/** mrwkix,
  / r, /bin r, /lib r,
  /etc/** r,
  {more}
}}
"""
PROFILES = {
    "minictr-lab": ("", ""),
    "minictr-lenient": ("complain,", ""),
    "minictr-open": ("", "/srv/** r,"),
    "minictr-name with blanks (and brackets)": ("", ""),
}
Load = Callable[..., None]


def loaded(text: str, action: str = "-r") -> None:
    """TEXT compiled, and put into the kernel (-r) or taken out (-R)."""
    done = subprocess.run(
        ["apparmor_parser", "-K", action], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def source(name: str, mode: str = "", more: str = "") -> str:
    quoted = f'"{name}"' if " " in name else name
    return PROFILE.format(name=quoted, mode=mode, more=more)


@pytest.fixture(scope="session", autouse=True)
def _profiles(requires: Any) -> None:
    requires("apparmor_parser")
    loaded("\n".join(source(name, *rest) for name, rest in PROFILES.items()))


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> mc.Container:
    rootfs = tmp_path_factory.mktemp("image") / "rootfs"
    minimal(str(rootfs), ["sh", "cat", "true", "sleep"])
    (rootfs / "srv").mkdir(exist_ok=True)
    (rootfs / "srv" / "secret").write_text("told\n")
    return mc.Container(rootfs)


def run(box: mc.Container, profile: str, script: str) -> Any:
    confined = box.with_(mc.AppArmor(profile)) if profile else box
    return confined.run(["sh", "-c", script], capture_output=True, text=True, timeout=30)


CURRENT = "cat /proc/self/attr/apparmor/current"


def test_the_module_is_live_and_lists_its_profiles() -> None:
    assert apparmor.enabled()
    assert apparmor.current() == apparmor.Confinement("unconfined")
    found = apparmor.profiles()
    assert {name: found[name] for name in PROFILES} == {
        name: "complain" if mode else "enforce" for name, (mode, _) in PROFILES.items()
    }
    assert mc.support("apparmor")
    assert not mc.support("selinux")


def test_without_the_feature_the_file_is_read(box: mc.Container) -> None:
    done = run(box, "", f"cat /srv/secret; {CURRENT}")
    assert (done.returncode, done.stdout.split()) == (0, ["told", "unconfined"])


def test_a_profile_denies_what_the_mode_of_the_file_allows(box: mc.Container) -> None:
    done = run(box, "minictr-lab", f"{CURRENT}; cat /srv/secret")
    assert done.stdout == "minictr-lab (enforce)\n"
    assert "Permission denied" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("feature", ["no_new_privs", "init", "proc", "pivot_root"])
def test_it_confines_whatever_else_is_left_out(box: mc.Container, feature: str) -> None:
    less = (
        box.without("masked_paths", "readonly_paths", "sysctl", feature) if feature == "proc" else box.without(feature)
    )
    if feature == "pivot_root":
        less = less.with_("chroot")
    done = run(less, "minictr-lab", "read line </srv/secret || exit 9")
    assert done.returncode == 9, done
    assert run(less, "minictr-open", "read line </srv/secret || exit 9").returncode == 0


@pytest.mark.parametrize("place", ["/proc/self", "/proc/self/attr", "/data"])
def test_files_of_an_image_in_the_place_of_proc_take_no_label(box: mc.Container, tmp_path: Any, place: str) -> None:
    """A volume with files of procfs' names lies over a part of /proc, by itself or because a link of the image leads it
    there: the program is confined all the same, or the start ends. CVE-2019-16884, CVE-2019-19921, CVE-2025-52881.

    Weakened: whoever writes the label by that name writes to the fake, and confines nobody.
    """
    for name in ("exec", "attr/exec", "apparmor/exec", "attr/apparmor/exec", "self/attr/apparmor/exec"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("fake\n")
    link = box.rootfs + "/data"
    os.symlink("/proc", link)
    try:
        try:
            done = run(box.with_(mc.Bind(str(tmp_path), place)), "minictr-lab", "read line </srv/secret || exit 9")
        except StepFailed:
            assert place != "/proc/self", "what is over its own directory covers no setting, and needs not be refused"
        else:
            assert done.returncode == 9, done
    finally:
        os.unlink(link)
    assert {path.read_text() for path in tmp_path.rglob("exec")} == {"fake\n"}
    (tmp_path / "attr/exec").write_text("exec minictr-lab")
    assert apparmor.current() == apparmor.Confinement("unconfined")


def test_it_confines_in_a_user_namespace(box: mc.Container) -> None:
    maps = ((0, 100000, 65536),)
    done = run(box.with_(mc.UserNamespace(maps, maps)), "minictr-lab", f"{CURRENT}; cat /srv/secret")
    assert (done.returncode, done.stdout) == (1, "minictr-lab (enforce)\n"), done.stderr


def test_a_name_may_hold_blanks_and_brackets(box: mc.Container) -> None:
    name = "minictr-name with blanks (and brackets)"
    assert run(box, name, CURRENT).stdout == f"{name} (enforce)\n"


def test_complain_mode_allows_and_logs(box: mc.Container) -> None:
    done = run(box, "minictr-lenient", f"{CURRENT}; cat /srv/secret")
    assert (done.returncode, done.stdout) == (0, "minictr-lenient (complain)\ntold\n")
    words = ('apparmor="ALLOWED"', 'profile="minictr-lenient"', 'name="/srv/secret"')
    eventually(lambda: any(all(word in row for word in words) for row in kernel_log()), 5)


def kernel_log() -> list[str]:
    return subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.timeout(400)
def test_stacked_on_the_callers_own(box: mc.Container) -> None:
    """A caller that is confined: the program has both, and what either denies is denied."""
    script = (
        "import sys, minictr as mc\n"
        "box = mc.Container(sys.argv[1]).with_(mc.AppArmor(sys.argv[2]))\n"
        "done = box.run(['sh', '-c', sys.argv[3]], capture_output=True, text=True, timeout=30)\n"
        "print(done.returncode, done.stdout, end='')\n"
    )
    # a caller that may do anything: `file,` also lets it read /srv
    loaded(f"profile minictr-caller flags=(attach_disconnected) {{ {EVERYTHING} change_profile, }}")

    def called(profile: str) -> str:
        arguments = [sys.executable, "-P", "-c", script, box.rootfs, profile, f"{CURRENT}; cat /srv/secret"]

        def confine() -> None:
            apparmor.exec_label("minictr-caller")

        done = subprocess.run(arguments, preexec_fn=confine, capture_output=True, text=True, timeout=60, check=False)
        assert not done.stderr, done.stderr
        return done.stdout

    assert called("&minictr-open") == "0 minictr-caller//&minictr-open (enforce)\ntold\n"
    assert called("&minictr-lab") == "1 minictr-caller//&minictr-lab (enforce)\n"


EVERYTHING = "capability, network, mount, umount, pivot_root, unix, dbus, signal, ptrace, file,"


def test_an_unknown_profile_ends_the_start_before_it_began(box: mc.Container) -> None:
    confined = box.with_(mc.AppArmor("minictr-nowhere"))
    with pytest.raises(StepFailed, match="apparmor profile minictr-nowhere: ENOENT.*step 1 of .*it is not loaded"):
        confined.run(["true"])


def test_the_command_line_confines_or_says_why_not(kept: Callable[..., Any], box: mc.Container) -> None:
    def run(profile: str) -> Any:
        option = f"--security-opt=apparmor={profile}"
        return kept("run", "--rm", "--name", "lab", "--rootfs", box.rootfs, option, "--", "cat", "/srv/secret")

    assert run("minictr-open").stdout == "told\n"
    done = run("minictr-lab")
    assert (done.returncode, done.stdout) == (1, "") and "Permission denied" in done.stderr
    done = run("minictr-nowhere")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1)
    assert "apparmor profile minictr-nowhere: ENOENT" in done.stderr and "apparmor_parser -r FILE" in done.stderr
    assert kept("ps", "-aq").stdout == ""


def test_the_kernel_says_so_to_who_may_not_list_profiles(box: mc.Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apparmor, "check", lambda name: None)
    confined = box.with_(mc.AppArmor("minictr-nowhere"))
    with pytest.raises(
        StepFailed, match="exec label apparmor minictr-nowhere: write: ENOENT.*no such AppArmor profile"
    ):
        confined.run(["true"])


def test_alone_in_this_process() -> None:
    pid = os.fork()
    if pid == 0:
        apparmor.exec_label("minictr-lab")
        os.execv("/bin/cat", ["cat", "/etc/hostname"])
    assert os.waitpid(pid, 0)[1] == 0
    with pytest.raises(StepFailed, match="no such profile is loaded"):
        apparmor.exec_label("minictr-nowhere")


def test_an_ordinary_user_may_not_list_profiles_and_may_ask_for_one() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 1)
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        try:
            apparmor.profiles()
        except StepFailed as err:
            if err.errno == errno.EACCES:
                apparmor.check("minictr-nowhere")  # nothing to be seen, nothing to be said
                apparmor.exec_label("minictr-lab")
                os.execv("/bin/cat", ["cat", "/proc/self/attr/apparmor/current"])
        os._exit(1)
    os.close(writer)
    with open(reader) as file:
        assert file.read() == "minictr-lab (enforce)\n"
    assert os.waitpid(pid, 0)[1] == 0


def test_the_doctor_names_the_profile_that_confines_it(minictr_cli: list[str]) -> None:
    """One that lets nobody mount, root with every capability not either. Without it mounts work: inside.py."""
    loaded(f"profile minictr-mountless flags=(attach_disconnected) {{ {EVERYTHING.replace(' mount,', '')} }}")

    def confine() -> None:
        apparmor.exec_label("minictr-mountless")

    done = subprocess.run(
        [*minictr_cli, "doctor", "--json"],
        preexec_fn=confine,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(done.stdout)
    rows = {row["name"]: row for row in found["checks"]}
    assert found["user"]["label"] == "minictr-mountless (enforce)"
    assert rows["tmpfs"]["refused_by"] == "LSM minictr-mountless (enforce)", rows["tmpfs"]
    assert rows["tmpfs"]["errno"] == "EACCES"
    assert rows["pid"]["works"] is True


# --- a container that lasts ---


@pytest.mark.timeout(400)
def test_exec_has_the_label_of_the_container(kept: Callable[..., Any], box: mc.Container) -> None:
    root = box.rootfs
    option = ("--security-opt", "apparmor=minictr-lab")
    started = kept("run", "-d", "--name", "lab", "--rootfs", root, *option, "--", "sleep", "100")
    assert started.returncode == 0, started.stderr
    assert kept("exec", "lab", "cat", "/proc/self/attr/apparmor/current").stdout == "minictr-lab (enforce)\n"
    assert kept("exec", "lab", "cat", "/srv/secret").returncode == 1
    other = ("exec", "--security-opt", "apparmor=minictr-open", "lab", "cat", "/proc/self/attr/apparmor/current")
    assert kept(*other).stdout == "minictr-open (enforce)\n"
    for free in ("--security-opt=apparmor=unconfined", "--privileged", "--without=apparmor"):
        done = kept("exec", free, "lab", "cat", "/srv/secret", "/proc/self/attr/apparmor/current")
        assert done.stdout == "told\nunconfined\n", (free, done.stderr)
    found = json.loads(kept("inspect", "lab").stdout)[0]
    assert (found["AppArmorProfile"], found["Labels"]) == ("minictr-lab", {"apparmor": "minictr-lab (enforce)"})


@pytest.mark.timeout(400)
def test_a_profile_removed_between_create_and_start(kept: Callable[..., Any], box: mc.Container) -> None:
    """The kernel makes its tasks unconfined: such a start is refused."""
    loaded(source("minictr-brief"))
    option = ("--security-opt", "apparmor=minictr-brief")
    done = kept("create", "--name", "lab", "--rootfs", box.rootfs, *option, "--", "sleep", "100")
    assert done.returncode == 0, done.stderr
    loaded(source("minictr-brief"), "-R")
    eventually(lambda: "minictr-brief" not in apparmor.profiles(), 5)
    done = kept("start", "lab")
    assert done.returncode != 0
    assert "verify label: EPERM" in done.stderr
    assert "was its profile removed?" in done.stderr
