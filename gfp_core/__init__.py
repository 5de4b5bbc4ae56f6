"""Face restoration with a generative facial prior: find, align, restore, colour, paste back."""

__version__ = "0.1.0"
