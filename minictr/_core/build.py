"""Builds the C core: three static programs first, then the extension module that carries them as bytes.

Run by setuptools through ``cffi_modules`` (see setup.py). Stub, monitor and proxy are static ELF programs without
libc, sealed memory files at run time. The stub is the only thing of minictr that exists inside a container; the monitor
is all that stays outside of a detached one, but for a proxy where it was asked for.
"""

from __future__ import annotations

import atexit
import os
import pathlib
import shlex
import subprocess
import tempfile

import cffi

HERE = pathlib.Path(__file__).resolve().parent
STATIC_FLAGS = (
    "-std=gnu11 -O2 -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pie -fcf-protection=none"
    " -mno-red-zone -Wall -Wextra -Werror"
)
LINK_FLAGS = "-static -nostdlib -nostartfiles -no-pie -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,noseparate-code -s"
PROGRAMS = ("stub", "monitor", "proxy")
SOURCES = (
    "text.c",
    "process.c",
    "messages.c",
    "paths.c",
    "ops_mount.c",
    "ops_mask.c",
    "ops_overlay.c",
    "ops_file.c",
    "ops_names.c",
    "ops_process.c",
    "ops_privilege.c",
    "ops_landlock.c",
    "ops_label.c",
    "interp.c",
    "spawn.c",
    "detach.c",
    "execute.c",
    "calls.c",
    "trace.c",
)


def static_flags(machine: str) -> list[str]:
    """The compiler flags of the static programs: two of them exist on x86 only."""
    flags = shlex.split(STATIC_FLAGS)
    return flags if machine == "x86_64" else [f for f in flags if f not in ("-fcf-protection=none", "-mno-red-zone")]


def build_program(name: str, include: pathlib.Path) -> None:
    """Compile the static program NAME and write it as ``NAME_bytes.inc``, a C initialiser, into INCLUDE."""
    compiler = shlex.split(os.environ.get("CC", "gcc"))
    program = include / name
    command = [
        *compiler,
        *static_flags(os.uname().machine),
        *shlex.split(LINK_FLAGS),
        "-o",
        str(program),
        str(HERE / f"{name}.c"),
    ]
    subprocess.run(command, check=True)
    data = program.read_bytes()
    (include / f"{name}_bytes.inc").write_text(",".join(map(str, data)) + "\n", encoding="ascii")


def extension() -> cffi.FFI:
    """The cffi builder: core.h is the cdef, and the generated C is compiled with our sources."""
    holder = tempfile.TemporaryDirectory(prefix="minictr-core-")
    atexit.register(holder.cleanup)  # the compiler runs after this function, and needs it until then
    include = pathlib.Path(holder.name)
    for name in PROGRAMS:
        build_program(name, include)
    builder = cffi.FFI()
    builder.cdef((HERE / "core.h").read_text(encoding="ascii"))
    builder.set_source(
        "minictr._core._native",
        '#include <stdint.h>\n#include <stddef.h>\n#include "core.h"\n',
        sources=[
            str((HERE / name).relative_to(pathlib.Path.cwd()))
            if HERE.is_relative_to(pathlib.Path.cwd())
            else str(HERE / name)
            for name in SOURCES
        ],
        include_dirs=[str(HERE), str(include)],
        extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers"],
        py_limited_api=True,
    )
    return builder


ffi = extension()
