"""The drawings of the embedded data set: its birds, and the places that they stand in."""

from .birds import draw_bird
from .places import draw_land, draw_water

__all__ = ["draw_bird", "draw_land", "draw_water"]
