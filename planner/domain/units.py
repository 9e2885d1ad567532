"""Unit conversion for core and domain: the one definition that the wire uses too, under a name of the planner's own."""

from bus_schemas.units import MW_PER_WATT, mw_from_watts, watts_from_mw

__all__ = ["MW_PER_WATT", "mw_from_watts", "watts_from_mw"]
