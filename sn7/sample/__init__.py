"""A procedural data set in the SpaceNet 7 layout: no download, and a small network learns it in minutes.

    look      colours and habits of four kinds of country
    place     where a scene lies, what it is called, its grid
    terrain   fields, woods and water, changing with the season
    district  lots along the streets of one part of a town
    plan      districts, roads and farms of a place
    clutter   what could be taken for a building and is none
    town      plan + terrain → footprints, growing over the months
    paint     polygons → pixels
    render    terrain + town + month → an image as the sensor sees it
    layout    images and footprints → files
    make      make_sample: the entry point

Nothing in it is a photograph: results on it say that the software works, not how well it maps buildings.
"""

from sn7.sample.make import SampleReport, make_sample

__all__ = ["SampleReport", "make_sample"]
