"""The data doctor: reads every file of a data set and says what is in it, and what is wrong with it.

    findings   what can be wrong with a file, and what that leads to
    inventory  the files of a scene, by image; those that belong to none
    labels     one label file → counts and findings
    images     one image and its files → facts and findings: the work of one process
    scenes     a scene's images side by side: months, grids, labels
    splits     the neighbours that named splits separate
    report     what was found, as one JSON object
    text       the same for people
    doctor     check_data: the entry point

It reads through the same functions as `sn7 prepare`, so the two cannot disagree about a file.
"""

from sn7.check.doctor import check_data
from sn7.check.report import Report
from sn7.check.text import report_text

__all__ = ["Report", "check_data", "report_text"]
