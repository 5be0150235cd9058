"""Makes ``point_mass`` importable (tests are imported one by one, see ``--import-mode``)."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
