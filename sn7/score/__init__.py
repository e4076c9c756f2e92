"""Predictions beside their truth: pixel metrics, F1 at an IoU, SCOT."""

from sn7.score.evaluate import score
from sn7.score.report import Report, SceneReport, report_text
from sn7.score.scot import MATCH_IOU, SceneScore, f1, score_scene

__all__ = ["MATCH_IOU", "Report", "SceneReport", "SceneScore", "f1", "report_text", "score", "score_scene"]
