"""``python -m minictr`` is ``minictr``."""

from minictr.cli.entry import leave

if __name__ == "__main__":
    leave()
