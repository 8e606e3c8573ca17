"""Whether what a job wrote gives back what it was given."""

from __future__ import annotations

import hashlib
import subprocess

from bench.workloads import inputs
from bench.workloads.base import WrongResult, last_words


class Proof:
    """COMMAND is the way back: a filter of the host's from the output to the input.

    It is gone once for each different output. The same bytes as were good before are good again, so that a long run
    does not decrypt 4 GiB for every sample.
    """

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._good: dict[str, str] = {}  # digest of an output -> digest of what it gives back

    def of(self, path: str, wished: str) -> None:
        """Raises WrongResult when the file PATH does not give back the bytes with the digest WISHED."""
        made = inputs.digest(path)
        if made not in self._good:
            self._good[made] = self._back(path)
        if self._good[made] != wished:
            raise WrongResult(f"the output gives back other bytes: SHA-256 {self._good[made][:16]}, not {wished[:16]}")

    def _back(self, path: str) -> str:
        found = hashlib.sha256()
        with (
            open(path, "rb") as file,
            subprocess.Popen(self._command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as filter_,
        ):
            assert filter_.stdout and filter_.stderr
            while chunk := filter_.stdout.read(inputs.CHUNK):
                found.update(chunk)
            said = filter_.stderr.read()
        if filter_.returncode:
            raise WrongResult(f"the output cannot be read back: {self._command[0]}: {last_words(said)}")
        return found.hexdigest()
