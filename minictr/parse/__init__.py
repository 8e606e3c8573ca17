"""User text -> values: sizes, volumes, mounts, maps, limits, in docker's and podman's own syntax.

Small pure functions. Whatever the text, the answer is a value or a SpecError of one line that says which part is
wrong and what is right; the command line puts the option's name in front. What a value's own ``check`` refuses (a
relative target, a NUL, an id out of bounds) is not looked for twice here.
"""

from __future__ import annotations

from minictr.features.check import size
from minictr.features.tables import signal_number as signal
from minictr.parse.mounts import mount, tmpfs, volume
from minictr.parse.names import add_host
from minictr.parse.namespaces import id_map, id_maps, namespace, time_offset
from minictr.parse.network import expose, network_words, publish
from minictr.parse.numbers import duration, mode, seconds
from minictr.parse.settings import capabilities, env, env_file, securebits, sysctl, ulimit, user

__all__ = [
    "add_host",
    "capabilities",
    "duration",
    "env",
    "env_file",
    "expose",
    "id_map",
    "id_maps",
    "mode",
    "mount",
    "namespace",
    "network_words",
    "publish",
    "seconds",
    "securebits",
    "signal",
    "size",
    "sysctl",
    "time_offset",
    "tmpfs",
    "ulimit",
    "user",
    "volume",
]
