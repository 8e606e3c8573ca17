"""The five workloads by name, and how one is asked for: ``serve``, ``serve:way=local``, ``compress:tool=zstd``."""

from __future__ import annotations

from bench.workloads.base import Base
from bench.workloads.compile import Compile
from bench.workloads.compress import Compress
from bench.workloads.encrypt import Encrypt
from bench.workloads.receive import Receive
from bench.workloads.serve import Serve

# in the thesis' order
WORKLOADS: dict[str, type[Base]] = {it.NAME: it for it in (Compress, Encrypt, Compile, Serve, Receive)}


def made(text: str, size: str) -> Base:
    """The workload that TEXT asks for. Raises ValueError with the choices."""
    name, *chosen = text.split(":")
    if name not in WORKLOADS:
        raise ValueError(f"no workload {name}; there are {', '.join(WORKLOADS)}")
    variant = {}
    for word in chosen:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{text}: what is chosen is written KEY=VALUE, not {word}")
        variant[key] = value
    return WORKLOADS[name](size, **variant)


def experiment(workload: Base) -> str:
    """Its path in results: ``workload/serve/small``, and what was chosen otherwise than by default behind it."""
    chosen = [f"{key}={value}" for key, value in workload.variant.items() if value != workload.VARIANTS[key]]
    return "/".join(["workload", workload.NAME, workload.size, *chosen])
