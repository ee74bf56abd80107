"""How many threads a fit takes in the tests."""

import subprocess
import sys


def test_numpy_is_not_loaded_before_its_threads_are_set():
    found = "import sys, tests.conftest; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
