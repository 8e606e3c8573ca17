"""A container that lives as long as the process that started it: written down while it runs, and gone with it."""

from __future__ import annotations

import os
import time

from minictr.errors import MinictrError
from minictr.runtime.state import Group, State, spec_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from minictr.kernel.cgroup_readings import Readings
    from minictr.kernel.cgroups import Place
    from minictr.runtime.identity import ProcessIdentity
    from minictr.runtime.leases import Lease
    from minictr.runtime.network.attachment import Attachment
    from minictr.runtime.network.pasta import PastaNetwork
    from minictr.runtime.program import Program
    from minictr.runtime.record import Record

__all__ = ["Aftermath", "groups_of", "state_text"]


def groups_of(places: Mapping[str, Place]) -> tuple[Group, ...]:
    """PLACES as a state has them."""
    return tuple(Group(place.controller, place.version, place.directory) for place in places.values())


def state_text(
    record: Record,
    program: Program,
    process: ProcessIdentity,
    places: Mapping[str, Place],
    network: Attachment | PastaNetwork | None = None,
) -> str:
    """The state of PROGRAM that runs as PROCESS, from now on."""
    spec, now = program.plan.spec, time.time_ns()
    state = State(
        record.id,
        spec,
        now,
        now,
        process=process,
        groups=groups_of(places),
        tty="tty" in spec.names,
        nics=() if network is None else network.rows(),
        ports=() if network is None else tuple(network.ports),
    )
    if not program.spec_text:
        program.spec_text = spec_text(spec)
    return state.text(program.spec_text)


class Aftermath:
    """What is done once the program is over: last readings, then its cgroups and its directory go.

    A cgroup that cannot be removed keeps its journal, and the next sweep tries again.
    """

    def __init__(
        self,
        journal: Record,
        own: bool,
        places: Mapping[str, Place],
        name: str = "",
        lease: Lease | None = None,
        network: Attachment | PastaNetwork | None = None,
    ) -> None:
        """OWN: the journal is this container's alone, and its record; else the process's ledger."""
        self.journal, self.own, self.places, self.name, self.lease = journal, own, tuple(places.values()), name, lease
        self.network = network

    def __call__(self) -> Readings | None:
        readings = self._readings()
        try:
            self._take_back()
            if self.lease is not None:
                self.lease.give_back()
            if self.own:
                self.journal.forget(self.name)
            else:
                from minictr.runtime import ledger

                ledger.close_entry(self.journal)
        except (MinictrError, OSError):
            if self.own:
                self.journal.close()
        return readings

    def _readings(self) -> Readings | None:
        """What its cgroups tell; a reading that cannot be had must not keep them from being removed."""
        if not self.places:
            return None
        from minictr.kernel import cgroups

        try:
            return cgroups.take(self.places)
        except (MinictrError, OSError):
            return None

    def _take_back(self) -> None:
        if self.network is None:
            self._remove_groups()
            return
        from minictr.runtime.undo import Undo

        undo = Undo()  # neither keeps the other from going
        undo.push(self._remove_groups)
        undo.push(self.network.close)
        undo.close()

    def _remove_groups(self) -> None:
        from minictr.kernel import cgroups

        for place in reversed(self.places):
            try:
                os.rmdir(place.directory)
                if not place.direct:
                    cgroups.remove_way(place.directory)
            except OSError:
                try:
                    self._insist(place)
                except (MinictrError, OSError):
                    self._insist(place)

    def _insist(self, place: Place) -> None:
        """Something is in there yet: groups that the container made, or without a pid namespace its descendants."""
        from minictr.kernel import cgroups

        if cgroups.processes(place.directory):
            cgroups.kill(self.places)
        cgroups.remove(place.directory, recorded=True)
