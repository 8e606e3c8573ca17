"""mmdebstrap: what it is given, what its failures become, and one real system."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minictr.errors import MinictrError, SpecError, Unsupported
from minictr.images import apt
from minictr.images.debian import debian

SOURCES = """\
# the mirror of this house
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://mirror.example/off
Suites: bookworm
Components: main
Enabled: no
"""
LIST = """\
deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] http://two.example/debian stable main # a comment
deb-src http://two.example/debian stable main
deb https://download.example/linux/debian bookworm stable
# deb http://three.example/debian bookworm main
"""


@pytest.fixture
def etc_apt(tmp_path: Path) -> Path:
    directory = tmp_path / "apt"
    (directory / "sources.list.d").mkdir(parents=True)
    (directory / "sources.list.d" / "debian.sources").write_text(SOURCES)
    (directory / "sources.list").write_text(LIST)
    (tmp_path / "os-release").write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
    return directory


def suites(text: str) -> list[tuple[str, str]]:
    fields = [dict(line.split(": ", 1) for line in part.split("\n") if ": " in line) for part in text.split("\n\n")]
    return [(each["URIs"], each["Suites"]) for each in fields]


def test_sources_of_the_host(etc_apt: Path) -> None:
    text = apt.sources("bookworm", str(etc_apt), str(etc_apt.parent / "os-release"))
    assert suites(text) == [
        ("http://two.example/debian", "bookworm"),
        ("http://mirror.example/debian", "bookworm"),
        ("http://mirror.example/debian", "bookworm-updates"),
        ("http://mirror.example/security", "bookworm-security"),
    ]
    assert "Signed-By: /usr/share/keyrings/a.gpg\n" in text
    assert "Components: main contrib\nSigned-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n" in text
    assert "off" not in text
    assert "download.example" not in text


def test_sources_for_another_release(etc_apt: Path) -> None:
    release = str(etc_apt.parent / "os-release")
    assert {name for _, name in suites(apt.sources("trixie", str(etc_apt), release))} == {
        "trixie",
        "trixie-updates",
        "trixie-security",
    }
    assert {name for _, name in suites(apt.sources("sid", str(etc_apt), release))} == {"sid"}


def test_sources_of_another_system(etc_apt: Path, tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text("ID=ubuntu\nVERSION_CODENAME=noble\n")
    assert apt.sources("trixie", str(etc_apt), str(tmp_path / "os-release")) == ""
    assert apt.sources("trixie", str(tmp_path / "nowhere"), str(tmp_path / "nowhere")) == ""


def test_settings_are_those_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requires) -> None:
    requires("apt-config")
    conf = tmp_path / "apt.conf"
    conf.write_text(
        'Acquire::http::Proxy "http://proxy.example:3128";\nAcquire::https { CaInfo "/etc/ssl/own.pem"; };\n'
        'APT::Install-Recommends "true";\nDPkg::Post-Invoke { "touch /tmp/x"; };\nAcquire::Languages "none";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(conf))
    lines = apt.settings().split("\n")
    assert 'Acquire::http::Proxy "http://proxy.example:3128";' in lines
    assert 'Acquire::https::CaInfo "/etc/ssl/own.pem";' in lines
    assert not any(word in line for line in lines for word in ("Recommends", "Invoke", "Languages"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"suite": "--help"}, "--suite '--help': not the name"),
        ({"suite": ""}, "not the name"),
        ({"suite": "book worm"}, "not the name"),
        ({"include": ["ok", "-o", "a,b", "?essential", "../x.deb"]}, "'-o', 'a,b', '\\?essential', '../x.deb'"),
        ({"include": "nginx"}, "a list of package names"),
        ({"variant": "huge"}, "choose one of minbase"),
        ({"mirror": "--verbose"}, "give a URL"),
        ({"mirror": "/etc/passwd"}, "give a URL"),
    ],
)
def test_names_that_are_refused(tmp_path: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        debian(str(tmp_path / "root"), **options)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_without_mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="mmdebstrap is not installed; apt-get install mmdebstrap"):
        debian(str(tmp_path / "root"))


def stand_in(directory: Path, script: str) -> str:
    """A PATH in which mmdebstrap is SCRIPT."""
    program = directory / "bin" / "mmdebstrap"
    program.parent.mkdir()
    program.write_text(f"#!/bin/bash\n{script}\n")
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("E: Unable to locate package nope", "Unable to locate package nope; check the name"),
        (
            "Err:1 x\nE: Failed to fetch x  Could not resolve 'h'\nE: apt-get update failed",
            "resolve 'h'; check the network",
        ),
        ("E: apt-get update failed", "apt-get update failed"),
        ("", "with code 3"),
    ],
)
def test_its_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requires, output: str, words: str) -> None:
    requires.root()
    script = f'for last; do [ -d "$last" ] && mkdir -p "$last/deep/er"; done; cat >&2 <<"X"\n{output}\nX\nexit 3'
    monkeypatch.setenv("PATH", stand_in(tmp_path, script))
    with pytest.raises(MinictrError, match=words) as caught:
        debian(str(tmp_path / "root"))
    assert str(caught.value).startswith("mmdebstrap failed: ")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["bin"]


def test_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requires) -> None:
    requires.root()
    monkeypatch.setenv("PATH", stand_in(tmp_path, 'echo "I: working" >&2; printf "%s\\n" "$@" >"${@: -2:1}/given"'))
    lines: list[str] = []
    mirror = "http://mirror.example/debian"
    built = debian(
        f"{tmp_path}/root", "trixie", include=["nginx", "bash:amd64", "nginx"], mirror=mirror, progress=lines.append
    )
    given = Path(built.directory, "given").read_text().split("\n")
    assert "--include=nginx,bash:amd64" in given
    assert "--variant=minbase" in given
    assert given[-4] == "trixie"
    assert given[-2] == mirror
    assert lines == ["working"]
    assert any("apt.conf.d" in word for word in given)
    assert built.files == 1


def test_the_hosts_sources_are_its_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requires) -> None:
    requires.root()
    text = "Types: deb\nURIs: http://x.example/\nSuites: trixie\nComponents: main\nSigned-By: /nowhere/key.gpg\n"
    monkeypatch.setattr(apt, "sources", lambda suite: text)
    monkeypatch.setattr(apt, "settings", lambda: 'Acquire::Retries "9";\n')
    script = 'dir="${@: -2:1}"; cat >"$dir/stdin"; printf %s "$MINICTR_APT_CONF" >"$dir/conf"; [ "${@: -1}" = - ]'
    monkeypatch.setenv("PATH", stand_in(tmp_path, script))
    built = debian(f"{tmp_path}/root", "trixie")
    assert Path(built.directory, "stdin").read_text() == text
    assert Path(built.directory, "conf").read_text() == 'Acquire::Retries "9";\n'
    assert built.notes == ("apt in there needs /nowhere/key.gpg, which its sources name: copy it from the host",)


def test_ended_in_the_middle(tmp_path: Path, requires) -> None:
    """SIGTERM to the command line: mmdebstrap ends, its mounts and files are gone, the code says so."""
    requires.root()
    import minictr

    script = 'last="${@: -2:1}"; mkdir "$last/m"; mount -t tmpfs minictr-test "$last/m"; echo $$ >"$PIDFILE"; sleep 60'
    pidfile = tmp_path / "pid"
    environment = {
        **os.environ,
        "PATH": stand_in(tmp_path, script),
        "PIDFILE": str(pidfile),
        "PYTHONPATH": os.pathsep.join(
            filter(None, (os.environ.get("PYTHONPATH"), str(Path(minictr.__path__[0]).parent)))
        ),
    }
    command = [
        sys.executable,
        "-m",
        "minictr",
        "rootfs",
        "debian",
        "--mirror",
        "http://x.example/",
        str(tmp_path / "root"),
    ]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while not (pidfile.exists() and pidfile.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
    assert sorted(os.listdir(tmp_path)) == ["bin", "pid"]
    assert not os.path.exists(f"/proc/{pidfile.read_text().strip()}")
    assert "minictr-test" not in Path("/proc/self/mounts").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_system(tmp_path: Path, requires) -> None:
    requires.root()
    requires("mmdebstrap")
    temporary = set(os.listdir("/tmp"))
    lines: list[str] = []
    root = tmp_path / "debian"
    built = debian(str(root), include=["sysvinit-utils"], progress=lines.append)
    assert built.files > 3000
    assert any("apt-get update" in line for line in lines)
    assert os.stat(root).st_mode & 0o7777 == 0o755
    shown = subprocess.run(
        ["chroot", root, "dpkg", "-s", "apt", "sysvinit-utils"], check=True, capture_output=True, text=True
    )
    assert shown.stdout.count("Status: install ok installed") == 2
    assert "VERSION_CODENAME=bookworm" in (root / "etc/os-release").read_text()
    assert not list((root / "etc/apt/apt.conf.d").glob("*minictr*"))
    assert os.listdir(tmp_path) == ["debian"]
    left = {name for name in set(os.listdir("/tmp")) - temporary if "mmdebstrap" in name}
    assert not left
    with pytest.raises(MinictrError, match="does not have a Release file; check the suite's name"):
        debian(str(tmp_path / "other"), "nosuchsuite")
    assert os.listdir(tmp_path) == ["debian"]
