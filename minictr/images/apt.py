"""The host's apt: its sources for a Debian suite, and its settings of how to reach them.

mmdebstrap gives apt a configuration of its own, so that a proxy or mirror set in /etc/apt does not count for it. What
is read here is handed over for the time of the build only: the image keeps the sources, none of the host's settings.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    Stanza = dict[str, str]  # a deb822 paragraph, field names in lower case

POCKETS = ("", "-updates", "-security")
ROLLING = ("sid", "unstable", "experimental", "rc-buggy")  # they have no pockets
OWN_FIELDS = frozenset({"types", "uris", "suites", "components", "enabled", "architectures"})
# How archives are reached and what age of them is accepted; nothing of what apt installs or runs.
KEPT_SETTINGS = re.compile(
    r"Acquire::(?:https?|ftp|socks|tor|Retries|ForceIPv[46]|Check-Valid-Until|Check-Date|Max-ValidTime)\b.*"
)
LOGINS = (("Dir::Etc::netrc", "/etc/apt/auth.conf"), ("Dir::Etc::netrcparts", "/etc/apt/auth.conf.d"))


def sources(suite: str, directory: str = "/etc/apt", release: str = "/etc/os-release") -> str:
    """The host's sources of Debian's own archive as deb822 text for SUITE; "" if it has none that fit.

    On a Debian host, entries for its own release count as entries for SUITE: the same mirrors have both.
    """
    own = _codename(release)
    paragraphs: dict[tuple[str, str], Stanza] = {}
    for stanza in _stanzas(directory):
        if "deb" not in stanza.get("types", "").split() or stanza.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        if "main" not in stanza.get("components", "").split():  # another archive, or a flat one
            continue
        for name in stanza.get("suites", "").split():
            wanted = _translate(name, own, suite)
            for uri in stanza.get("uris", "").split() if wanted else ():
                paragraphs.setdefault((uri, wanted), stanza)
    return "\n".join(_paragraph(uri, name, stanza) for (uri, name), stanza in paragraphs.items())


def _paragraph(uri: str, suite: str, stanza: Stanza) -> str:
    extra = "".join(f"{key.title()}: {value}\n" for key, value in stanza.items() if key not in OWN_FIELDS)
    return f"Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: {stanza['components']}\n{extra}"


def _translate(name: str, own: str, suite: str) -> str:
    """The pocket of SUITE that the entry NAME stands for; "" if it does not."""
    for pocket in POCKETS:
        if name == suite + pocket or (own and name in (own + pocket, "stable" + pocket)):
            return "" if pocket and suite in ROLLING else suite + pocket
    return ""


def _codename(release: str) -> str:
    """The code name of the Debian release that this host is; "" for another system (os-release(5))."""
    try:
        with open(release) as lines:
            values = dict(line.rstrip("\n").split("=", 1) for line in lines if "=" in line)
    except OSError:
        return ""
    return values.get("VERSION_CODENAME", "").strip('"') if values.get("ID", "").strip('"') == "debian" else ""


def _stanzas(directory: str) -> Iterator[Stanza]:
    """Every entry of sources.list and sources.list.d, in both formats (sources.list(5))."""
    parts = os.path.join(directory, "sources.list.d")
    for path in (os.path.join(directory, "sources.list"), *sorted(glob.glob(f"{glob.escape(parts)}/*.list"))):
        for line in _read(path).split("\n"):
            match = re.fullmatch(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)(?:#.*)?", line.strip())
            if match:
                options = dict(option.split("=", 1) for option in (match[1] or "").split() if "=" in option)
                own = {"types": "deb", "uris": match[2], "suites": match[3], "components": match[4].strip()}
                yield {**{key.lower(): value.replace(",", " ") for key, value in options.items()}, **own}
    for path in sorted(glob.glob(f"{glob.escape(parts)}/*.sources")):
        for paragraph in re.split(r"\n[ \t]*\n", _read(path)):
            stanza = _deb822(paragraph)
            if stanza:
                yield stanza


def _deb822(paragraph: str) -> Stanza:
    stanza: Stanza = {}
    field = ""
    for line in paragraph.split("\n"):
        if line.startswith("#") or not line.strip():
            continue
        if line[0] in " \t":
            if field:
                stanza[field] += f"\n{line}"
        elif ":" in line:
            field, _, value = line.partition(":")
            field = field.strip().lower()
            stanza[field] = value.strip()
    return stanza


def _read(path: str) -> str:
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def settings() -> str:
    """The host's settings of how to reach archives, as apt.conf(5) text: proxies, certificates, retries, logins."""
    try:
        command = ["apt-config", "dump", "--no-empty", "--format", '%F "%v";%n']
        dump = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    except OSError:  # no apt: mmdebstrap will say so
        return ""
    lines = [line for line in dump.split("\n") if KEPT_SETTINGS.fullmatch(line) and line.count('"') == 2]
    # By name only: apt itself reads them, and they never come into the image.
    lines += [f'{key} "{path}";' for key, path in LOGINS if os.path.exists(path)]
    return "".join(f"{line}\n" for line in lines)
