"""A virtual machine by QEMU with hardware KVM: the baseline that the thesis compared containers with.

Each sample boots a machine of its own. Its disk is an ext4 made of the shared copy of the root, with what the workload
put into it; another for /work where the job wants a volume, and one for each directory that is bound. In the machine
nothing runs but the bench's first program (vm_init.c) and the job, which starts when everything on the disks has been
read once and its state has been taken.

::

    the machine of the lan                               the virtual machine
    10.99.0.1  bench0 ...... 10.0.4.1  vmbr0 -- vmtap0 -- eth0  10.0.4.2, default route by 10.0.4.1

The state has, beside the keys of all (bench/environments/state.py; namespaces are compared with those of the machine's
own first process, and capabilities counted of its kernel's), ``machine``:

``kernel``      what runs in there; ``clocksource``: what times are taken by
``hypervisor``  what the processor says that it is inside of: by it KVM is told from an emulation
``cpus``, ``memory_mib``: what its kernel was given
``warm``        whether all that was read is still in its page cache; ``read_mib``: how much that was
``vhost``       whether its packets are moved by a thread of this kernel, and not by QEMU
"""

from __future__ import annotations

import os
import re
from typing import Any

from bench.environments import state, vm_boot
from bench.environments.base import WORK, EnvironmentBroken, Job, Stage
from bench.environments.machine import QEMU, kvm_trouble
from bench.environments.place import Place
from bench.environments.state import expected, interfaces, mounted, way_in
from bench.environments.vm_guest import Guest
from bench.rootfs import TIMED, RootfsError, silent

BRIDGE, TAP, GATEWAY, ADDRESS, MASK = "vmbr0", "vmtap0", "10.0.4.1", "10.0.4.2", "255.255.255.0"
VHOST = "/dev/vhost-net"
MIB = 1 << 20
GRAIN = 64 * MIB  # of a machine's memory
MOST_MEMORY = 16 << 30
# How QEMU runs the processor, and what a program in there is told by it. Translated ("tcg") is for tests of all the
# rest: nothing is measured so. cx16 keeps distribution kernels from booting on what QEMU 7.2 translates
ACCELERATORS = {
    "kvm": ("KVMKVMKVM", ("-accel", "kvm", "-cpu", "host")),
    "tcg": ("TCGTCGTCGTCG", ("-accel", "tcg,thread=multi", "-cpu", "max,-cx16")),
}
# In the order of their numbers, and so of the rows of /proc/PID/limits
LIMITS = "cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime".split()


