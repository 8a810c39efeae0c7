"""Whatever step of a change a process dies at, the index is the old one or the new one, whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_a_writer_killed_at_any_step_leaves_the_old_or_the_new_index(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    script = TESTS / "index" / "crashes.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert sum(count["steps"] for count in counts.values()) >= 200
    for change, count in counts.items():
        # Compacting changes the files, not what is found.
        expected = ["new"] if change == "compact" else ["new", "old"]
        assert count["states"] == expected, change
