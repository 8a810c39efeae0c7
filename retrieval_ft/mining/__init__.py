"""Hard negatives from ranked candidates, with an account of every candidate that was dropped."""

from retrieval_ft.mining.calibration import Calibration, calibrate, random_scores
from retrieval_ft.mining.negatives import MinedPairs, mine
from retrieval_ft.mining.topk import exact_top_k

__all__ = ["Calibration", "MinedPairs", "calibrate", "exact_top_k", "mine", "random_scores"]
