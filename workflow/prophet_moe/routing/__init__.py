"""Routing: which experts models choose, as traces, counts, statistics and laws."""
