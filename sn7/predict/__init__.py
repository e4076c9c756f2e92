"""Images → probs, polygons and previews.

    OUT/<scene>/<image>.tif       probs: a Cloud Optimized GeoTIFF on the image's grid, float32, NaN where invalid
    OUT/<scene>/<image>.geojson   polygons: longitude and latitude (or .gpkg, .parquet, in the image's CRS)
    OUT/<scene>/<image>.png       preview: the image with the polygons' outlines

The files of a GeoTIFF that is given by itself lie in OUT directly; those of a scene that is pooled over all of its
months have the scene's name. No image is held in memory as a whole.
"""

from sn7.predict.files import MapOptions, PredictionFiles
from sn7.predict.inputs import jobs_of
from sn7.predict.pooled import Pooling
from sn7.predict.report import PredictReport
from sn7.predict.run import predict, predict_image
from sn7.predict.way import Way

__all__ = ["MapOptions", "Pooling", "PredictReport", "PredictionFiles", "Way", "jobs_of", "predict", "predict_image"]
