"""The filter, asked once more: what its program answers a call with these very arguments, and which rule says so."""

from __future__ import annotations

from minictr.bpf import answer, data, instructions
from minictr.errors import MinictrError, errno_name
from minictr.features.capabilities import CAPABILITIES
from minictr.kernel.ptrace import ARCHES
from minictr.runtime.observed.wanted import RET_DATA, RET_ERRNO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.features.filters import SeccompFilter
    from minictr.spec import Spec

__all__ = ["FilterJudge"]

ACTION = 0xFFFF0000
RET_NOTIFY = 0x7FC00000
RET_TRAP, KILLS = 0x00030000, (0x00000000, 0x80000000)
TOKENS = {name: token for token, name in ARCHES.items()}
WAYS = {"call": (RET_ERRNO,), "trap": (RET_TRAP,), "kill": KILLS}


class FilterJudge:
    """``wish``: the spec as asked for, with the filter's rules or its policy's name; ``spec``: with its program."""

    def __init__(self, wish: Spec, spec: Spec) -> None:
        wanted: Any = wish.get("seccomp")
        loaded: Any = spec.get("seccomp")
        capabilities: Any = spec.get("capabilities")
        self.caps = CAPABILITIES if capabilities is None else capabilities.bounding
        known = loaded is not None and isinstance(loaded.program, bytes)
        self.program = instructions(loaded.program) if known else []
        self.wish = None if wanted is None else wanted.program
        self.source = loaded.source if known else ""
        self._filters: dict[str, SeccompFilter | None] = {}
        self._cures: dict[Any, str] = {}

    def explain(self, row: dict[str, Any]) -> tuple[str, str] | None:
        """(why, cure) where the filter denied the call of ROW; None where it did not."""
        token = TOKENS.get(row["arch"])
        if not self.program or token is None:
            return None
        ret = answer(self.program, data(row["number"], token, tuple(row["args"])))
        if ret & ACTION == RET_NOTIFY and row["how"] == "call":
            return "its on_syscall decided it, or let it be done and the kernel refused", ""
        if ret & ACTION not in WAYS[row["how"]]:
            return None
        if row["how"] == "call" and (ret & RET_DATA) != row["errno"]:
            return None
        what = f"errno {errno_name(row['errno'])}" if row["how"] == "call" else row["how"]
        by = self.rule(row)
        return f"{self.source or 'its filter'}: {what}{f', by {by}' if by else ''}", self.cure(row)

    def permits(self, row: dict[str, Any]) -> bool:
        """Whether the rules as they were asked for let the call of ROW be done; true without a filter."""
        if self.wish is None:
            return True
        made = self.filter("")
        verdict = made and made.explain(row["number"], *row["args"], arch=row["arch"])
        return bool(verdict and verdict.action is not None and verdict.action.kind in ("allow", "log"))

    def rule(self, row: dict[str, Any]) -> str:
        """Which rule says so, in words; "" where the rules are not known."""
        made = self.filter("")
        if made is None:
            return ""
        try:
            verdict = made.explain(row["number"], *row["args"], arch=row["arch"])
        except MinictrError:
            return ""
        if verdict.rule is None:
            return f"its {verdict.why}" if verdict.why == "default" else verdict.why
        when = " and ".join(map(str, verdict.rule.when))
        return f"rule {verdict.number}{f' (if {when})' if when else ''}"

    def filter(self, extra: str) -> SeccompFilter | None:
        """The rules; of a policy, as they would be with the capability EXTRA as well."""
        if isinstance(self.wish, bytes) or self.wish is None:
            return None
        if not isinstance(self.wish, str):
            return None if extra else self.wish
        if extra not in self._filters:
            from minictr.features.filters import SeccompFilter

            caps = (*self.caps, extra) if extra else self.caps
            self._filters[extra] = SeccompFilter.named(self.wish, caps=caps)
        return self._filters[extra]

    def cure(self, row: dict[str, Any]) -> str:
        """A capability that opens the policy for this call, or another filter."""
        key = (row["arch"], row["number"], tuple(row["args"]))
        if key not in self._cures:
            self._cures[key] = self._cure(row)
        return self._cures[key]

    def _cure(self, row: dict[str, Any]) -> str:
        if self.wish in ("default", "docker"):
            for name in CAPABILITIES:
                if name in self.caps:
                    continue
                made = self.filter(name)
                verdict = made and made.explain(row["number"], *row["args"], arch=row["arch"])
                if verdict and verdict.action is not None and verdict.action.kind == "allow":
                    return f"--cap-add {name}"
        return f"--security-opt seccomp=FILE that allows {row['call']}, or unconfined"
