"""Predictions beside their truth: pixel metrics, F1 at an IoU, SCOT."""
