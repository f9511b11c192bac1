"""Provenance: what made an output, written beside it, and the check that it still holds."""
