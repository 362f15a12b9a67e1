"""Amounts in text: numbers with units in many spellings, read so that equal ones compare equal."""

from mres_jax.quantities._reading import Quantity as Quantity, read_quantity as read_quantity
from mres_jax.quantities._units import unit_of as unit_of
