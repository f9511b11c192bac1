"""Present: figures drawn from the record, how they look, and how they are written."""
