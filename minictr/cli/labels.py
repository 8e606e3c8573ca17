"""``--security-opt apparmor=...`` and ``label=...``, of ``run`` and of ``exec``."""

from __future__ import annotations

from minictr.cli.given import said
from minictr.errors import SpecError
from minictr.features.lsm import SELinux
from minictr.kernel.selinux import container_contexts
from minictr.parse.labels import apparmor, selinux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minictr.spec import Spec
    from minictr.steps import Feature

__all__ = ["exec_labels", "labelled"]

OPTION = "--security-opt"
FEATURES = {"apparmor": "apparmor", "label": "selinux"}  # by the word before "="


def labelled(spec: Spec, pairs: Sequence[tuple[str, str]]) -> Spec:
    """SPEC with the labels that PAIRS of (key, text) ask for. Raises SpecError."""
    for text in (text for key, text in pairs if key == "apparmor"):
        wanted = said(f"{OPTION} apparmor={text}", apparmor, text)
        spec = spec.without("apparmor") if wanted is None else spec.with_(wanted)
    texts = tuple(text for key, text in pairs if key == "label")
    if texts:
        present = spec.get("selinux")
        own = present if isinstance(present, SELinux) else None
        wanted = said(OPTION, selinux, texts, own, container_contexts())
        spec = spec.without("selinux") if wanted is None else spec.with_(wanted)
    return spec


def exec_labels(spec: Spec, texts: Sequence[str]) -> tuple[tuple[Feature, ...], tuple[str, ...]]:
    """The labels of a program in a container with SPEC instead of the container's: those to give, and the names of
    those to leave out. Raises SpecError."""
    pairs = [text.partition("=")[::2] for text in texts]
    for text, (key, _) in zip(texts, pairs):
        if key not in FEATURES:
            raise SpecError(f"{OPTION} {text}: exec takes apparmor=NAME|unconfined and label=..., no other")
    wanted = labelled(spec, pairs)
    asked = {FEATURES[key] for key, _ in pairs}
    given = tuple(feature for feature in wanted.features if feature.name in asked)
    return given, tuple(name for name in sorted(asked & spec.names) if name not in wanted.names)
