"""Serve a static site: thousands of small files opened, read and sent, each in a request of its own."""

from __future__ import annotations

import os
import shutil

from bench.environments.base import WORK, Environment, Job
from bench.workloads import client, inputs
from bench.workloads.base import ENVIRONMENT, Base, WrongResult

# files, bytes
SITES = {"tiny": (60, 1 * inputs.MIB), "small": (2000, 38 * inputs.MIB), "full": (16539, 348 * inputs.MIB)}
PORT = 80
TIMEOUT = 1200.0  # seconds for the whole mirror
CONFIGURATION = """\
user www-data;
worker_processes auto;
pid nginx.pid;
error_log error.log;
events { worker_connections 768; }
http {
    sendfile on;
    tcp_nopush on;
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server { listen 80; root site; }
}
"""


class Serve(Base):
    """nginx as Debian configures it, but for the paths; the mirror must be the site, file by file."""

    NAME = "serve"
    ABOUT = "serve a static site by nginx, mirrored by wget -mq: 16,539 files of 348 MiB full, 2,000 of 38 MiB small"
    NEEDS = ("nginx-light",)
    needs_here = ("wget", "nsenter")
    VARIANTS = {**Base.VARIANTS, "way": "client"}
    CHOICES = {**Base.CHOICES, "way": client.WAYS}

    def __init__(self, size: str, **variant: str) -> None:
        super().__init__(size, **variant)
        self.site = inputs.Site(0, 0, "")

    @property
    def room(self) -> int:
        return 3 * SITES[self.size][1]

    def job(self) -> Job:
        argv = ("nginx", "-p", WORK, "-e", "error.log", "-c", f"{WORK}/nginx.conf", "-g", "daemon off;")
        return Job(argv, ENVIRONMENT, network="lan", ports=(PORT,), data=self.variant["data"])

    def fill(self, environment: Environment, scratch: str) -> None:
        site, configuration = os.path.join(scratch, "site"), os.path.join(scratch, "nginx.conf")
        os.mkdir(site)
        self.site = inputs.site(site, *SITES[self.size])
        with open(configuration, "w", encoding="ascii") as file:
            file.write(CONFIGURATION)
        environment.put(configuration, f"{WORK}/nginx.conf")
        environment.put(site, f"{WORK}/site")
        shutil.rmtree(site)

    def work(self, environment: Environment, job: Job, scratch: str) -> dict[str, float]:
        mirror, way = os.path.join(scratch, "mirror"), self.variant["way"]
        with environment.start(job) as running:
            host = client.address(running, way, environment.NAME)
            url = f"http://{host}:{running.ports[PORT]}/"
            command = ["wget", "--no-config", "-mq", "-nH", "-P", mirror, url]
            found = client.run(environment, way, command, TIMEOUT)
            ran = running.stop()
        self.compare(mirror)
        return {**client.together(found, ran), "output_bytes": float(self.site.size), "files": float(self.site.files)}

    def compare(self, mirror: str) -> None:
        """Raises WrongResult when the directory MIRROR does not hold the site, file by file."""
        files = sum(len(names) for _, _, names in os.walk(mirror))
        if files != self.site.files:
            raise WrongResult(f"the mirror has {files} files, the site {self.site.files}")
        if inputs.tree_digest(mirror) != self.site.digest:
            raise WrongResult(f"the mirror's {files} files are not those of the site")
