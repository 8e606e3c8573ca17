"""``minictr network ls|inspect|create|rm|repair``."""

from __future__ import annotations

import click

from minictr.cli.entry import printable
from minictr.cli.show import table, write
from minictr.jsontext import dumps

COLUMNS = ("NAME", "DRIVER", "SUBNET", "GATEWAY", "SUBNET6", "CONTAINERS", "UP", "KEPT")
FORMAT = click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", help="How to print.")


@click.group("network")
def network() -> None:
    """Networks of containers: bridges with addresses, and rules.

    \b
    A network that nobody made (minictr0) is there from its first container to
    its last; one made here stays until it is removed.
    """


@network.command("ls")
@FORMAT
def ls(shape: str) -> None:
    """List networks."""
    from minictr.runtime.network.manage import listing

    found = listing()
    if shape == "json":
        write("[" + ",\n ".join(map(dumps, found)) + "]")
        return
    keys = ("Name", "Driver", "Subnet", "Gateway", "Subnet6", "Containers", "Up", "Kept")
    rows = [tuple(_word(row[key]) for key in keys) for row in found]
    write(table(COLUMNS, rows))


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


@network.command("inspect")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def inspect(names: tuple[str, ...]) -> None:
    """Print all that is known of networks, as JSON: what is written down, and what the kernel has."""
    from minictr.cli.inspect import indented
    from minictr.runtime.network.manage import inspect as look

    write("[" + ",".join(f"\n{indented(look(name))}" for name in names) + "\n]")


@network.command("create")
@click.option("--subnet", metavar="A.B.C.D/N", default="", help="IPv4; else one that nobody here uses.")
@click.option("--subnet6", "--ipv6", metavar="FD00::/N", default="", help="IPv6 too.")
@click.option("--mtu", metavar="BYTES", type=click.IntRange(68, 65535), default=None, help="Of bridge and devices.")
@click.option("--routed", is_flag=True, help="Without a bridge: each container on a cable of its own.")
@click.argument("name", metavar="NAME")
def create(subnet: str, subnet6: str, mtu: int | None, routed: bool, name: str) -> None:
    """Make the network NAME, and its bridge of that name."""
    from minictr.runtime.network.manage import create as make
    from minictr.runtime.network.manage import obstacles

    made = make(name, subnet=subnet, subnet6=subnet6, mtu=mtu or 0, bridge=not routed)
    write(made.name)
    for line in obstacles():
        if "ip_forward" not in line:
            click.echo(f"minictr network: note: {printable(line.replace('NAME', name))}", err=True)


@network.command("rm")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def rm(names: tuple[str, ...]) -> None:
    """Remove networks that no container is in."""
    from minictr.runtime.network.manage import remove

    for name in names:
        remove(name)
        write(name)


@network.command("repair")
def repair() -> None:
    """Make again what somebody else removed: bridges, ports, rules, settings.

    \b
    For containers that are written down (minictr ps), while they run on.
    """
    from minictr.runtime.network.manage import repair as restore

    told = restore()
    if told:
        write("\n".join(told))
