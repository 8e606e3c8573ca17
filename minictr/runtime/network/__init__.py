"""Networks of containers: what is written down of them, who has which address and port, and what the kernel is told.

Nothing in here is imported by a start that asks for no network. ``networks`` (configurations, leases, the lock),
``ports``, ``rules`` (the one table), ``sysctls`` (remembered, and put back), ``attachment`` (one container's part),
``hands`` (the steps of a start), ``names``, ``hostsfile`` and ``resolver`` (who is called what, and the files that tell
it), ``handles`` (Bridge, Netns and others by themselves).
"""
