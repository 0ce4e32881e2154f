"""Basis of all other packages."""

import sys

if sys.platform == "win32":
    print("error: Windows: cannot fork processes; expected Linux or macOS. Fix: use WSL 2",
          file=sys.stderr)  # fmt: skip
    sys.exit(2)
