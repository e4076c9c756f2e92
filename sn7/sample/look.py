"""What the land looks like in four kinds of country."""

from dataclasses import dataclass, replace

__all__ = ["LOOKS", "Look"]

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Look:
    """Colours (0 to 255) and habits of a kind of land."""

    bare: tuple[Rgb, ...]
    """Soils, stubble and rock of the parcels."""
    green: tuple[Rgb, ...]
    """Crops and grass at their greenest."""
    greenness: float
    """Share of a parcel's green that a typical parcel reaches in its best month, 0 to 1."""
    wood: Rgb
    wood_share: float
    water: Rgb
    river: float
    """Half width of the river, px; 0 for none."""
    dry_river: bool
    road: Rgb
    yard: Rgb
    """Ground between houses."""
    roofs: tuple[Rgb, ...]
    field: float
    """Typical width of a parcel, px."""
    haze: float
    """Mean share of haze in the light, 0 to 1."""
    styles: tuple[str, ...]
    """Kinds of districts, see sn7.sample.town."""
    trees: float
    """Share of trees between houses, 0 to 1."""
    rocks: float
    """Bright stones, cars and sheds that are no buildings, per 1,000 px."""


_TEMPERATE = Look(
    bare=((140, 114, 82), (118, 94, 68), (168, 146, 98), (96, 76, 58), (150, 128, 92)),
    green=((72, 92, 42), (92, 108, 54), (62, 80, 40), (104, 112, 62)),
    greenness=0.75,
    wood=(40, 51, 29),
    wood_share=0.16,
    water=(34, 46, 42),
    river=3.5,
    dry_river=False,
    road=(150, 140, 122),
    yard=(112, 110, 78),
    roofs=((168, 104, 80), (150, 92, 74), (84, 80, 77), (182, 176, 165), (228, 222, 210), (126, 100, 78)),
    field=26,
    haze=0.07,
    styles=("detached", "terrace", "detached", "halls", "village"),
    trees=0.9,
    rocks=0.5,
)
_ARID = Look(
    bare=((196, 166, 122), (216, 188, 144), (172, 142, 104), (184, 150, 112), (150, 124, 94)),
    green=((92, 106, 60), (120, 122, 76)),
    greenness=0.3,
    wood=(122, 112, 76),
    wood_share=0.05,
    water=(222, 198, 158),
    river=5.0,
    dry_river=True,
    road=(134, 122, 106),
    yard=(184, 160, 124),
    roofs=(
        (222, 204, 172),
        (248, 240, 226),
        (150, 124, 98),
        (126, 110, 94),
        (196, 186, 170),
        (236, 218, 184),
    ),
    field=34,
    haze=0.05,
    styles=("compact", "detached", "compact", "halls", "terrace"),
    trees=0.35,
    rocks=2.0,
)
_TROPICAL = Look(
    bare=((152, 112, 76), (120, 100, 66), (176, 140, 100), (104, 94, 56)),
    green=((58, 80, 36), (74, 94, 46), (92, 106, 54), (48, 68, 32)),
    greenness=0.9,
    wood=(33, 48, 23),
    wood_share=0.34,
    water=(104, 92, 66),
    river=6.0,
    dry_river=False,
    road=(178, 150, 112),
    yard=(104, 102, 68),
    roofs=((196, 194, 184), (150, 104, 80), (118, 140, 168), (232, 226, 212), (134, 118, 102)),
    field=15,
    haze=0.1,
    styles=("village", "compact", "village", "detached", "halls"),
    trees=1.0,
    rocks=0.6,
)
_STEPPE = replace(
    _TEMPERATE,
    bare=((172, 142, 100), (154, 124, 88), (190, 164, 116), (126, 102, 74)),
    green=((98, 110, 60), (112, 116, 66), (84, 98, 52)),
    greenness=0.55,
    wood=(62, 68, 42),
    wood_share=0.08,
    river=2.0,
    road=(168, 150, 122),
    yard=(138, 122, 92),
    roofs=((176, 116, 88), (206, 198, 184), (240, 232, 220), (112, 102, 94), (144, 112, 86)),
    field=40,
    haze=0.05,
    styles=("detached", "village", "terrace", "halls"),
    trees=0.6,
    rocks=1.0,
)
LOOKS = {"temperate": _TEMPERATE, "arid": _ARID, "tropical": _TROPICAL, "steppe": _STEPPE}
