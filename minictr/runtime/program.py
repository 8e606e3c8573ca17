"""Plan -> program: the bytes that the C core interprets, and what it wrote back.

A program is made once for a plan and used for any number of starts: only descriptor numbers differ between them.
The layout is ``struct mc_region`` and ``struct mc_op`` of ``minictr/_core/core.h``.
"""

from __future__ import annotations

import struct

from minictr.kernel.core import ffi
from minictr.kernel.ops import OP, Encoder
from minictr.kernel.stub import HEADER_SIZE, born_offset, region
from minictr.steps import PARENT_PHASES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from minictr.plan import Plan
    from minictr.spec import Spec
    from minictr.steps import Step

JOINING = frozenset({"setns", "enter_root", "fork"})  # with one of these, others may look at the child
_FIRST_NUMBER = 8  # offset of arg[0] in an op
_FD = struct.Struct("=q")


def compiled(spec: Spec, *extra: Step) -> Program:
    """SPEC resolved and planned with EXTRA steps, its program looked for: the last that can fail before anything is
    touched. Raises SpecError, Unsupported, CommandNotFound, CommandNotExecutable."""
    from minictr.plan import plan
    from minictr.runtime.resolve import check_program, resolve

    spec = resolve(spec)
    program = Program(plan(spec, extra))
    check_program(spec, tuple(program.plan.steps[-1].args["paths"]))
    return program


class Program:
    """The child's half of a plan, ready to run. ``steps`` are the plan's steps in op order, with their plan index.

    ``ops``, ``blob``: arrays of the core's; ``fd_places``: where in ``ops`` a descriptor stands, and its word.
    """

    def __init__(self, plan: Plan) -> None:
        encoder, parent, steps, room = Encoder(), [], [], 0
        for index, step in enumerate(plan.steps, 1):
            if step.phase in PARENT_PHASES:
                parent.append((index, step))
                continue
            steps.append((index, step))
            room = len(encoder.blob)
            encoder.add(step.call, step.args, step.tolerate)
        self.take(encoder, parent, steps)
        self.argv, self.name, self._plan = plan.spec.argv, plan.spec.name, plan
        self.before_exec = len(encoder.ops) - OP.size, room  # what ops and blob were without the last op
        self.spec_text = ""  # the spec as JSON, once somebody asked
        self.seen: tuple[int, ...] = ()  # what it hangs on in the root, where that tells whether it still holds

    @property
    def plan(self) -> Plan:
        """What it was made from."""
        return self._plan

    def take(self, encoder: Encoder, parent: list[tuple[int, Step]], steps: list[tuple[int, Step]]) -> None:
        """Become what ENCODER has encoded for the child's STEPS, each with its plan index; PARENT's are Python's."""
        self.parent, self.steps = parent, steps
        ready = next(place for place, (_, step) in enumerate(steps) if step.call == "ready")
        self._preserve = ready * OP.size + _FIRST_NUMBER
        self.fd_names = frozenset(name for _, name in encoder.fd_places)  # the words for descriptors that ops mention
        self.total = len(parent) + len(steps)
        self.calls = frozenset(step.call for _, step in steps)
        self.forks = "fork" in self.calls
        self.joins = not self.calls.isdisjoint(JOINING) or any(step.call == "enter_pidns" for _, step in parent)
        self.ops, self.blob, self.fd_places = bytes(encoder.ops), bytes(encoder.blob), tuple(encoder.fd_places)

    def region(self, fds: Mapping[str, int], report: int, keep: Collection[int], preserve: int = 0) -> bytes:
        """The region's content for one start: FDS by word, the report pipe, every descriptor to KEEP until exec, and
        how many from 3 on to PRESERVE across it."""
        ops = bytearray(self.ops)
        for place, name in self.fd_places:
            _FD.pack_into(ops, place, fds[name])
        _FD.pack_into(ops, self._preserve, preserve)
        return region(bytes(ops), self.blob, report, keep, joins=self.joins, forks=self.forks)

    @property
    def born_offset(self) -> int:
        """Where in the region's file a fork tells the pid of its child."""
        return born_offset(HEADER_SIZE + len(self.ops) + len(self.blob))


class Outcome:
    """What the child wrote into its region: how far it got, and when each op was done."""

    def __init__(self, data: bytes) -> None:
        head = ffi.from_buffer("struct mc_region *", data)
        self.state, self.current = head.state, head.current
        self.error, self.failed_nr, self.start_ns = head.error, head.failed_nr, head.start_ns
        self._data = data

    @property
    def ends(self) -> list[int]:
        """CLOCK_MONOTONIC_RAW nanoseconds at the end of each op; 0 where it was not reached."""
        return [OP.unpack_from(self._data, place)[-1] for place in range(HEADER_SIZE, len(self._data), OP.size)]


def outcome_size(program: Program) -> int:
    """Bytes of the region that hold header and ops."""
    return int(HEADER_SIZE) + len(program.steps) * OP.size
