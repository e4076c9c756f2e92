"""A data set → pictures and numbers.json: what `sn7 explore` shows.

view       one image with its mask, its footprints and the size of its ground
survey     every image → a few numbers, in parallel
numbers    these → numbers.json, clusters and folds
ground     axes for pictures of the ground: scale bars, colours, sizes of type
atlas      pictures of the ground: sample scenes, a scene's months, footprints, tiles
charts     pictures of the numbers: building share per tile, unusable share by month
scenemap   a map of the scenes by fold
make       explore: the entry point
"""

from sn7.explore.make import Exploration, explore

__all__ = ["Exploration", "explore"]
