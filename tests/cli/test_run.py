"""``minictr run`` as a person uses it: exit codes, and what each option changes inside."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


@pytest.fixture
def run(run_cli, rootfs, requires):
    """``run(script, *options)``: bash runs SCRIPT in a container; the finished process."""
    requires.root()

    def inside(script, *options, **keywords):
        return run_cli("run", "--rootfs", rootfs, *options, "--", "bash", "-c", script, **keywords)

    return inside


def out(done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- exit codes ---


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
        ("ulimit -c 0; kill -SEGV $$", 139),
    ],
)
@pytest.mark.parametrize("init", ["--init", "--no-init"])
def test_the_programs_own_code(run, script, code, init):
    if init == "--no-init" and "kill" in script and "-9" not in script:
        pytest.skip("the kernel shields PID 1 of a namespace from its own signals")
    if init == "--no-init" and "-9" in script:
        code = 0  # pid_namespaces(7): not even SIGKILL from inside reaches PID 1
    done = run(script, init)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["nosuch"], 127, ["nosuch", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]),
        (["/bin/nosuch"], 127, ["/bin/nosuch"]),
        (["/etc/passwd"], 126, ["/etc/passwd", "EACCES"]),
        (["/etc"], 126, ["/etc"]),
    ],
)
def test_a_program_that_cannot_run(run_cli, rootfs, command, code, words):
    done = run_cli("run", "--rootfs", rootfs, *command)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("minictr run: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


# --- the program's surroundings ---


def test_environment(run, tmp_path):
    file = tmp_path / "env"
    file.write_text("# a comment\n\nFROM_FILE=one two\nOVERRIDDEN=file\nCOPIED\nUNSET_HERE\n")
    env = {**os.environ, "COPIED": "by name", "ALSO": "copied", "SECRET": "stays outside"}
    env.pop("UNSET_HERE", None)
    options = (
        "--env-file",
        file,
        "-e",
        "OVERRIDDEN=option",
        "--env=ALSO",
        "-eGLUED=a=b",
        "-e",
        "EMPTY=",
        "-e",
        "UNSET_HERE",
    )
    found = dict(line.split("=", 1) for line in out(run("env", *options, env=env)).splitlines())
    wanted = {
        "FROM_FILE": "one two",
        "OVERRIDDEN": "option",
        "COPIED": "by name",
        "ALSO": "copied",
        "GLUED": "a=b",
        "EMPTY": "",
    }
    assert wanted.items() <= found.items()
    assert found["PATH"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert not {"SECRET", "UNSET_HERE"} & found.keys()


def test_the_lxc_profile_begins_without_the_callers_environment(run):
    env = {**os.environ, "OURS": "1"}
    assert out(run("echo $OURS$container", "--profile", "lxc", env=env)) == "lxc"
    assert out(run("echo $OURS$container", "--profile", "lxc", "--without", "env", env=env)) == "1"


def test_working_directory_user_and_names(run):
    assert out(run("pwd", "-w", "/tmp/new/deep")) == "/tmp/new/deep"
    assert out(run("echo $(id -u):$(id -g)", "-u", "1234:99")) == "1234:99"
    assert out(run("echo $(id -u) $HOME", "--user", "root")) == "0 /root"
    assert out(run("uname -n", "-h", "lab")) == "lab"
    assert out(run("uname -n", "--name", "box-1")) == "box-1"
    assert out(run("cat /proc/sys/kernel/domainname", "--domainname", "nis")) == "nis"


# --- files ---


def test_volumes(run, tmp_path):
    (tmp_path / "file").write_text("hello")
    place = f"{tmp_path}:/mnt/here"
    assert out(run("cat /mnt/here/file; echo new > /mnt/here/made", "-v", place)) == "hello"
    assert (tmp_path / "made").read_text() == "new\n"
    assert "Read-only" in run("touch /mnt/here/x", "-v", f"{place}:ro").stderr
    assert "Read-only" in run("touch /mnt/here/x", "--mount", f"type=bind,src={tmp_path},dst=/mnt/here,readonly").stderr
    assert out(run("cat /tmp/one", "-v", f"{tmp_path / 'file'}:/tmp/one")) == "hello"


def test_a_volume_may_be_relative(run, tmp_path):
    (tmp_path / "data").mkdir()
    out(run("touch /mnt/data/made", "-v", "./data:/mnt/data", cwd=tmp_path))
    assert (tmp_path / "data" / "made").exists()


def test_tmpfs(run):
    script = "findmnt -no FSTYPE,OPTIONS /mnt/scratch; stat -c %a /mnt/scratch"
    found = out(run(script, "--tmpfs", "/mnt/scratch:size=1m,mode=700,exec"))
    assert "tmpfs" in found
    assert "size=1024k" in found
    assert "noexec" not in found
    assert found.endswith("700")
    assert "tmpfs" in out(run("findmnt -no FSTYPE /run", "--mount", "type=tmpfs,target=/run"))


def test_overlay_and_read_only_leave_the_root_as_it_was(run, rootfs, tmp_path):
    assert out(run("touch /made; ls /made", "--overlay")) == "/made"
    assert not (rootfs / "made").exists()
    upper = tmp_path / "upper"
    assert out(run("touch /made", "--upper", upper)) == ""
    assert (upper / "made").exists()
    assert not (rootfs / "made").exists()
    assert out(run("ls /made", "--upper", upper)) == "/made"
    assert "Read-only" in run("touch /made", "--read-only").stderr


def test_shm_size(run):
    assert "size=2048k" in out(run("findmnt -no OPTIONS /dev/shm", "--shm-size", "2m"))


# --- privilege ---


def status(text: str, key: str) -> str:
    return next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith(key + ":"))


def test_capabilities(run):
    show = "cat /proc/self/status"
    chown, net_raw = 1 << 0, 1 << 13
    plain = int(status(out(run(show)), "CapEff"), 16)
    assert plain & chown
    assert not plain & net_raw
    assert int(status(out(run(show, "--cap-drop", "ALL")), "CapBnd"), 16) == 0
    assert int(status(out(run(show, "--cap-drop=all", "--cap-add", "chown")), "CapEff"), 16) == chown
    assert int(status(out(run(show, "--cap-add", "CAP_NET_RAW")), "CapEff"), 16) == plain | net_raw
    assert int(status(out(run(show, "--cap-drop", "chown")), "CapEff"), 16) == plain & ~chown


def test_privileged_has_what_the_caller_has(run):
    text = out(run("cat /proc/self/status", "--privileged"))
    mine = Path("/proc/self/status").read_text()
    assert status(text, "CapEff") == status(mine, "CapBnd")
    assert status(text, "NoNewPrivs") == "0"


@pytest.mark.parametrize("profile", ["docker", "lxc"])
def test_privileged_lifts_a_device_list(run, profile):
    """The list that those profiles have is gone, and with it what stands before the host's devices."""
    look = "cat /proc/self/mounts > /dev/null; : < /dev/loop-control && echo open"
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("this host has no loop devices")
    assert out(run(look, "--profile", profile, "--privileged")).strip() == "open"


