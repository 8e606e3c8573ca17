"""Which features this kernel and this user can have: each is done once, by the kernel module that stands for it."""

from __future__ import annotations

from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.steps import Feature, Support

__all__ = ["support", "supports"]

# the modules of minictr.kernel with a probe(), named like those of minictr.features
MODULES = ("namespaces", "rootfs", "mounts", "process", "users", "capabilities", "seccomp", "network")


def supports() -> dict[str, Support]:
    """Feature name -> Support, in the order of the registry. Some hundred milliseconds: nothing is remembered."""
    from importlib import import_module

    from minictr.features import REGISTRY
    from minictr.steps import Support

    found: dict[str, Support] = {}
    for module in MODULES:
        found.update(import_module(f"minictr.kernel.{module}").probe())
    return {name: found.get(name, Support(False, "no kernel module tries it out")) for name in REGISTRY}


def support(feature: str | Feature | type[Feature]) -> Support:
    """Whether FEATURE (a name, a value or a class) can be had here. Raises SpecError for a name that no feature has."""
    name = feature if isinstance(feature, str) else feature.name
    from minictr.features import REGISTRY
    from minictr.kernel import probing
    from minictr.kernel.trials import TRIALS

    for trials in TRIALS.values():
        if name in trials:
            return probing.support(trials[name])
    raise SpecError(f"no feature is called {name}: {', '.join(REGISTRY)}")
