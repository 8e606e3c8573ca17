"""The bench: what a container costs here, and which kernel feature costs what.

``python -m bench VERB``. It uses minictr's public names only, so that it measures what a user gets.
"""

from __future__ import annotations

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# The installed minictr is what users run, and only it has a compiled core; the source tree beside us comes last.
sys.path.sort(key=lambda entry: os.path.abspath(entry or os.getcwd()) == ROOT)
