"""Options of mounts, overlay and the root's being read-only -> features. Reads whether a path is there."""

from __future__ import annotations

import os

from minictr.cli.given import many, said
from minictr.errors import SpecError
from minictr.features.mounts import Bind, Shm
from minictr.features.rootfs import Overlay, ReadonlyRoot
from minictr.spec import label

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.spec import Spec
    from minictr.steps import Feature

    Options = dict[str, Any]

ENOENT = 2


def mounts(spec: Spec, opts: Options) -> Spec:
    """Mounts, overlay, read-only root."""
    wanted: list[Feature] = [_source_there("-v", feature) for feature in many(opts, "volume", "-v", "volume")]
    wanted += (_source_there("--mount", feature) for feature in many(opts, "mount", "--mount", "mount"))
    wanted += many(opts, "tmpfs", "--tmpfs", "tmpfs")
    labels = [label(feature) for feature in wanted]
    for text in labels:
        if labels.count(text) > 1:
            raise SpecError(f"{text.replace(':', ' on ', 1)} is given twice")
    if "upper" in opts:
        if not opts["upper"]:
            raise SpecError("--upper: empty: name a directory")
        wanted.append(said("--upper", Overlay, upper=os.path.abspath(opts["upper"])))
    elif opts.get("overlay"):
        wanted.append(Overlay())
    if "shm_size" in opts:
        wanted.append(said("--shm-size", (spec.get("shm") or Shm()).replace, size=opts["shm_size"]))
    if opts.get("read_only"):
        wanted.append(ReadonlyRoot())
    return spec.with_(*wanted)


def _source_there(option: str, feature: Feature) -> Feature:
    """FEATURE with host paths absolute. A bind's source must be there: docker would make a directory of that name,
    which hides a typing mistake."""
    if isinstance(feature, Overlay):
        paths = {name: os.path.abspath(path) for name in ("upper", "work") if (path := getattr(feature, name))}
        return feature.replace(lower=tuple(os.path.abspath(path) for path in feature.lower), **paths)
    if not isinstance(feature, Bind):
        return feature
    source = os.path.abspath(feature.source)
    try:
        os.stat(source)
    except OSError as err:
        why = "no such file or directory" if err.errno == ENOENT else os.strerror(err.errno or 0)
        raise SpecError(f"{option} {feature.source}:{feature.target}: {why}: {source}") from None
    return feature.replace(source=source)
