"""Root file systems: made from the host's own files, by mmdebstrap, or from a tarball.

``minimal.minimal``, ``debian.debian`` and ``tarball.import_tarball`` each fill a new directory and answer
:class:`minictr.images.staging.Built`. They build beside the directory and rename at the end: a failure leaves nothing.
"""
