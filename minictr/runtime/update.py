"""New limits for a container that exists: all of them, or none.

What each write would change is read before, and put back when one of the writes fails.
"""

from __future__ import annotations

from minictr.errors import MinictrError, SpecError
from minictr.features.controllers import Controller
from minictr.kernel.cgroup_files import get, write_rows
from minictr.runtime import events
from minictr.runtime.state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from minictr.kernel.cgroups import Place
    from minictr.runtime.instance import Instance
    from minictr.spec import Spec
    from minictr.steps import Feature

    Old = tuple[str, str, str]  # directory, file, text

__all__ = ["KEYWORDS", "update", "with_limits"]

# keyword -> feature and field: the words of mc.Cgroup
KEYWORDS = {
    "memory": ("memory", "max"),
    "swap": ("memory", "swap"),
    "cpus": ("cpu", "cpus"),
    "cpu_weight": ("cpu", "weight"),
    "cpuset": ("cpuset", "cpus"),
    "pids": ("pids", "max"),
    "io_weight": ("io", "weight"),
}
AGAINST = {"weight": "shares", "shares": "weight", "cpus": "quota", "quota": "cpus"}  # the one takes the other's place


def with_limits(spec: Spec, wanted: Iterable[Feature], limits: Mapping[str, Any]) -> Spec:
    """SPEC with what features WANTED say, field by field, and LIMITS by keyword. SpecError for what is no limit."""
    fields: dict[str, dict[str, Any]] = {}
    for feature in wanted:
        if not isinstance(feature, Controller):
            raise SpecError(f"update: {feature.name} is no limit: it cannot be changed while a container lives")
        told = {name: getattr(feature, name) for name in feature._fields}
        said = {name: value for name, value in told.items() if value != feature._defaults.get(name, KEYWORDS)}
        fields.setdefault(feature.name, {}).update(said)
    for word, value in limits.items():
        if word not in KEYWORDS:
            raise SpecError(f"update: {word!r} is no limit; there are: {', '.join(KEYWORDS)}, and features")
        name, field = KEYWORDS[word]
        fields.setdefault(name, {})[field] = value
    for name, changes in fields.items():
        present = spec.get(name)
        if present is None:
            raise SpecError(f"update: {without(name)}")
        for field in tuple(changes):
            if AGAINST.get(field) in present._fields:
                changes.setdefault(AGAINST[field], None)
        spec = spec.with_(present.replace(**changes))
    return spec


def without(name: str) -> str:
    return f"the container was made without the feature {name}: it has no group whose limits could be changed"


def update(instance: Instance, spec: Spec) -> None:
    """INSTANCE has the limits of SPEC from now on; of one that is over, from its next start on.

    SPEC is the container's own with other limits. Raises SpecError for a controller it was made without; StepFailed,
    and then everything is as it was.
    """
    with instance.record() as record, record.editing():
        state = State.of(record)
        old = {feature.name: feature for feature in state.spec.features if isinstance(feature, Controller)}
        changed = [f for f in spec.features if isinstance(f, Controller) and f != old.get(f.name)]
        if not changed:
            return
        for feature in changed:
            if feature.name not in old:
                raise SpecError(f"update {instance.label}: {without(feature.name)}")
        before: list[Old] = []
        try:
            if instance.alive:
                write(instance.places(), changed, before)
            record.save(state.replace(spec=spec).text())
        except BaseException:
            put_back(before)
            raise
        instance.refresh()
    events.tell(instance.store, instance.id, state.name, "update")


def write(places: Mapping[str, Place], changed: Iterable[Controller], before: list[Old]) -> None:
    """Write what CHANGED say; BEFORE collects what was there."""
    from minictr.kernel import cgroups

    for feature in changed:
        settings = dict(feature.settings())
        place = places.get(feature.controllers()[0])
        if place is None:
            raise SpecError(f"update: {without(feature.name)}")
        before += readings(place, settings)
        cgroups.write(place, **settings)


def readings(place: Place, settings: Mapping[str, Any]) -> list[Old]:
    """The files that SETTINGS would write, as they are."""
    names: list[str] = []
    if place.controller == "raw":
        names = [file for file, _ in settings.get("files", ())]
    else:
        table: Any = __import__(f"minictr.kernel.cgroup{place.version}", fromlist=["FILES"])
        rows = table.FILES.get(place.controller, {})
        wanted = (*settings, "memsw", "quota_period")  # what the writers make of two settings
        for setting in wanted:
            names += rows[setting][1] if setting in rows else ()
    found = []
    for name in dict.fromkeys(names):
        try:
            found.append((place.directory, name, get(place.directory, name).strip()))
        except OSError:
            continue  # this kernel has it not
    return found


def put_back(before: list[Old]) -> None:
    """What was there, as far as the kernel takes it: the failure that led here is what is told."""
    directories = dict.fromkeys(directory for directory, _, _ in before)
    for directory in directories:
        rows = [((file, text),) for where, file, text in before if where == directory]
        try:
            write_rows(directory, rows)
        except MinictrError:
            continue
