"""The arms of each method: which rows there are, and in which environment each is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import minictr as mc
from bench import design
from bench.ablate.words import OVERLAY, PATH, Target
from bench.design import Design, Row
from bench.environments import registry
from bench.environments.ours import Minictr
from bench.environments.place import Place
from bench.micro import arms
from bench.micro.run import MicroStage, Places
from bench.samples import AGAIN, BARE
from bench.stage import Stage

METHODS = ("loo", "aoi", "screen", "factorial", "nginx")
LADDERS = {
    "ladder:root": "root",
    "ladder:network": "network",
    "ladder:seccomp": "seccomp",
    "ladder:cgroup": "cgroup",
    "ladder:namespace": "namespace",
    "ladder:mounts": "mounts",
    "ladder:privilege": "privilege",
}
REBUILD = "ladder:rebuild"  # from bare to the whole, group by group
ALL_METHODS = (*METHODS, *LADDERS, REBUILD)
SCREENED = ("namespaces", "mounts", "masks", "process", "privilege", "seccomp", "cgroups", OVERLAY)
WHOLE = f"{PATH}+{OVERLAY}"  # the arm that has everything
PROXY = "PublishProxy"  # of minictr, where it has one


@dataclasses.dataclass(frozen=True)
class Trial:
    """One arm: where it runs (None: it cannot be, and why), what is on in it, and what it is compared with."""

    name: str
    over: str
    place: Place | None
    on: tuple[str, ...] = ()
    refused: str = ""


@dataclasses.dataclass(frozen=True)
class Trials:
    """``design`` is there for the methods whose effects are not just differences of two arms."""

    trials: tuple[Trial, ...]
    notes: tuple[str, ...] = ()
    design: Design | None = None


def bares(stage: Stage) -> list[Trial]:
    return [Trial(name, BARE, registry.make(name, stage)) for name in (BARE, AGAIN)]


def place_of(target: Target, name: str, on: design.Factors, stage: Stage) -> Place:
    """minictr with the words ON. Raises SpecError."""
    box, overlay, rungs = target.container(on, stage.rootfs)
    return Minictr(stage, f"ablate-{name}", features=box.features, rungs=rungs, overlay=overlay)


def of_design(found: Design, target: Target, stage: Stage) -> list[Trial]:
    """The rows as arms, and those that were refused."""
    rows = [
        Trial(row.name, row.over or BARE, place_of(target, row.name, row.on, stage), spelled(target, row))
        for row in found.rows
    ]
    return rows + [Trial(name, "", None, refused=why) for name, why in found.refused if "same as" not in why]


def spelled(target: Target, row: Row) -> tuple[str, ...]:
    """The words that are on in ROW, in the target's order."""
    return tuple(word for word in target.words if word in target.spelled(row.on))


def planned(method: str, target: Target, factors: str, stage: MicroStage) -> Trials:
    """The arms of METHOD for TARGET. Raises DesignError, WordError before anything is touched."""
    if method in LADDERS:
        return ladder(LADDERS[method], stage)
    if method == "nginx":
        return nginx(target, stage)
    if method == REBUILD:
        found = rebuild(target)
    else:
        found = designed(method, target, factors)
    told = [f"{name}: {why}" for name, why in found.refused]
    return Trials((*bares(stage), *of_design(found, target, stage)), (*found.notes, *told), found)


def designed(method: str, target: Target, factors: str) -> Design:
    """The design alone: pure."""
    if method == "screen":
        return screened(target, factors)
    names = target.factors(factors)
    if method == "loo":  # of the whole container, however few factors are asked for
        rest = frozenset(target.words) - target.spelled(names)
        return design.leave_one_out(names, target.possible, base=rest, needs=target.needs_of(names))
    ground = _ground(target, names)
    if method == "aoi":
        made = design.add_one_in(names, target.possible, base=ground, needs=target.group_needs(names))
    else:
        made = design.factorial(names, target.possible, base=ground)
    return dataclasses.replace(made, notes=(*_held(ground), *made.notes))


def _held(ground: design.Factors) -> list[str]:
    """What a reader must know of words that are nobody's factor and on everywhere."""
    return [f"on in every row, for others stand on it: {', '.join(sorted(ground))}"] if ground else []


def screened(target: Target, factors: str) -> Design:
    """Factors that stand on nothing that is screened too; what they stand on is on in every row."""
    offered = [name for name in SCREENED if name in target.groups()]
    names = target.factors(factors or ",".join([*offered, *(["firewall"] if target.rungs else [])]))
    free, held = design.parted(names, target.group_needs(names))
    ground = _ground(target, free) | target.spelled(held)
    found = design.screening(free, target.possible, base=ground)
    return dataclasses.replace(found, notes=(*_held(ground), *found.notes))


def _ground(target: Target, factors: Sequence[str]) -> design.Factors:
    """The words that FACTORS stand on and that are none of theirs."""
    mine = target.spelled(factors)
    return design.grounded(mine, target.needs) - mine


def rebuild(target: Target) -> Design:
    """Group by group, each rung with all that is below it; the network's rungs one by one."""
    groups, on, rungs = target.groups(), frozenset[str](), [("chroot", frozenset[str]())]
    for name in ("root", OVERLAY, *(name for name in groups if name not in ("root", OVERLAY, "cable", "firewall"))):
        if name in groups:
            on |= design.lean(frozenset(groups[name]) | on, {k: v for k, v in target.needs.items() if k != "sysctl"})
            rungs.append((f"+{name}", _standing(on, target)))
    for rung in target.rungs:
        on |= {rung}
        rungs.append((f"+{rung}", _standing(on, target)))
    return design.ladder(rungs, target.possible)


