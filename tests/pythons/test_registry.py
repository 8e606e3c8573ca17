"""What pip is told on this machine it is told in a container (registry.py)."""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import registry

PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----"
CONFIG = """[global]
index-url = https://user:secret@registry.example/simple
timeout = 7
target = /nowhere
[install]
timeout = 11
extra-index-url =
    file://{0}/index/simple
    https://other.example/simple
constraint = {0}/constraints.txt
"""


def bound(options: list[str]) -> dict[str, str]:
    """Place in the container -> place here."""
    volumes = [value.removesuffix(":ro").split(":") for flag, value in zip(options, options[1:]) if flag == "-v"]
    return {there: here for here, there in volumes}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def options(place: Path) -> Iterator[list[str]]:
    for directory in ("index/simple", "index/files", "wheels", "rootfs/usr", "trusted"):
        (place / directory).mkdir(parents=True)
    (place / "constraints.txt").touch()
    (place / "own.pem").write_text(f"ours\n{PEM.format('own')}\n")
    (place / "trusted/a.pem").write_text(PEM.format("a") + "\n" + PEM.format("own"))
    (place / "pip.conf").write_text(CONFIG.format(place))
    with pytest.MonkeyPatch.context() as patch:
        for name in (*filter(lambda name: name.startswith("PIP_"), os.environ), *registry.TRUSTED):
            patch.delenv(name, raising=False)
        patch.setenv("PIP_CONFIG_FILE", str(place / "pip.conf"))
        patch.setenv("PIP_FIND_LINKS", str(place / "wheels"))
        patch.setenv("PIP_CERT", str(place / "own.pem"))
        patch.setenv("SSL_CERT_DIR", str(place / "trusted"))
        patch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
        yield registry.options(place / "pip", place / "rootfs")


def test_settings_are_one_file_that_only_root_reads(options: list[str], place: Path) -> None:
    """The stronger of two wins, and where things are put is the container's affair."""
    path = place / "pip/pip.conf"
    config = configparser.RawConfigParser()
    config.read(path)
    found = dict(config["global"])
    assert found["index-url"] == "https://user:secret@registry.example/simple"
    assert found["extra-index-url"].split() == [f"file://{place}/index/simple", "https://other.example/simple"]
    assert (found["timeout"], found["find-links"]) == ("11", str(place / "wheels"))
    assert "target" not in found
    assert path.stat().st_mode & 0o777 == 0o600
    assert "secret" not in " ".join(options)
    assert {f"PIP_CONFIG_FILE={registry.PLACE}/pip.conf", "HTTPS_PROXY"} <= set(options)


def test_what_settings_name_is_there(options: list[str], place: Path) -> None:
    places = bound(options)
    assert places[registry.PLACE] == str(place / "pip")
    assert {str(place / name) for name in ("index", "wheels", "constraints.txt")} <= set(places)
    assert places["/etc/resolv.conf"] == os.path.realpath("/etc/resolv.conf")


def test_an_index_beside_the_systems_own_files_comes_alone(tmp_path: Path) -> None:
    """For its directory would lie over the container's."""
    index = tmp_path / "srv/simple"
    index.mkdir(parents=True)
    settings = {"index-url": f"file://{index}"}
    assert list(registry.named(settings, tmp_path / "rootfs")) == [str(tmp_path / "srv")]
    (tmp_path / "rootfs" / str(index.parent)[1:]).mkdir(parents=True)
    assert list(registry.named(settings, tmp_path / "rootfs")) == [str(index)]


def test_every_certificate_is_there_once(options: list[str], place: Path) -> None:
    text = (place / "pip/certificates.pem").read_text()
    assert text.startswith(PEM.format("own")) and text.count("\nown\n") == 1
    assert PEM.format("a") in text
    assert f"SSL_CERT_FILE={registry.PLACE}/certificates.pem" in options