def test_security_options(run):
    show = "cat /proc/self/status"
    assert status(out(run(show)), "NoNewPrivs") == "1"
    assert status(out(run(show, "--security-opt", "no-new-privileges=false")), "NoNewPrivs") == "0"
    assert status(out(run(show, "--profile", "docker", "--security-opt", "no-new-privileges")), "NoNewPrivs") == "1"


@pytest.mark.parametrize(("option", "feature"), [("apparmor=lab", "apparmor"), ("label=a:b:c", "selinux")])
def test_a_label_that_cannot_be_had(run, option, feature):
    """On any machine: no such profile, no such context, or no such security module."""
    done = run("true", "--security-opt", option)
    assert done.returncode == 125
    assert done.stdout == ""
    assert done.stderr.startswith(f"minictr run: {feature}"), done.stderr
    done = run("echo ran", "--security-opt", option, "--best-effort", feature)
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert f"{feature} is left out: " in done.stderr


def test_limits_and_sysctls(run):
    assert out(run("ulimit -Sn; ulimit -Hn", "--ulimit", "nofile=64:128")) == "64\n128"
    assert out(run("cat /proc/sys/net/ipv4/ip_forward", "--sysctl", "net.ipv4.ip_forward=1")) == "1"
    assert out(run("cat /proc/self/oom_score_adj", "--oom-score-adj", "500")) == "500"


# --- namespaces ---


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts", "net", "cgroup"])
def test_namespaces_host_private_joined(run, kind):
    option = f"--{'cgroupns' if kind == 'cgroup' else kind}"
    show = f"readlink /proc/self/ns/{kind}"
    ours = os.readlink(f"/proc/self/ns/{kind}")
    assert out(run(show, option, "private")) != ours
    assert out(run(show, option, "host")) == ours
    assert out(run(show, option, f"ns:/proc/{os.getpid()}/ns/{kind}")) == ours
    assert out(run(show, option, f"pid:{os.getpid()}")) == ours


