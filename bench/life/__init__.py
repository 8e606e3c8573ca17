"""What a container costs while it lives: at rest, in a crowd, to be joined, and by controller.

How it measures: docs/bench-lifecycle.md, "Life".
"""
