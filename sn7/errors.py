"""One base class for everything a user can mend, one subclass a cause.

Each message is a single sentence that names the file or field, what was found, what was wanted and what
to do. The command line prints it without a traceback and exits with 1.
"""

__all__ = [
    "ArchiveInvalid",
    "ClusterFileInvalid",
    "ClusterUnavailable",
    "ConfigError",
    "DataDefective",
    "DataMissing",
    "DiskFull",
    "DownloadFailed",
    "EncoderUnknown",
    "ExportFailed",
    "FolderUnwritable",
    "ImageUnreadable",
    "LabelsUnreadable",
    "ModelInvalid",
    "MonthsInvalid",
    "NodeUnfit",
    "OutOfMemory",
    "PreparedInvalid",
    "PretrainedUnusable",
    "ResultsConflict",
    "SceneUnknown",
    "SceneUnlabelled",
    "Sn7Error",
    "SplitInvalid",
    "StorageUnavailable",
    "StudyInvalid",
    "TrackingUnavailable",
    "TracksInvalid",
    "TrainingDiverged",
    "WorkerLost",
]


class Sn7Error(Exception):
    """Base of all errors that this project raises on purpose."""


class ConfigError(Sn7Error):
    """A field of a training configuration is unknown, of a wrong type or out of range."""


class DataMissing(Sn7Error):
    """A data set folder is missing, empty, or not in the SpaceNet 7 layout."""


class DataDefective(Sn7Error):
    """A data set has files for whose sake nothing could be trained on it."""


class ImageUnreadable(Sn7Error):
    """An image cannot be read, or has a shape, dtype or georeference that cannot be used."""


class LabelsUnreadable(Sn7Error):
    """A label file cannot be read as footprints."""


class SceneUnlabelled(Sn7Error):
    """A scene that should be trained on has no usable footprints."""


class PreparedInvalid(Sn7Error):
    """A prepared folder is missing, unfinished or of another version."""


class StorageUnavailable(Sn7Error):
    """A URL of a data set or a prepared set cannot be read or written."""


class SplitInvalid(Sn7Error):
    """Scenes cannot be divided as asked for."""


class EncoderUnknown(Sn7Error):
    """No encoder of that name, or one that cannot be the half of a U-Net."""


class TrainingDiverged(Sn7Error):
    """A loss or a metric is not finite any more."""


class OutOfMemory(Sn7Error):
    """A device's memory does not hold what has to be there at once, and less cannot be."""


class ModelInvalid(Sn7Error):
    """A model or ensemble folder is incomplete, damaged, or of another version."""


class ExportFailed(Sn7Error):
    """A model cannot be written in another format, or computes something else there."""


class StudyInvalid(Sn7Error):
    """A study file is broken, or contradicts itself or the data."""


class ClusterFileInvalid(Sn7Error):
    """A cluster file would fail at `ray up` or after it, or would let strangers in."""


class ClusterUnavailable(Sn7Error):
    """A Ray cluster or an MLflow server does not answer, or does not let us in."""


class NodeUnfit(Sn7Error):
    """A node of a cluster has other code or data than the driver, or does not share its folder of results."""


class ResultsConflict(Sn7Error):
    """A results folder holds something that would be overwritten or mixed up."""


class TrackingUnavailable(Sn7Error):
    """An MLflow server does not answer or does not let us in, or its address cannot be used."""


class FolderUnwritable(Sn7Error):
    """A folder that files should be written to does not let us."""


class DiskFull(Sn7Error):
    """A disk has no room for what is to be written, or a quota is used up."""


class DownloadFailed(Sn7Error):
    """A bucket or an object in it cannot be read, or the connection to it is cut."""


class WorkerLost(Sn7Error):
    """A process that works on images was killed from outside, as the system does where memory runs out."""


class ArchiveInvalid(Sn7Error):
    """An archive has a wrong checksum, is damaged, or holds what must not be unpacked."""


class PretrainedUnusable(Sn7Error):
    """Weights for an encoder to start from are missing, out of reach, unreadable, or of another model."""


class MonthsInvalid(Sn7Error):
    """Predictions of a scene's months are missing or ambiguous, or do not lie on one grid."""


class TracksInvalid(Sn7Error):
    """A challenge CSV, or a folder of footprints over the months, cannot be read as tracks."""


class SceneUnknown(Sn7Error):
    """Predictions are of a scene that the truth has not, or a scene is asked for that is not there."""


class Interrupted(Sn7Error):
    """A command was asked to stop, and has, in order."""
