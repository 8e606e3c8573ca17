"""Programs as Docker runs them, of a Debian root, under the default profile as it is; or the option is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from systems import Life, Traces

from minictr.features.capabilities import CAPABILITIES
from minictr.features.profiles import DEFAULT_CAPABILITIES
from minictr.images import apt

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NGINX = ("nginx", "-g", "daemon off;")
FETCH = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"
DATABASE = "initdb -D /var/lib/postgresql/data >/dev/null && exec postgres -D /var/lib/postgresql/data -k /tmp"
DEBIANS_POSTGRES = "PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin"
INSTALL = "apt-get update -qq && apt-get install -qq -y --no-install-recommends tree >/dev/null && tree --version"


@pytest.fixture
def life(lives: Any) -> Iterator[Life]:
    with lives("systemd") as life:
        yield life


def fetch(life: Life, name: str, url: str = "http://127.0.0.1/") -> str:
    done = life.done("exec", name, "python3", "-c", FETCH, url)
    return str(done.stdout) if done.returncode == 0 else ""


def stopped(life: Life, name: str, code: int = 0) -> None:
    """It ends when it is asked to, and leaves nothing."""
    traces = Traces(life, name)
    life("stop", name)
    state = life.state(name)
    assert (state["Status"], state["ExitCode"]) == ("exited", code)
    assert traces.left() == []


def status(life: Life, name: str, process: str) -> dict[str, str]:
    """/proc/PID/status of the first process of that name."""
    script = f"for p in /proc/[0-9]*; do read c <$p/comm; [ $c = {process} ] && exec cat $p/status; done"
    rows = (line.partition(":") for line in life.exec(name, "sh", "-c", script).splitlines())
    return {key: value.strip() for key, _, value in rows}


def test_nginx(life: Life) -> None:
    life.start("web", *NGINX)
    life.until(lambda: "Welcome to nginx" in fetch(life, "web"))
    told = status(life, "web", "nginx")
    held = {name for bit, name in enumerate(CAPABILITIES) if int(told["CapBnd"], 16) >> bit & 1}
    assert held == set(DEFAULT_CAPABILITIES)
    assert told["NoNewPrivs"] == "1"
    assert "nginx: worker process" in life("top", "web")
    assert "www-data" in life.exec("web", "ps", "-eo", "user")
    assert "GET / HTTP/1.1" in life.exec("web", "cat", "/var/log/nginx/access.log")
    stopped(life, "web")


def test_nginx_on_a_root_that_cannot_be_written(life: Life) -> None:
    """Its own words name the directory; the option makes one there."""
    done = life.run(*NGINX, options=["--read-only"])
    assert done.returncode == 1
    assert 'mkdir() "/var/lib/nginx/body" failed (30: Read-only file system)' in done.stderr
    places = ("/var/lib/nginx", "/var/log/nginx", "/run")
    life.start("web", *NGINX, options=["--read-only", *(word for place in places for word in ("--tmpfs", place))])
    life.until(lambda: "Welcome to nginx" in fetch(life, "web"))
    life.exec("web", "touch", "/etc/x", code=1)
    stopped(life, "web")


def test_postgresql(life: Life) -> None:
    life.start("db", "sh", "-c", DATABASE, options=["-u", "postgres", "-e", DEBIANS_POSTGRES])
    ask = ("exec", "-u", "postgres", "db", "psql", "-h", "/tmp", "-Atc")
    life.until(lambda: life.done(*ask, "select 1").returncode == 0, 60)
    life(*ask, "create table lab (n int); insert into lab select generate_series(1, 1000)")
    assert life(*ask, "select count(*), sum(n) from lab") == "1000|500500"
    assert life(*ask, "select current_user") == "postgres"
    assert status(life, "db", "postgres")["CapEff"] == "0" * 16
    stopped(life, "db")
    assert "database system is shut down" in life.output("db")
    life("start", "db")  # its layer stays: initdb refuses a directory that is not empty, and says so
    life("wait", "db")
    assert "exists but is not empty" in life.output("db")


def test_postgresql_as_debian_starts_it(life: Life) -> None:
    life.start("db", "pg_ctlcluster", "15", "main", "start", "--foreground")
    ask = ("exec", "-u", "postgres", "db", "psql", "-Atc")
    life.until(lambda: life.done(*ask, "select 1").returncode == 0, 60)
    assert life(*ask, "show data_directory") == "/var/lib/postgresql/15/main"
    stopped(life, "db")


def test_redis(life: Life, tmp_path: Path) -> None:
    life.start("cache", "redis-server", "--dir", "/var/lib/redis")
    life.says("cache", "Ready to accept connections")

    def ask(*words: str) -> str:
        return life.exec("cache", "redis-cli", *words)

    assert ask("PING") == "PONG"
    assert (ask("SET", "key", "value"), ask("GET", "key")) == ("OK", "value")
    assert ask("BGSAVE") == "Background saving started"
    life.says("cache", "Background saving terminated with success")
    life("cp", "cache:/var/lib/redis/dump.rdb", str(tmp_path / "dump"))
    assert b"value" in (tmp_path / "dump").read_bytes()
    stopped(life, "cache")
    life("start", "cache")
    life.until(lambda: life.done("exec", "cache", "redis-cli", "GET", "key").stdout == "value\n")


def test_a_python_web_server(life: Life) -> None:
    server = ("python3", "-m", "http.server", "--directory", "/srv", "8000")
    life.start("web", *server, options=["-u", "www-data", "-v", f"{Path(__file__).parent}:/srv:ro"])
    life.until(lambda: "test_applications.py" in fetch(life, "web", "http://127.0.0.1:8000/"))
    assert __doc__.splitlines()[0] in fetch(life, "web", "http://127.0.0.1:8000/test_applications.py")
    assert "GET /test_applications.py" in life.output("web")
    stopped(life, "web", 143)  # Python has no handler for SIGTERM: init tells the truth about it


def test_apt_get_install(life: Life, tmp_path: Path) -> None:
    """With the option it does; without, the option is named."""
    conf = tmp_path / "apt.conf"
    conf.write_text(apt.settings())
    shared = ["-v", f"{conf}:/etc/apt/apt.conf.d/90host:ro"]
    done = life.run(
        "apt-get", "update", "-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Retries=0", options=shared
    )
    assert done.returncode == 100
    assert done.stderr.splitlines()[-1].startswith("minictr run: no route: ")
    assert "--network bridge" in done.stderr.splitlines()[-1]
    done = life.run("sh", "-c", INSTALL, options=[*shared, "--net", "host"], timeout=300)
    if done.returncode and "Temporary failure resolving" in done.stderr + done.stdout:
        pytest.skip("the host itself has no way to Debian's archive")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("tree v")
    assert "minictr" not in done.stderr
