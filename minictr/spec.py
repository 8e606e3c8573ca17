"""Spec: what to run, and which features around it. A value; nothing here touches the kernel."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features import feature_class, make
from minictr.features.check import frozen, sequence, shown, word
from minictr.features.masks import MaskedPaths, ReadonlyPaths
from minictr.features.namespaces import GROUPED, OF_GROUPS
from minictr.features.process import ARG_STRLEN_MAX, Sysctl, sysctl_owner
from minictr.steps import Feature
from minictr.values import Value

NAME_MAX = 64


def label(feature: Feature) -> str:
    """What tells a feature from its like: its name, and for binds and tmpfs the target too (``tmpfs:/run``)."""
    return feature.label


def narrowed(feature: Feature, names: frozenset[str]) -> Feature | None:
    """What is left of a wish where only NAMES are there for it to stand on: itself, less of it, or None."""
    if any(names.isdisjoint(needed.split("|")) for needed, _ in feature.NEEDS):
        return None
    if feature.name in OF_GROUPS and GROUPED.isdisjoint(names):
        return None
    if isinstance(feature, (MaskedPaths, ReadonlyPaths)):
        gone = tuple(f"{top}/" for top, name in (("/proc", "proc"), ("/sys", "sysfs")) if name not in names)
        paths = tuple(path for path in feature.paths if not f"{path}/".startswith(gone))
        return feature.replace(paths=paths) if paths else None
    if isinstance(feature, Sysctl):
        settings = tuple(pair for pair in feature.settings if sysctl_owner(pair[0]) in names)
        return feature.replace(settings=settings) if settings else None
    return feature


class Spec(Value):
    """What to run, and which features around it.

    ``argv``: the command; ``argv[0]`` is looked up in the container's PATH unless it holds a slash. ``rootfs``: the
    directory that becomes /, "" for the host's own root. ``name``: what the container is called. ``environ``: the
    caller's environment as ``NAME=value``, used only where the feature ``env`` is absent or does not clear it.
    """

    argv: tuple[str, ...]
    features: tuple[Feature, ...] = ()
    rootfs: str = ""
    name: str = ""
    environ: tuple[str, ...] = ()

    def check(self) -> None:
        frozen(self, "argv", sequence(self.argv, "command"))
        frozen(self, "features", sequence(self.features, "features"))
        frozen(self, "environ", sequence(self.environ, "environ"))
        if not self.argv:
            raise SpecError("command: empty: name the program to run")
        for position, text in enumerate(self.argv):
            if not isinstance(text, str):
                raise SpecError(f"command: argument {position} is {shown(text)}, not a string")
            word(text.replace("\n", " "), f"command argument {position}", limit=ARG_STRLEN_MAX, empty=position > 0)
        for feature in self.features:
            if not isinstance(feature, Feature):
                raise SpecError(f"features: {shown(feature)} is not a feature: call its class, as in Proc()")
        word(self.rootfs, "rootfs", empty=True)
        word(self.name, "name", limit=NAME_MAX, empty=True)
        letters = self.name.replace("-", "").replace("_", "").replace(".", "")
        if self.name and not (letters.isascii() and letters.isalnum() and self.name[0].isalnum()):
            raise SpecError(
                f"name: {shown(self.name)} is not letters, digits, '-', '_', '.', beginning with one of the first"
            )

    @property
    def names(self) -> frozenset[str]:
        """The names of all features present."""
        return frozenset(feature.name for feature in self.features)

    def get(self, name: str) -> Feature | None:
        """The first feature of that name, or None."""
        return next((feature for feature in self.features if feature.name == name), None)

    def without(self, *unwanted: str | Feature, cascade: bool = False) -> Spec:
        """The same without some features, by name, by label (``"tmpfs:/run"``), or by value; or without a part of one
        (``"landlock:ioctl_dev"``).

        A feature that is not there is not missed; a name that no feature has is a SpecError. With ``cascade`` what
        cannot stand without them goes too (``net`` takes the loopback and the sysctls of the network along).
        """
        words = set()
        for item in unwanted:
            text = item if isinstance(item, str) else label(item)
            feature_class(text.partition(":")[0])
            words.add(text)
        kept = tuple(feature for feature in self.features if feature.name not in words and label(feature) not in words)
        for text in words:
            name, colon, part = text.partition(":")
            if colon:
                fewer = (feature.without_part(part) if feature.name == name else feature for feature in kept)
                kept = tuple(feature for feature in fewer if feature is not None)
        while cascade:
            names = frozenset(feature.name for feature in kept)
            less = tuple(left for feature in kept if (left := narrowed(feature, names)) is not None)
            cascade, kept = less != kept, less
        return self.replace(features=kept)

    def with_(self, *wanted: str | Feature) -> Spec:
        """The same with more features; one of the same name, or for binds and tmpfs of the same target, is replaced in
        its place. A name alone is the feature as the default profile has it."""
        kept = list(self.features)
        for item in wanted:
            feature = make(item) if isinstance(item, str) else item
            if not isinstance(feature, Feature):
                raise SpecError(f"features: {shown(feature)} is not a feature: call its class, as in Proc()")
            place = next((i for i, present in enumerate(kept) if label(present) == label(feature)), len(kept))
            kept[place : place + 1] = [feature]
        return self.replace(features=tuple(kept))
