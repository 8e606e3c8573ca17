"""Which features this kernel and this user can have: each is done once, by the kernel module that stands for it."""

from __future__ import annotations

from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.steps import Feature, Support

__all__ = ["support", "supports"]

# the modules of minictr.kernel with trials for probe(), named like those of minictr.features
MODULES = (
    *("namespaces", "rootfs", "mounts", "process", "users", "capabilities", "seccomp", "landlock"),
    *("network", "names"),
)
ALONE = (
    "apparmor",
    "selinux",
    "idmap",
    "publish_proxy",
)  # features, and the modules of the same names, which try them in a way of their own
# feature -> the controller that a group is made of to find out
GROUPS = {name: name for name in "memory cpu cpuset pids io devices hugetlb rdma misc freezer".split()}
# features that need more than one child: a network namespace, tables
NETWORK = tuple("veth bridge bridge_netfilter conntrack nat egress publish macvlan ipvlan pasta".split())
GROUPS |= {"named_cgroup": "named:systemd", "cgroup_conf": "raw"}


def supports() -> dict[str, Support]:
    """Feature name -> Support, in the order of the registry. Some hundred milliseconds: nothing is remembered."""
    from importlib import import_module

    from minictr.features import REGISTRY
    from minictr.steps import Support

    found: dict[str, Support] = {name: _group(name) for name in (*GROUPS, "cgroup_parent")}
    for module in (*MODULES, *ALONE):
        found.update(import_module(f"minictr.kernel.{module}").probe())
    found.update(_network())
    return {name: found.get(name, Support(False, "no kernel module tries it out")) for name in REGISTRY}


def _group(name: str) -> Support:
    """Whether the feature NAME can have a group; for a parent of groups, whether any can."""
    from minictr.kernel.cgroup_probes import support as group_support

    answers = [group_support(controller) for controller in ([GROUPS[name]] if name in GROUPS else GROUPS.values())]
    return next((answer for answer in answers if answer), answers[0])


def _network() -> dict[str, Support]:
    """What a container can have of networks; ports by pasta, where rules are not this user's."""
    from minictr.kernel.network_probes import supports as found
    from minictr.kernel.pasta import probe

    answers = {**found(), **probe()}
    if not answers["publish"] and answers["pasta"]:
        answers["publish"] = answers["pasta"]
    return answers


def support(feature: str | Feature | type[Feature]) -> Support:
    """Whether FEATURE (a name, a value or a class) can be had here. Raises SpecError for a name that no feature has."""
    name = feature if isinstance(feature, str) else feature.name
    from minictr.features import REGISTRY
    from minictr.kernel import probing
    from minictr.kernel.trials import TRIALS

    if name in GROUPS or name == "cgroup_parent":
        return _group(name)
    if name in NETWORK:
        return _network()[name]
    if name in ALONE:
        from importlib import import_module

        answer: Support = import_module(f"minictr.kernel.{name}").probe()[name]
        return answer
    for trials in TRIALS.values():
        if name in trials:
            return probing.support(trials[name])
    raise SpecError(f"no feature is called {name}: {', '.join(REGISTRY)}")
