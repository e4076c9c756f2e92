"""Months of a scene → buildings that keep their Id, with their first and last month."""

from sn7.tracking.config import NAIVE, TrackConfig
from sn7.tracking.months import Months
from sn7.tracking.track import Buildings, track

__all__ = ["NAIVE", "Buildings", "Months", "TrackConfig", "track"]
