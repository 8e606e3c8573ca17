"""pip in a container gets what this machine's pip gets, by the same ways: its settings, its files, its certificates.

pip is told by files and by its environment where packages are and how one gets there. All of it becomes one file, and
what that names of this machine (wheels, an index, constraints) is bound at its own place. What pip believes depends on
its version (certifi's list, or the system's) and on the environment: in the container it is every certificate that this
machine believes in any of these ways.
"""

from __future__ import annotations

import ast
import configparser
import os
import re
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

PLACE = "/run/minictr-pip"  # in the container
# pip's options that say where packages are and how they are reached; others say where to put them, or how to talk
WAYS = (
    *("index-url", "extra-index-url", "no-index", "find-links", "trusted-host", "constraint", "pre"),
    *("cert", "client-cert", "proxy", "timeout", "default-timeout", "retries", "use-deprecated", "prefer-binary"),
)
SECTIONS = ("global", "install", ":env:")  # of `pip config list`, the stronger one last
NAMES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")
PROXIES = tuple(
    spelt for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for spelt in (name, name.upper())
)
TRUSTED = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
CERTIFI = "from pip._vendor import certifi; print(certifi.where())"


def options(place: Path, rootfs: Path) -> list[str]:
    """Options of ``minictr run`` for a container with ROOTFS; what they name is written below PLACE."""
    settings = ways()
    place.mkdir(exist_ok=True)
    bundle = certificates(settings.get("cert", ""))
    if bundle:
        (place / "certificates.pem").write_text(bundle)
        settings["cert"] = f"{PLACE}/certificates.pem"
    config = configparser.RawConfigParser()
    config["global"] = settings
    with open(place / "pip.conf", "w", opener=private) as file:  # an index's address may hold a password
        config.write(file)
    words = ["-v", f"{place}:{PLACE}:ro", "-e", f"PIP_CONFIG_FILE={PLACE}/pip.conf"]
    if bundle:
        words += ["-e", f"SSL_CERT_FILE={PLACE}/certificates.pem"]
    for name in PROXIES:
        words += ["-e", name] if name in os.environ else []
    for path in dict.fromkeys((*filter(os.path.exists, NAMES), *named(settings, rootfs))):
        words += ["-v", f"{os.path.realpath(path)}:{path}:ro"]
    return words


def private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def ways() -> dict[str, str]:
    """WAYS as this machine's pip has them, of its files and of the environment."""
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in told("-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.partition(".")
        if section in found and option in WAYS:
            found[section][option] = ast.literal_eval(value)
    return {option: value for section in SECTIONS for option, value in found[section].items()}


def told(*words: str) -> str:
    """What this Python prints; "" when it fails."""
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, check=False).stdout


def certificates(chosen: str) -> str:
    """All that this machine believes, each once: CHOSEN, what the environment names, the system's, and pip's own."""
    system = ssl.get_default_verify_paths()
    places = [chosen, *(os.environ.get(name, "") for name in TRUSTED), system.cafile, system.capath, *BUNDLES]
    places.append(told("-c", CERTIFI).strip())
    found = (text for place in filter(None, places) for file in files(place) for text in CERTIFICATE.findall(file))
    return "".join(f"{text}\n" for text in dict.fromkeys(found))


def files(place: str) -> Iterator[str]:
    """The text of a file, or of every file of a directory."""
    for path in sorted(Path(place).iterdir()) if os.path.isdir(place) else [Path(place)]:
        if path.is_file():
            yield path.read_text(errors="replace")


def named(settings: dict[str, str], rootfs: Path) -> Iterable[str]:
    """Paths of this machine in SETTINGS. A local index comes with the directory it is in, for its links lead beside it;
    not where ROOTFS has such a directory itself."""
    for option, value in settings.items():
        for word in value.split():
            path = unquote(urlsplit(word).path) if word.startswith("file:") else word
            if not path.startswith("/") or path.startswith(PLACE) or not os.path.exists(path):
                continue
            beside = os.path.dirname(path.rstrip("/"))
            yield beside if option.endswith("index-url") and not (rootfs / beside[1:]).exists() else path


def reached(requirements: Sequence[str]) -> str:
    """Why this machine's own pip cannot get REQUIREMENTS; "" when it can."""
    with tempfile.TemporaryDirectory(prefix="minictr-pip-") as place:
        words = ("-m", "pip", "download", "-q", "--no-cache-dir", "--no-deps", "-d", place, *requirements)
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, check=False)
    return done.stderr[-2000:] if done.returncode else ""
