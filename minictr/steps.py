"""The vocabulary: Phase, Step, the Feature protocol, Support.

A :class:`Feature` is a wish. It answers ``steps(ctx)`` with the kernel operations that grant it, each a :class:`Step`.
A step's ``call`` is a name in :data:`minictr.kernel.ops.SIGNATURES` (done by C in the child) or in
:data:`minictr.runtime.hands.HANDS` (done by Python in the parent); its ``args`` are that call's named parameters.
"""

from __future__ import annotations

from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, ClassVar

# Phases, in the order they happen. Plain integers: importing enum costs more than it tells.
PREPARE = 0  # parent, before the child exists: directories and handles on the host
CLONE = 1  # the flags of clone3 itself
ATTACH = 2  # parent, while the child waits at the barrier: id maps, oom_score_adj
SETUP = 3  # child, still privileged: mounts, root, host name, sysctls
LOCK = 4  # child (the payload): limits, identity, capabilities, no_new_privs
VERIFY = 5  # child: its own state read back; a difference ends the start
EXEC = 6  # child: the filter, then execve
PHASES = ("prepare", "clone", "attach", "setup", "lock", "verify", "exec")
PARENT_PHASES = frozenset({PREPARE, CLONE, ATTACH})


class Step(Value):
    """One kernel operation, as a value.

    ``about`` is the object in words for messages (a path, a name). ``tolerate`` lists errno values that count as done:
    each use says why where the feature writes it. ``undo`` says in words who undoes it: empty means the kernel does,
    when the last process of the container's namespaces is gone; for parent steps it names the action the executor
    takes.
    """

    call: str
    phase: int
    args: dict[str, Any] = {}
    feature: str = ""
    about: str = ""
    tolerate: tuple[int, ...] = ()
    undo: str = ""

    def __hash__(self) -> int:
        return hash((self.call, self.phase, self.feature, self.about, repr(sorted(self.args.items()))))

    def __str__(self) -> str:
        return f"{self.call} {self.about}".rstrip()


class Context(Value):
    """What a feature may know about the rest of the spec while it answers ``steps``.

    ``names``: the names of all features present. ``rootfs``: absolute host path of the root, or "" for the host's own
    root. ``argv``: the command. ``features``: the features themselves, for the few that read a neighbour's setting.
    """

    rootfs: str
    argv: tuple[str, ...]
    features: tuple[Feature, ...]
    names: frozenset[str]

    def has(self, name: str) -> bool:
        return name in self.names

    def get(self, name: str) -> Any:
        """The first feature of that name, or None."""
        return next((f for f in self.features if f.name == name), None)

    def all(self, name: str) -> list[Any]:
        """Every feature of that name."""
        return [f for f in self.features if f.name == name]


class Feature(Value):
    """A wish: a frozen value naming one kernel feature and its settings.

    Subclasses set ``NAME`` (the word used by ``--without`` and in time lines), ``SUMMARY`` (one line), and answer
    ``steps(ctx)`` purely. Several features of one name may stand in a spec (binds, tmpfs) if ``MANY`` is true.
    """

    NAME: ClassVar[str] = ""
    SUMMARY: ClassVar[str] = ""
    MANY: ClassVar[bool] = False
    NEEDS: ClassVar[tuple[tuple[str, str], ...]] = ()  # (feature, or "one|other", why): a contradiction without it

    name: ClassVar[str] = ""  # NAME, as instances and classes both are asked for it

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = cls.NAME

    @property
    def label(self) -> str:
        """What tells it from its like: its name, and where MANY is true a word more, as in ``tmpfs:/run``."""
        return self.name

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of what of it can be left out alone, as in ``--without landlock:ioctl_dev``."""
        return ()

    def without_part(self, part: str) -> Feature | None:
        """Less PART; itself where it has no such part, None where nothing would be left."""
        return self

    def steps(self, ctx: Context) -> Iterator[Step]:
        """The kernel operations that grant this wish, in any order: the plan sorts them."""
        raise NotImplementedError

    def step(
        self, call: str, phase: int, about: str = "", *, tolerate: tuple[int, ...] = (), undo: str = "", **args: Any
    ) -> Step:
        """A step in this feature's name."""
        return Step(call, phase, args, self.name, about, tolerate, undo)


class Support(Value):
    """Whether this kernel and this user can have a feature: performed, not guessed.

    ``errno``: what the kernel answered, 0 where nothing was asked of it or it said yes.
    """

    ok: bool
    reason: str = ""
    cure: str = ""
    errno: int = 0

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        if self.ok:  # a cure: yes, with a condition
            return f"yes ({self.reason})" if self.reason and not self.cure else "yes"
        return f"no: {self.reason}" + (f"; {self.cure}" if self.cure else "")
