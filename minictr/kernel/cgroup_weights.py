"""Weights of cgroup v1 and v2, converted as runc does. Pure.

cpu.shares <-> cpu.weight: opencontainers/cgroups (runc 1.3.2, crun 1.23) maps minimum, default and maximum onto each
other, (2, 1024, 262144) to (1, 100, 10000), by a quadratic function of log2(shares):
``weight = ceil(10 ** ((l * l + 125 * l) / 612 - 7 / 34))``. The older formula, ``1 + (shares - 2) * 9999 / 262142``,
was linear and turned the default 1024 into 39: a container with default shares got less than any other group of its
level (kubernetes/kubernetes issue 131216). We use the newer one.

blkio weight <-> io.weight is still runc's linear map of 10..1000 to 1..10000; blkio's 500 is 4950.
"""

from __future__ import annotations

__all__ = ["blkio_to_io", "io_to_blkio", "shares_to_weight", "weight_to_shares"]

SHARES = (2, 262144)  # MIN_SHARES and MAX_SHARES, kernel/sched/sched.h
WEIGHTS = (1, 10000)  # CGROUP_WEIGHT_MIN and _MAX, linux/cgroup.h
BLKIO = (10, 1000)  # what docker and the OCI specification allow for --blkio-weight


def shares_to_weight(shares: int) -> int:
    """cpu.weight (1 to 10000) for cpu.shares; outside of 2 to 262144 the nearest end."""
    from math import ceil, log2

    if shares <= SHARES[0]:
        return WEIGHTS[0]
    if shares >= SHARES[1]:
        return WEIGHTS[1]
    power = log2(shares)
    # rounded: 10.0 ** 2.0000000000000004 must not become 101
    return ceil(round(10 ** ((power * power + 125 * power) / 612 - 7 / 34), 9))


def weight_to_shares(weight: int) -> int:
    """cpu.shares (2 to 262144) for cpu.weight: the largest that converts back to WEIGHT."""
    from math import log10

    if weight <= WEIGHTS[0]:
        return SHARES[0]
    if weight >= WEIGHTS[1]:
        return SHARES[1]
    constant = 612 * (log10(weight) + 7 / 34)
    power = (-125 + (125 * 125 + 4 * constant) ** 0.5) / 2
    return int(2**power + 1e-9)


def blkio_to_io(weight: int) -> int:
    """io.weight (1 to 10000) for a blkio weight of 10 to 1000."""
    weight = min(max(weight, BLKIO[0]), BLKIO[1])
    return 1 + (weight - 10) * 9999 // 990


def io_to_blkio(weight: int) -> int:
    """A blkio or bfq weight (10 to 1000) for io.weight: the smallest that converts back to WEIGHT, or near it."""
    weight = min(max(weight, WEIGHTS[0]), WEIGHTS[1])
    return 10 + -(-(weight - 1) * 990 // 9999)
