"""Text of options about names: ``--add-host``."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import shown

__all__ = ["add_host"]


def add_host(text: str) -> tuple[tuple[str, str], ...]:
    """(name, address) for each name of ``NAME:IP``, as docker has it, also ``NAME=IP`` and podman's ``NAME;NAME:IP``.

    IP may be "host-gateway", and an IPv6 address may have brackets.
    """
    equals, colon = text.find("="), text.find(":")
    mark = "=" if equals >= 0 and (colon < 0 or equals < colon) else ":"
    names, found, address = text.partition(mark)
    if not found or not names or not address:
        raise SpecError(f"{shown(text)}: NAME:IP is wanted, as db:10.0.0.5 or host:host-gateway")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    return tuple((name, address) for name in names.split(";"))
