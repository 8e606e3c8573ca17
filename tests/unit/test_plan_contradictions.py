"""Wishes that are right alone and wrong together: each error names both sides and a cure."""

from __future__ import annotations

from importlib import import_module
from struct import pack

import pytest

from minictr.errors import SpecError
from minictr.features.contradictions import CHECKS
from minictr.features.join import Join
from minictr.plan import plan
from minictr.spec import Spec

f = import_module("minictr.features")  # mc.features is the front door's function of that name

MAPS = ((0, 100000, 65536),)
BOX = Spec(("true",), f.DEFAULT, "/srv/root")
ASKS = f.Seccomp(pack("=HBBI", 0x06, 0, 0, 0x7FC00000))  # BPF_RET|BPF_K, SECCOMP_RET_USER_NOTIF
USERNS = f.UserNamespace(MAPS, MAPS)

CONTRADICTIONS: list[tuple[Spec, tuple[str, ...]]] = [
    (BOX.replace(features=(*f.DEFAULT, f.Proc())), ("proc is given twice", "keep one")),
    (BOX.without("mnt"), ("pivot_root needs mnt", "add mnt")),
    (BOX.replace(rootfs=""), ("pivot_root needs a root file system", "give rootfs")),
    (BOX.without("pivot_root"), ("/srv/root", "pivot_root or chroot", "add one")),
    (BOX.with_(f.Chroot()), ("pivot_root and chroot", "keep one")),
    (Spec(("a",), (f.MountNamespace(), f.Overlay())), ("overlay needs a root", "give rootfs")),
    (BOX.without("proc", "sysctl", "readonly_paths"), ("masked_paths", "proc is not mounted", "add proc")),
    (BOX.without("sysfs", "cgroupfs"), ("masked_paths", "/sys/firmware", "sysfs is not mounted")),
    (BOX.without("proc"), ("proc",)),
    (BOX.without("sysctl", "loopback").without("net").with_("sysctl"), ("net.ipv4.ping", "the host", "add net")),
    (BOX.without("net").without("loopback"), ("sysctl", "own net namespace")),
    (BOX.with_(f.NetNamespace(join="/n")), ("sysctl", "joined namespace")),
    (BOX.without("ipc").with_(f.Sysctl((("kernel.shmmax", "1"),))), ("kernel.shmmax", "own ipc")),
    (BOX.without("net", "sysctl"), ("loopback needs net",)),
    (BOX.without("dev"), ("devpts needs dev",)),
    (BOX.with_(f.Tty()).without("devpts"), ("tty needs devpts",)),
    (BOX.with_(f.Tty()).without("session"), ("tty needs session",)),
    (BOX.without("uts"), ("hostname needs uts", "rename the host")),
    (BOX.without("uts", "hostname").with_(f.Domainname("d")), ("domainname needs uts",)),
    (BOX.with_(f.UtsNamespace(join="/n")), ("hostname in a joined uts", "leave hostname out")),
    (Spec(("a",), (f.Tmpfs("/t"),)), ("tmpfs needs mnt",)),
    (Spec(("a",), (f.Bind("/s", "/t"),)), ("bind needs mnt",)),
    (Spec(("a",), (f.MountNamespace(join="/m"), f.Proc())), ("proc in a joined mount namespace", "leave proc out")),
    (BOX.replace(features=(*f.DEFAULT, f.Tmpfs("/a"), f.Bind("/s", "/a/"))), ("tmpfs and bind", "mounted at /a")),
    (BOX.with_(f.Tmpfs("/dev/shm")), ("shm and tmpfs", "/dev/shm")),
    (BOX.with_(f.Bind("/s", "/proc")), ("proc and bind", "/proc")),
    (BOX.with_(f.Identity("me")), ("'me'", "resolve()")),
    (BOX.with_(USERNS, f.Identity("70000:0")), ("user 70000", "uid_map", "map it")),
    (BOX.with_(USERNS, f.Identity("0:70000")), ("group 70000", "gid_map")),
    (BOX.with_(f.UserNamespace(), f.Identity("0", 0, 0, (0,))), ("groups cannot be set",)),
    (BOX.with_(f.Bind("/s", "/t", idmap=True)), ("idmap", "add userns")),
    (BOX.with_(f.UserNamespace(), f.Bind("/s", "/t", idmap=True)), ("idmap", "uid_map and gid_map")),
    (BOX.with_(f.Idmap()), ("idmap needs userns", "leave idmap out")),
    (BOX.with_(f.UserNamespace(), f.Idmap()), ("idmap needs the maps of userns", "auto")),
    (BOX.with_(f.UserNamespace(join="/u"), f.Idmap()), ("idmap needs the maps of userns",)),
    (BOX.with_(USERNS, f.Idmap()).replace(rootfs="/"), ("idmap", "all the host's files", "leave idmap out")),
    (Spec(("a",), (f.MountNamespace(), USERNS, f.Idmap())), ("idmap needs a root", "give rootfs")),
    (BOX.with_(f.UserNamespace(auto=9), f.Overlay((), "/u")), ("upper", "userns auto gives back", "add idmap")),
    (BOX.with_(f.UserNamespace(auto=9), f.Identity("9:0")), ("user 9 is not in the uid_map",)),
    (BOX.with_(f.UserNamespace(join="/u"), f.DisableUserns()).without("pid"), ("disable_userns in a joined userns",)),
    (
        BOX.with_(USERNS, f.DisableUserns()).without("capabilities"),
        ("disable_userns", "CAP_SYS_RESOURCE", "without it"),
    ),
    (
        BOX.with_(USERNS, f.DisableUserns(), f.Capabilities(("CHOWN", "SYS_RESOURCE"))),
        ("disable_userns", "CAP_SYS_RESOURCE", "--cap-drop"),
    ),
    (BOX.with_(USERNS).without("ipc"), ("mqueue in a user namespace", "add ipc")),
    (BOX.with_(f.UserNamespace(join="/u")), ("pid cannot be new", "joined userns")),
    (Spec(("a",), (f.UserNamespace(join="/u"), f.TimeNamespace())), ("timens cannot be new",)),
    (BOX.with_(f.Bind("/s", "/t", propagation="rslave")), ("rslave receives nothing", "mnt is private")),
    (BOX.with_(*(f.Bind("/s", f"/t/{i}") for i in range(64))), ("64 of them", "at most 63")),
    (
        BOX.without("pids").with_(f.CgroupParent("x")),
        ("cgroup_parent without any controller", "leave cgroup_parent out"),
    ),
    (BOX.without("pids").with_(f.Cgroupfs()), ("cgroupfs without any controller", "add memory")),
    (BOX.with_(f.Cgroupfs(), f.CgroupNamespace(join="/n")), ("cgroupfs in a joined", "leave cgroupfs out")),
    (BOX.with_(f.Cgroupfs()).without("cgroupns"), ("cgroupfs needs cgroupns",)),
    (BOX.with_(f.Cgroupfs(), f.Tmpfs("/sys/fs/cgroup")), ("cgroupfs and tmpfs", "/sys/fs/cgroup")),
    (BOX.replace(features=(*f.DEFAULT, f.Pids(5))), ("pids is given twice", "keep one")),
    (BOX.replace(features=(*f.DEFAULT, *[f.NamedCgroup("a")] * 2)), ("named_cgroup a is given twice",)),
    (BOX.with_(f.Devices(("c 1:3 rwm",))), ("/dev/zero", "may not be made", "c *:* m")),
    (BOX.with_(f.Devices().allowing("deny c 1:3 rw")), ("/dev/null", "neither be read nor written")),
    (BOX.with_(f.Devices(), f.Device("/dev/fuse", "c", 10, 229)), ("/dev/fuse", "add the rule 'c 10:229 rwm'")),
    (BOX.with_(f.Device("/dev/null", "c", 1, 5)), ("/dev/null is made twice",)),
    (Spec(("a",), (f.Device("/dev/fuse", "c", 10, 229),)), ("device needs dev",)),
    (
        Spec(("a",), (f.Identity("7"), f.Securebits(("noroot",)))),
        ("securebits of user 7 need capabilities", "add capabilities"),
    ),
    (Spec(("a",), (Join(1, detached=True), f.NoNewPrivs(), ASKS)), ("notify", "detached", "do not detach it")),
    (
        Spec(("a",), (Join(1, (f.PidNamespace(),)), ASKS)),
        ("notify without no_new_privs and sendmsg", "no_new_privs=True"),
    ),
    (Spec(("a",), (f.Veth(),)), ("veth needs net", "add net")),
    (Spec(("a",), (f.NetNamespace(join="/n"), f.Veth())), ("veth in a joined network", "leave veth out")),
    (BOX.with_(f.Bridged()), ("bridge needs veth", "leave bridge out")),
    (BOX.with_(f.Veth(), f.BridgeNetfilter()), ("bridge_netfilter needs bridge",)),
    (BOX.with_(f.Publish(80, 80)), ("publish needs veth",)),
    (BOX.with_(f.Names()), ("names needs veth",)),
    (BOX.with_(f.Hosts((("gw", "host-gateway"),))), ("no network that the host is in", "--network bridge")),
    (BOX.replace(features=(*BOX.features, f.Veth(), f.Veth())), ("veth eth0 is given twice",)),
    (BOX.with_(f.Veth(), f.Publish(1, 1, count=4096), f.Publish(5000, 1)), ("more than 4096 ports",)),
]


