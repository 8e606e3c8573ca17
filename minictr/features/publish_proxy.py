"""PublishProxy: published ports by a small process as well, or instead of address translation. splice(2)."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.steps import ATTACH, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PublishProxy"]


class PublishProxy(Feature):
    """A process of the container's that binds its published ports on the host and passes on what comes, as
    docker-proxy does. splice(2), Linux 5.11.

    Address translation stays and is first: what it sends on (from elsewhere, from containers, from the host to its own
    addresses) never comes to the proxy. The proxy takes the rest: 127.0.0.0/8 and ::1 on the host, and IPv6 clients of
    a container that has no IPv6. With ``only`` it takes all of it, and ``publish`` translates nothing.
    """

    NAME = "publish_proxy"
    SUMMARY = "published ports by a process, as docker-proxy"
    NEEDS = (("publish", "there is no port that it could serve"),)

    only: bool = False

    def check(self) -> None:
        if type(self.only) is not bool:
            raise SpecError(f"publish_proxy only: {self.only!r} is neither true nor false")

    def steps(self, ctx: Context) -> Iterator[Step]:
        told = "instead of dnat" if self.only else "for what dnat does not take"
        yield self.step("publish_proxy", ATTACH, told, undo="ends with the container", only=self.only)
        yield self.step("proxy_bound", ATTACH, "the ports are bound")