class VirtualMachine(Place):
    """A virtual machine with the processor's own help. Emulation is never in its place.

    ``memory``: bytes, by default half of the machine's, 16 GiB at most. ``accelerator``: another than kvm is for tests,
    and no name of an environment.
    """

    NAME = "vm"
    ABOUT = "QEMU with hardware KVM: a machine for each sample, with this one's processors"
    PROGRAMS = ("mke2fs", "debugfs", "modprobe", "depmod", "setpriv", "ip")
    KNOWN: tuple[str, ...] = (
        "tried by booting; emulation is never measured in its place",
        "its root is an ext4 of the same bytes on a raw image, through this machine's page cache (cache=writeback)",
        "the page cache is its own: everything on its disks is read once before the job starts",
        "no service runs in it: its first program is the bench's own",
        "whole_s has its boot and its end, not the making of its disks nor the reading of them",
        "its times are by its own clock; outside_wall_s is the same job by this machine's, vm_cpu_s all that QEMU took",
        "a bridge and no NAT: it is reached by its address",
    )

    def __init__(self, stage: Stage, name: str = "", *, accelerator: str = "kvm", memory: int = 0) -> None:
        super().__init__(stage, name)
        self.accelerator, self.cpus = accelerator, len(os.sched_getaffinity(0))
        self.hypervisor, self._processor = ACCELERATORS[accelerator]
        self.memory = memory or half_of_memory()
        self.KNOWN = (*self.KNOWN, f"{self.cpus} processors, as here, and {self.memory // MIB} MiB of memory")
        self.kernel: vm_boot.Kernel | None = None
        self._bound: dict[str, str] = {}

    def trouble(self) -> str:
        return kvm_trouble() or self.boot_trouble()

    def boot_trouble(self) -> str:
        """Why the kernel does not come up, "" when it did: one sector says little where KVM is itself emulated."""
        prepared = self._prepared
        try:
            self.prepare()
            Guest(self, Job(("true",))).try_boot()
        except EnvironmentBroken as err:
            return f"no kernel came up under {self.accelerator.upper()}: {err}"
        finally:
            if not prepared:
                self.cleanup()
        return ""

    # --- made once ---

    def prepare(self) -> None:
        if self._prepared:
            return
        self.kernel = vm_boot.kernel(progress=getattr(self.stage, "progress", silent))
        super().prepare()
        try:
            vm_boot.initial(self.path("initial"), self.kernel.modules)
        except (OSError, RootfsError) as err:
            raise EnvironmentBroken(f"{self.name}: initial file system: {err}") from err
        self.tool("ip", "link", "add", "dev", BRIDGE, "type", "bridge")
        self.tool("ip", "address", "add", f"{GATEWAY}/24", "dev", BRIDGE)
        self.tool("ip", "link", "set", "dev", BRIDGE, "up")
        self.tool("ip", "tuntap", "add", "dev", TAP, "mode", "tap")
        self.tool("ip", "link", "set", "dev", TAP, "master", BRIDGE, "up")

    def remove(self) -> list[str]:
        self._bound = {}  # the disks go with our directory, bridge and tap with the lan
        return []

    @property
    def vhost(self) -> bool:
        return os.access(VHOST, os.R_OK | os.W_OK)

    # --- a sample ---

    def clean(self, job: Job) -> None:
        written = [bind.target for bind in job.binds if not bind.readonly]
        if written:
            raise EnvironmentBroken(
                f"{self.name}: {', '.join(written)}: a machine shares no directory to be written to"
            )
        self._discard()
        super().clean(job)

    def rest(self) -> None:
        self._discard()

    def _discard(self) -> None:
        """The disks of the last sample: nothing is asked of them any more."""
        for name in ("root.img", "volume.img"):
            if os.path.exists(self.path(name)):
                os.unlink(self.path(name))

    def hold(self, job: Job) -> Guest:
        self._make_disks(job)
        return Guest(self, job).begin()

    def disks(self, job: Job) -> list[tuple[str, str, bool]]:
        """(image, where it is mounted, whether it is only read), the root first; those of binds are kept."""
        volume = [(self.path("volume.img"), WORK, False)] if job.data == "volume" else []
        bound = [(self._bound.get(one.source, ""), one.target, True) for one in job.binds]
        return [(self.path("root.img"), "/", False), *volume, *bound]

    def _make_disks(self, job: Job) -> None:
        self._discard()
        for bind in job.binds:  # an input that nobody changes while the bench runs
            if bind.source not in self._bound:
                path = self.path(f"bind-{len(self._bound)}.img")
                vm_boot.disk(path, bind.source, readonly=True)
                self._bound[bind.source] = path
        if job.data == "volume":
            vm_boot.disk(self.path("volume.img"), self.path("volume"))
        vm_boot.disk(self.path("root.img"), self.tree)

    def argv(self, job: Job) -> list[str]:
        """Under the clock, which need not wait: the machine's first program does."""
        return [TIMED, self.token, "0", *job.argv]

    def network(self, job: Job) -> tuple[str, ...]:
        """The device in there and its addresses; () for none but lo."""
        return ("eth0", ADDRESS, MASK, GATEWAY) if job.network == "lan" else ()

    def boot(self, job: Job, disks: list[tuple[str, bool]], control: int) -> list[str]:
        """QEMU for JOB with DISKS, (image, whether it is only read). What the machine is asked comes by the descriptor
        CONTROL. It ends when its machine does, or we do."""
        assert self.kernel is not None
        words = ["setpriv", "--pdeathsig", "KILL", QEMU, "-machine", "q35", *self._processor]
        words += ["-smp", str(self.cpus), "-m", f"{self.memory // MIB}M", "-nodefaults", "-no-user-config"]
        words += ["-display", "none", "-no-reboot", "-serial", f"file:{escaped(self.path('console'))}"]
        words += ["-kernel", self.kernel.image, "-initrd", self.path("initial")]
        words += ["-append", "console=ttyS0 loglevel=4 panic=-1 oops=panic"]
        words += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
        words += [
            "-chardev",
            f"socket,id=control,fd={control}",
            "-device",
            "virtserialport,chardev=control,name=control",
        ]
        for image, readonly in disks:
            # the job, and not QEMU, is told of a disk that is full out here: else the machine would stand still
            how = "if=virtio,format=raw,cache=writeback,werror=report,rerror=report"
            words += ["-drive", f"file={escaped(image)},{how},readonly={'on' if readonly else 'off'}"]
        if job.network == "lan":
            vhost = "on" if self.vhost else "off"
            words += ["-netdev", f"tap,id=lan,ifname={TAP},script=no,downscript=no,vhost={vhost}"]
            words += ["-device", "virtio-net-pci,netdev=lan"]
        return words

    def reached(self, pid: int, job: Job) -> tuple[dict[str, str], dict[int, int]]:
        return {"client": ADDRESS, "host": ADDRESS}, {port: port for port in job.ports}

    def get(self, inside: str, target: str) -> None:
        """Out of the disks of a job that is over; before, out of what they will be made of."""
        image, path = self.path("root.img"), inside
        if self.job is not None and self.job.data == "volume" and (inside + "/").startswith(f"{WORK}/"):
            image, path = self.path("volume.img"), inside[len(WORK) :] or "/"
        if not os.path.exists(image):
            super().get(inside, target)
        else:
            vm_boot.fetch(image, path, target)

    # --- its state ---

    def look_inside(self, guest: Guest) -> None:
        """The state of the job that GUEST holds, from its own kernel."""
        status = dict(line.split(":", 1) for line in guest.cat(f"/proc/{guest.pid}/status").splitlines())
        last = int(guest.cat("/proc/sys/kernel/cap_last_cap"))
        effective, bounding = (int(status[name], 16) for name in ("CapEff", "CapBnd"))
        fstype, work = mounted(guest.cat(f"/proc/{guest.pid}/mountinfo"))
        links = {kind: [guest.ask("link", f"/proc/{pid}/ns/{kind}") for pid in (1, guest.pid)] for kind in state.KINDS}
        options = re.search(r" / / (\S+) ", guest.cat(f"/proc/{guest.pid}/mountinfo"))
        self.seen = {
            "namespaces": {kind: "host" if one == other else "own" for kind, (one, other) in links.items()},
            "root": {"fstype": fstype, "readonly": "ro" in options[1].split(",") if options else None},
            "work": work,
            "user": {
                "uid": int(status["Uid"].split()[1]),
                "mapped": guest.cat(f"/proc/{guest.pid}/uid_map").split() != ["0", "0", "4294967295"],
            },
            "capabilities": {
                "effective": effective.bit_count(),
                "bounding": bounding.bit_count(),
                "all": effective == bounding == (1 << last + 1) - 1,
            },
            "seccomp": int(status.get("Seccomp_filters", 0)),
            "no_new_privs": status["NoNewPrivs"].strip() == "1",
            "cgroups": {},
            "limits": {},
            "rlimits": limits(guest.cat(f"/proc/{guest.pid}/limits")),
            "network": {
                "interfaces": interfaces(guest.cat(f"/proc/{guest.pid}/net/dev")),
                **(way_in(self.lan) if guest.job.network == "lan" else {}),
            },
            "machine": self._machine(guest),
        }

    def _machine(self, guest: Guest) -> dict[str, Any]:
        """What the machine itself is, as its kernel tells."""
        source = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        cached = re.search(r"^Cached: +(\d+) kB", guest.cat("/proc/meminfo"), re.MULTILINE)
        assert guest.qemu is not None
        return {
            "kernel": guest.cat("/proc/sys/kernel/osrelease").strip(),
            "clocksource": guest.cat(source).strip(),
            "hypervisor": guest.ask("hypervisor"),
            "cpus": len(re.findall(r"^processor\s*:", guest.cat("/proc/cpuinfo"), re.MULTILINE)),
            "memory_mib": ram(guest.cat("/proc/iomem")) // MIB,
            "warm": bool(cached) and int(cached[1]) * 1024 >= guest.warmed if cached else None,
            "read_mib": guest.warmed // MIB,
            "vhost": VHOST in opened(guest.qemu.pid),
        }

    def planned(self, job: Job) -> dict[str, Any]:
        lan = {"interfaces": ["eth0", "lo"], "bridge": True, "masquerade": False, "dnat": False, "proxy": False}
        plan = expected(
            root="ext4",
            work=job.data,
            seccomp=0,
            no_new_privs=False,
            network=lan if job.network == "lan" else {"interfaces": ["lo"]},
        )
        machine = {"hypervisor": self.hypervisor, "cpus": self.cpus, "memory_mib": self.memory // MIB, "warm": True}
        machine |= {"vhost": self.vhost and job.network == "lan"}
        machine |= {"kernel": self.kernel.release} if self.kernel else {}
        plan["root"]["readonly"] = False
        return {**plan, "capabilities": {"all": True}, "machine": machine}


def half_of_memory() -> int:
    """Of this machine, in whole grains and not beyond what the bench needs: the rest is for what is around it."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(max(there // 2 // GRAIN, 4) * GRAIN, MOST_MEMORY)


def escaped(path: str) -> str:
    """PATH among QEMU's options, where a comma ends one."""
    return path.replace(",", ",,")


def limits(text: str) -> dict[str, int]:
    """The soft limits of TEXT, /proc/PID/limits, by the names of getrlimit(2); -1 is none."""
    words = [line[26:].split()[0] for line in text.splitlines()[1:]]
    return {name: -1 if word == "unlimited" else int(word) for name, word in zip(LIMITS, words)}


def ram(text: str) -> int:
    """Bytes of memory by TEXT, /proc/iomem: what the firmware keeps of it is counted in, by whole grains."""
    found = 0
    for first, last in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) : System RAM", text, re.MULTILINE):
        found += int(last, 16) - int(first, 16) + 1
    return -(-found // GRAIN) * GRAIN


def opened(pid: int) -> set[str]:
    """The files that process PID has open; without those that are closed meanwhile."""
    found, directory = set(), f"/proc/{pid}/fd"
    for name in os.listdir(directory):
        try:
            found.add(os.readlink(f"{directory}/{name}"))
        except FileNotFoundError:
            continue
    return found
