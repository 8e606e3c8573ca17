"""Text of ``--egress``."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import shown
from minictr.features.egress import Egress

__all__ = ["egress"]


def egress(texts: tuple[str, ...]) -> Egress:
    """``none``, ``deny``, ``allow=RULE,...`` and ``deny=RULE,...``, as often as wanted, as one wish.

    ``none`` and ``deny`` alone say that nothing is reached but what ``allow`` names.
    """
    found: dict[str, list[str]] = {"allow": [], "deny": []}
    closed = False
    for text in texts:
        verb, _, rules = text.partition("=")
        if text in ("none", "deny"):
            closed = True
        elif verb in found and rules:
            found[verb] += rules.split(",")
        else:
            raise SpecError(
                f"{shown(text)}: none, deny, allow=CIDR[:PORT[-PORT]][/tcp|udp|sctp],... or deny=... is wanted"
            )
    if closed and found["deny"] and not found["allow"]:
        raise SpecError("nothing is allowed, and some of it is denied: leave deny= out, or name what is allowed")
    if "" in (*found["allow"], *found["deny"]):
        raise SpecError("an empty rule: leave out the comma that stands alone")
    return Egress(tuple(found["allow"]), tuple(found["deny"]))
