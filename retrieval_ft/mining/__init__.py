"""Hard negatives from ranked candidates, with an account of every candidate that was dropped."""

from retrieval_ft.mining.negatives import Calibration, MinedPairs, calibrate, mine

__all__ = ["Calibration", "MinedPairs", "calibrate", "mine"]
