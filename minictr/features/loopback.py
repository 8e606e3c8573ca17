"""Loopback: all that the network of a container has unless more is asked for (:mod:`minictr.features.network`)."""

from __future__ import annotations

from minictr.steps import SETUP, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Loopback(Feature):
    """The loopback device of the container's own network up, with 127.0.0.1 and ::1. SIOCSIFFLAGS, netdevice(7)."""

    NAME = "loopback"
    SUMMARY = "127.0.0.1 and ::1 in its own network"
    NEEDS = (("net", "there is no network of its own whose loopback could be brought up"),)

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("loopback_up", SETUP, "lo")
