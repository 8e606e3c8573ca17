"""Which kernel feature costs what: a start with each feature left out in turn. Needs root.

Proves: leaving a feature out leaves its steps out and nothing else, and the time line says what each one took.
A serious figure needs interleaving and an A/A check, which ``python -m bench`` does.
"""

from __future__ import annotations

import tempfile

import minictr as mc
from minictr.images.minimal import minimal

RUNS = 10


def milliseconds(box: mc.Container) -> float:
    """The median of a few starts, to the end of /bin/true."""
    return sorted(box.run(["true"]).elapsed for _ in range(RUNS))[RUNS // 2] * 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        box = mc.Container(minimal(f"{work}/root", ["true"]).directory)
        whole, everything = box.plan(["true"]), milliseconds(box)
        costs = box.run(["true"]).timeline.by_feature()
        print(f"{'all features':16} {len(whole):3} steps  {everything:6.2f} ms")
        for feature in box.features:
            less = box.without(feature)
            try:
                gone = len(whole) - len(less.plan(["true"]))
            except mc.SpecError:
                print(f"- {feature.name:14} cannot be left out: nothing else would make the directory the root")
                continue
            own = costs.get(feature.name, 0) / 1000
            print(f"- {feature.name:14} {gone:3} fewer  {milliseconds(less):6.2f} ms   its own steps: {own:5.2f} ms")


if __name__ == "__main__":
    main()