@pytest.mark.parametrize(("spec", "words"), CONTRADICTIONS, ids=[words[0] for _, words in CONTRADICTIONS])
def test_contradictions_name_both_sides_and_a_cure(spec: Spec, words: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        plan(spec)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in words), message


def test_every_check_is_met_by_some_contradiction() -> None:
    from minictr.steps import Context

    met = set()
    for spec, _ in CONTRADICTIONS:
        ctx = Context(spec.rootfs, spec.argv, spec.features, spec.names)
        for check in CHECKS:
            try:
                check(ctx)
            except SpecError:
                met.add(check)
                break
    assert met == set(CHECKS)


def test_what_only_looks_like_a_contradiction() -> None:
    plan(BOX.without("pid"))  # /proc shows the host's processes
    plan(BOX.without("sysfs", "cgroupfs").with_(f.MaskedPaths(("/proc/kcore", "/etc/shadow"))))
    plan(Spec(("a",), (f.MountNamespace(), f.Tmpfs("/tmp"), f.ReadonlyRoot())))
    plan(BOX.with_(f.MountNamespace("slave"), f.Bind("/s", "/t", propagation="rslave")))
    plan(BOX.with_(f.Identity("1000:1000")))
    plan(BOX.with_(ASKS).without("no_new_privs"))
    plan(Spec(("a",), (Join(1, (f.PidNamespace(),)), f.NoNewPrivs(), ASKS)))
    plan(Spec(("a",), (Join(1, (f.UtsNamespace(),)), ASKS)))
    plan(BOX.with_(f.Devices().allowing("c 10:229 rw"), f.Device("/dev/fuse", "c", 10, 229)))
    plan(BOX.with_(f.Device("/dev/null", "c", 1, 3)))
    plan(BOX.with_(f.Devices(()), f.Device("/dev/fuse", "c", 10, 229)))


def test_device_nodes_are_made_and_take_no_handle():
    """But in a user namespace, where each is a bind of the host's."""
    nodes = [f.Device(f"/dev/many{number}", "c", 4, number) for number in range(100)]
    plan(BOX.with_(*nodes))
    with pytest.raises(SpecError, match="100 of them, at most"):
        plan(BOX.with_(f.UserNamespace(), *nodes))
