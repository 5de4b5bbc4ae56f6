"""Weight files: which there are, where they lie, how they come here and become networks."""


class WeightsError(ValueError):
    """A weight file is not available or unusable; the message names it and says what to do."""
