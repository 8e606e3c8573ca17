"""What the machine is and whether it was quiet: read once before a run and once after.

Everything is read from the kernel; what cannot be read is left out, never guessed.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import resource
import shutil
import subprocess
from typing import Any

# Beyond these somebody else took a part of the time.
NOISY_LOAD_PER_CPU = 0.75
NOISY_STEAL = 0.02
NOISY_OTHERS = 0.10  # of all CPU time; what the kernel does for us in its own threads is in it
NOISY_PRESSURE = 20.0  # percent of the last 10 s in which a runnable task waited

TOOLS = ("runc", "crun", "lxc-execute", "bwrap", "gcc")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _first_value(path: str, key: str) -> str:
    """The value of the first ``KEY : VALUE`` line of a file such as /proc/cpuinfo."""
    for line in _read(path).splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() == key:
            return value.strip()
    return ""


def tool_version(tool: str) -> str:
    """The first line a tool answers to --version; "" when it is not installed."""
    path = shutil.which(tool)
    if not path:
        return ""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else ""


def minictr_version() -> str:
    """Which minictr is measured, and where it was found; "" when there is none."""
    try:
        import minictr as mc
    except ImportError:
        return ""
    return f"{mc.__version__} in {os.path.dirname(str(mc.__file__))}"


def cgroup_mode() -> str:
    """``v2``, ``v1``, ``hybrid`` or ``none``, by what is mounted under /sys/fs/cgroup."""
    kinds = {line.split(" - ", 1)[1].split()[0] for line in _read("/proc/self/mountinfo").splitlines() if " - " in line}
    if {"cgroup", "cgroup2"} <= kinds:
        return "hybrid"
    return "v2" if "cgroup2" in kinds else "v1" if "cgroup" in kinds else "none"


def own_cgroups(mountinfo: str = "", cgroup: str = "") -> list[str]:
    """The caller's own cgroup directory in every hierarchy mounted.

    MOUNTINFO, CGROUP: the text of /proc/self/mountinfo and /proc/self/cgroup, if not this process's, now.
    """
    mountinfo, cgroup = mountinfo or _read("/proc/self/mountinfo"), cgroup or _read("/proc/self/cgroup")
    paths = {}
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        kind, _, options = right.split(" ", 2) if right.count(" ") >= 2 else ("", "", "")
        if kind == "cgroup2":
            found.append(fields[4] + paths.get("", "/").rstrip("/"))
        elif kind == "cgroup":
            words = set(options.split(","))
            own = [path for name, path in paths.items() if name and set(name.split(",")) <= words]
            found += [fields[4] + path.rstrip("/") for path in own[:1]]
    return found


def facts() -> dict[str, Any]:
    """The machine and its software: what a reader needs to compare two reports."""
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": _first_value("/proc/cpuinfo", "model name"),
        "cpus": len(os.sched_getaffinity(0)),
        "memory": _first_value("/proc/meminfo", "MemTotal"),
        "clocksource": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "hypervisor": "hypervisor" in _first_value("/proc/cpuinfo", "flags").split(),
        "cgroups": cgroup_mode(),
        "lsm": _read("/sys/kernel/security/lsm"),
        "bpf_jit": _read("/proc/sys/net/core/bpf_jit_enable"),
        "uid": os.geteuid(),
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "versions": {"minictr": minictr_version(), **{tool: tool_version(tool) for tool in TOOLS}},
    }
    return {name: value for name, value in found.items() if value not in ("", None)}


def cpu_ticks() -> tuple[int, int, int]:
    """All ticks, busy ticks and stolen ticks since boot, from the first line of /proc/stat: see proc_stat(5)."""
    fields = [int(word) for word in _read("/proc/stat").split("\n", 1)[0].split()[1:9]] + [0] * 8
    user, nice, system, idle, iowait, irq, softirq, steal = fields[:8]
    busy = user + nice + system + irq + softirq
    return busy + idle + iowait + steal, busy, steal


def _our_seconds() -> float:
    """CPU time of this process and of all it has waited for."""
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def pressure(key: str = "avg10") -> float | None:
    """How much some task waited for a CPU: percent of the last ten seconds, or ``total`` in microseconds since boot.

    None without CONFIG_PSI (Linux 4.20).
    """
    for line in _read("/proc/pressure/cpu").splitlines():
        kind, *pairs = line.split()
        if kind == "some":
            return float(dict(pair.split("=") for pair in pairs)[key])
    return None


def machine() -> str:
    """A name for this machine that tells it from others, the same on every day: its host name and a hash."""
    mark = _read("/etc/machine-id") or _read("/sys/class/dmi/id/product_uuid")
    return f"{platform.node()}-{hashlib.sha256(mark.encode()).hexdigest()[:8]}"


class Watch:
    """How quiet the machine was between ``Watch()`` and ``stop()``, to be called when all children are waited for.

    The load average counts ourselves too, so it is taken before the run only; afterwards it is known how much of the
    CPU time was neither idle nor ours.
    """

    def __init__(self) -> None:
        self.load = os.getloadavg()[0]
        self.pressure = pressure()
        self._ours = _our_seconds()
        self._total, self._busy, self._stolen = cpu_ticks()

    def stop(self) -> dict[str, Any]:
        """The figures, and under ``noisy`` a list of reasons (empty when quiet)."""
        total, busy, stolen = cpu_ticks()
        all_of_it = max(total - self._total, 1)
        ours = (_our_seconds() - self._ours) * os.sysconf("SC_CLK_TCK")
        shares = {
            "steal": (stolen - self._stolen) / all_of_it,
            "others": max(busy - self._busy - ours, 0.0) / all_of_it,
        }
        noisy = noise(self.load, len(os.sched_getaffinity(0)), pressure=self.pressure, **shares)
        return {"load_before": self.load, "pressure_before": self.pressure, **shares, "noisy": noisy}


def noise(load: float, cpus: int, *, steal: float, others: float, pressure: float | None) -> list[str]:
    """Why the machine counts as noisy: one line each."""
    reasons = []
    if load > NOISY_LOAD_PER_CPU * cpus:
        reasons.append(f"load average {load:.2f} before the run on {cpus} cpus")
    if steal > NOISY_STEAL:
        reasons.append(f"{steal:.1%} of the cpu time stolen by other guests")
    if others > NOISY_OTHERS:
        reasons.append(f"{others:.0%} of the cpu time went to other processes during the run")
    if pressure is not None and pressure > NOISY_PRESSURE:
        reasons.append(f"tasks waited for a cpu {pressure:.0f}% of the time before the run")
    return reasons
