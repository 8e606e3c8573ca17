"""Start-to-exit of ``/bin/true`` in a default-shaped container, every runtime side by side in one run.

How it measures and what differs between the arms: docs/bench-lifecycle.md.
"""
