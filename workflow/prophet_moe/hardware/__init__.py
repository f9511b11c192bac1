"""Hardware: what a GPU does per second, measured or by its datasheet, and the time of a decode step on it."""
