"""What a wish for a filter becomes once the container is known: a program, from the cache where it has it.

Here and not in the plan, for a policy hangs on the capabilities that are kept and on the kernel. What is written down
of a container has the program itself: ``exec`` loads the very same, whatever has been installed since.
"""

from __future__ import annotations

import os

from minictr.features.capabilities import CAPABILITIES
from minictr.features.seccomp import CONTENT, Seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.features.filters import SeccompFilter
    from minictr.spec import Spec

__all__ = ["with_program"]


def with_program(spec: Spec) -> Spec:
    """SPEC with its filter compiled. Raises SpecError, and Unsupported without libseccomp."""
    feature: Any = spec.get("seccomp")
    if feature is None or isinstance(feature.program, bytes):
        return spec
    from minictr.kernel.seccomp_programs import program

    wish, flags, source = feature.program, feature.flags, feature.source
    if isinstance(wish, str):
        capabilities: Any = spec.get("capabilities")
        caps = CAPABILITIES if capabilities is None else capabilities.bounding
        content = repr((wish, CONTENT, caps, os.uname().release))
        made = program(content, lambda: _policy(wish, caps).plain())
        return spec.with_(Seccomp(made, flags, source or wish))
    made = program(repr(wish.plain()), wish.plain)
    return spec.with_(Seccomp(made, (*flags, *wish.flags), source or wish.name or "filter"))


def _policy(name: str, caps: tuple[str, ...]) -> SeccompFilter:
    from minictr.features.filters import SeccompFilter

    return SeccompFilter.named(name, caps=caps)