def test_net_none_is_loopback_alone(run):
    assert out(run("cut -d: -f1 /proc/net/dev | tail -n +3", "--network", "none")).split() == ["lo"]


def test_user_namespace(run, tmp_path):
    """Without /proc and /sys, which an outer container may keep a user namespace from mounting."""
    tmp_path.chmod(0o777)
    without = ("proc", "sysfs", "sysctl", "masked_paths", "readonly_paths")
    options = [word for name in without for word in ("--without", name)]
    script = "id -u; touch /mnt/made; chown 7:9 /mnt/made"
    assert out(run(script, "--uidmap", "0:100000:1000", "-v", f"{tmp_path}:/mnt", *options)) == "0"
    made = (tmp_path / "made").stat()
    assert (made.st_uid, made.st_gid) == (100007, 100009)


def test_time_namespace(run):
    def uptime(text):
        return float(text.split()[0])

    host = uptime(Path("/proc/uptime").read_text())
    assert uptime(out(run("cat /proc/uptime", "--time-offset", "boottime=100000"))) > host + 99000


# --- features by name ---


def test_init_can_be_left_out(run):
    assert out(run("echo $$", "--no-init")) == "1"
    assert out(run("echo $$", "--init")) != "1"


def test_with_and_without(run):
    masked = "findmnt -rno TARGET /proc/interrupts"
    assert out(run(masked)) == "/proc/interrupts"
    assert run(masked, "--without", "masked_paths").stdout == ""
    assert "Read-only" in run("touch /x", "--with", "readonly").stderr
    assert status(out(run("cat /proc/self/status", "--without", "no_new_privs")), "NoNewPrivs") == "0"


def test_the_hosts_own_root(run_cli, requires):
    requires.root()
    done = run_cli("run", "--profile", "bare", "--without", "chroot", "--with", "uts", "-h", "lab", "uname", "-n")
    assert (done.returncode, done.stdout) == (0, "lab\n")


# --- what is told about the run ---


def test_timeout_sends_the_stop_signal(run):
    script = "trap 'echo stopped; exit 5' USR1; echo begun; while :; do sleep 0.02; done"
    done = run(script, "--timeout", "0.5", "--stop-signal", "USR1")
    assert (done.returncode, done.stdout) == (124, "begun\nstopped\n")


def test_status_as_json(run):
    read, write = os.pipe()
    with open(read) as answers:
        done = run("exit 4", "--json-status-fd", str(write), pass_fds=[write])
        os.close(write)
        lines = [json.loads(line) for line in answers]
    assert done.returncode == 4
    assert [list(line) for line in lines] == [["child-pid"], ["exit-code"]]
    assert lines[0]["child-pid"] > 0
    assert lines[1]["exit-code"] == 4


def test_descriptors_are_passed_on_only_when_asked_for(run):
    read, write = os.pipe()
    os.write(write, b"passed\n")
    os.close(write)

    def third():
        os.dup2(read, 3)

    with open(read):
        assert run("readlink /proc/self/fd/3", pass_fds=[3], preexec_fn=third).stdout == ""
        assert out(run("cat <&3", "--preserve-fds", "1", pass_fds=[3], preexec_fn=third)) == "passed"


def test_trace_goes_to_standard_error(run):
    done = run("echo output", "--trace")
    assert done.stdout == "output\n"
    lines = done.stderr.splitlines()
    assert lines[0].startswith("start: ")
    assert {"exec", "clone", "proc", "capabilities"} <= {line.split()[0] for line in lines if line}
    assert max(map(len, lines)) < 80


def test_trace_file(run, tmp_path):
    file = tmp_path / "trace.json"
    assert out(run("true", f"--trace={file}")) == ""
    events = [event for event in json.loads(file.read_text())["traceEvents"] if event["ph"] == "X"]
    assert {"mount proc on /proc"} <= {event["name"] for event in events}
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in events)


def test_closed_standard_streams_are_dev_null(run):
    def close():
        os.closerange(0, 2)

    done = run("readlink /proc/$$/fd/0 /proc/$$/fd/1 >&2", preexec_fn=close)
    assert (done.returncode, done.stderr) == (0, "/dev/null\n/dev/null\n")
