"""Color: whose colors restored faces take, and better colors for whole pictures."""

from .modes import apply_color, is_monochrome

__all__ = ["apply_color", "is_monochrome"]
