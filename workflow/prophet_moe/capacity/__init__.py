"""Capacity: what fits on a device, and how long a context."""

from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.memory import ModelMemory, model_memory
from prophet_moe.capacity.record import RECORD_COLUMNS, Column, read_record, record

__all__ = ["RECORD_COLUMNS", "Column", "ModelMemory", "capacity_grid", "model_memory", "read_record", "record"]