def _standing(on: design.Factors, target: Target) -> design.Factors:
    """The network's sysctls come with the cable they stand on."""
    return design.lean(on, target.needs)


def wishes_of(group: str, layers: Mapping[int, Sequence[str]]) -> list[arms.Wish]:
    """The arms of the micro tier's GROUP, and what they stand on."""
    return [it for it in arms.chosen(arms.every(layers), [group]) if it.lan == (group == "network")]


def ladder(group: str, stage: MicroStage) -> Trials:
    """A ladder of the micro tier, its arms given the workload."""
    places, found = Places(stage), bares(stage)
    for wish in wishes_of(group, stage.layers()):
        if wish.name in (BARE, AGAIN):
            continue
        place = None if wish.refused else places.of(wish)
        on = tuple(one.name for one in wish.features or ()) + wish.rungs
        if wish.words[:1] == ("--landlock",) and isinstance(place, Minictr):  # of the program there, of the clock here
            place.domains = int(wish.words[1])
        found.append(Trial(wish.name, wish.over, place, on, wish.refused))
    return Trials(tuple(found), hierarchies() if group == "cgroup" else ())


def hierarchies(table: str = "/proc/cgroups") -> tuple[str, ...]:
    """Why no controller is there twice: which are of v1 and which of v2. cgroups(7)."""
    try:
        with open(table, encoding="ascii") as file:
            rows = [line.split() for line in file if not line.startswith("#")]
    except OSError:
        return ("the controllers are those of cgroup v2",)
    old = [name for name, hierarchy, _, enabled in rows if hierarchy != "0" and enabled == "1"]
    new = [name for name, hierarchy, _, enabled in rows if hierarchy == "0" and enabled == "1"]
    return (
        f"of cgroup v1: {', '.join(old) or 'none'}; of v2, or of none: {', '.join(new) or 'none'}. A controller is in"
        " one hierarchy at a time, for the whole machine, so none can be measured in both here",
    )


def nginx(target: Target, stage: Stage) -> Trials:
    """The question of the thesis: which part of Docker costs a web server what.

    {network path, none} x {overlay, bind} for Docker itself and for minictr rebuilt as Docker; minictr group by group
    on the way there, where NAT by itself is a rung; the proxy for who comes by 127.0.0.1; and bare on a machine where a
    dockerd merely runs.
    """
    found = bares(stage)
    for name, over in DOCKERS.items():
        place = registry.make(name, stage) if name in registry.ENVIRONMENTS else None
        found.append(Trial(name, over, place, refused="" if place else "this bench has no such environment"))
    steps = rebuild(target)
    found += of_design(steps, target, stage)
    for name, on in corners(target, steps).items():
        why = target.possible(on)
        place = None if why else place_of(target, name, on, stage)
        found.append(Trial(name, BARE, place, tuple(word for word in target.words if word in on), why))
    found.append(proxied(target, steps.rows[-1].on, stage))
    return Trials(tuple(found), (f"{WHOLE} is the last rung of the ladder once more: their difference is noise",))


DOCKERS = dict.fromkeys(("bare-dockerd", "docker", "docker-volume", "docker-host", "docker-host-volume"), BARE)


def corners(target: Target, steps: Design) -> dict[str, design.Factors]:
    """The four corners of the 2x2, of minictr: arm -> what is on in it."""
    whole = steps.rows[-1].on
    crossed = {
        WHOLE: whole,
        f"{PATH}+bind": whole - {OVERLAY},
        "none+overlay": whole - set(target.rungs),
        "none+bind": whole - set(target.rungs) - {OVERLAY},
    }
    return {name: design.lean(on, target.needs) for name, on in crossed.items()}


def question(target: Target) -> dict[str, tuple[str, tuple[str, ...], str]]:
    """The arms of :func:`nginx` before anything is made: arm -> (over, what is on, why it cannot be). Pure."""
    steps = rebuild(target)
    sets = {row.name: (row.over or BARE, row.on) for row in steps.rows}
    sets |= {name: (BARE, on) for name, on in corners(target, steps).items()}
    found = {name: (over, (), "") for name, over in {AGAIN: BARE, **DOCKERS}.items()}
    for name, (over, on) in sets.items():
        found[name] = (over, tuple(word for word in target.words if word in on), target.possible(on))
    found |= {name: ("", (), why) for name, why in steps.refused if "same as" not in why}
    whole = found[WHOLE][1]
    return {**found, "proxy": (WHOLE, (*whole, "publish_proxy"), "" if hasattr(mc, PROXY) else f"no {PROXY}")}


def proxied(target: Target, whole: design.Factors, stage: Stage) -> Trial:
    """The whole with a process that copies between two connections: what docker-proxy is for 127.0.0.1."""
    proxy = getattr(mc, PROXY, None)
    if proxy is None:
        return Trial("proxy", WHOLE, None, refused=f"this minictr has no {PROXY}")
    box, overlay, rungs = target.container(whole, stage.rootfs)
    features = (*box.features, proxy())
    place = Minictr(stage, "ablate-proxy", features=features, rungs=rungs, overlay=overlay)
    return Trial("proxy", WHOLE, place, (*target.words, "publish_proxy"))
