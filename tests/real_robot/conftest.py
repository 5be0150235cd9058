"""Makes ``toy_robot`` importable (tests are imported one by one, see ``--import-mode``)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
