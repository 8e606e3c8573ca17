"""Frozen values: the base class of steps, features, specs and plans.

A hand-written stand-in for ``dataclasses.dataclass(frozen=True)``: importing :mod:`dataclasses` costs 17 ms on a
cold start, more than a whole container does (docs/decisions.md, "No dataclasses on the hot path"). Type checkers see
an ordinary dataclass; at run time :meth:`Value.__init_subclass__` collects the annotations.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_options):  # what typing.dataclass_transform does at run time: nothing
        return lambda cls: cls


@dataclass_transform(frozen_default=True)
class Value:
    """A value: fields by annotation, equality and hash by content, no attribute can be set after ``__init__``.

    Subclasses list their fields as annotations with optional defaults, and may define ``check(self)``, which is called
    last by ``__init__`` and raises :class:`minictr.errors.SpecError` for content that can never be right.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        annotated = cls.__dict__.get("__annotations__", {})
        own = [name for name, kind in annotated.items() if name[0] != "_" and not str(kind).startswith("ClassVar")]
        cls._fields = (*cls._fields, *(name for name in own if name not in cls._fields))
        cls._defaults = {**cls._defaults, **{name: cls.__dict__[name] for name in own if name in cls.__dict__}}

    if not TYPE_CHECKING:

        def __init__(self, *args, **kwargs):
            fields, state = self._fields, self.__dict__
            if len(args) > len(fields):
                raise TypeError(f"{type(self).__name__} takes {len(fields)} values, not {len(args)}")
            state.update(self._defaults)
            state.update(zip(fields, args))
            for name in kwargs:
                if name not in fields or name in fields[: len(args)]:
                    raise TypeError(f"{type(self).__name__}: unexpected argument {name!r}")
            state.update(kwargs)
            if len(state) != len(fields):
                missing = ", ".join(name for name in fields if name not in state)
                raise TypeError(f"{type(self).__name__}: missing {missing}")
            self.check()

        def __setattr__(self, name, value=None):
            raise AttributeError(f"{type(self).__name__} is frozen: use .replace({name}=...)")

        __delattr__ = __setattr__

    def check(self) -> None:
        """Raise for content that can never be right. The base class accepts everything."""

    def replace(self, **changes: Any) -> Self:
        """The same value with some fields changed."""
        return type(self)(**{**{name: getattr(self, name) for name in self._fields}, **changes})

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self).__name__, *(getattr(self, name) for name in self._fields)))

    def __repr__(self) -> str:
        shown = (
            f"{name}={getattr(self, name)!r}"
            for name in self._fields
            if name not in self._defaults or getattr(self, name) != self._defaults[name]
        )
        return f"{type(self).__name__}({', '.join(shown)})"
