"""For every test: one thread per numerical library, so that two small cores are shared fairly."""

import os

# Before numpy, torch or numba are imported by anything.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def pytest_configure(config):
    """One torch thread too; torch reads its variable only at import."""
    import torch

    torch.set_num_threads(1)
