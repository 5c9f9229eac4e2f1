"""Studies of published papers, on any data."""

from skaudioemb.studies.ablation import run_ablation
from skaudioemb.studies.systems import ablation_grid
from skaudioemb.studies.tables import Ablation

__all__ = ["Ablation", "ablation_grid", "run_ablation"]
