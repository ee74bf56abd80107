"""How many threads a fit takes in the tests."""

import os
import subprocess
import sys

FOUND = (
    "import os, sys, tests.conftest;"
    " print('numpy' in sys.modules, os.environ['OPENBLAS_NUM_THREADS'])"
)


def test_one_thread_is_set_before_numpy_is_loaded():
    unset = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", FOUND], env=unset, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "1"]
