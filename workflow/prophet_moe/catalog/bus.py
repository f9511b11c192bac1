"""Buses that experts may come over in place of a GPU's own host link, config/buses.yaml: bounds or measurements."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, RootModel

from prophet_moe.catalog.gpu import LARGEST
from prophet_moe.catalog.link import LinkSpec
from prophet_moe.validation import StrictModel, read_yaml, validate


class BusSpec(StrictModel):
    """One bus, in one direction."""

    title: str
    """What it is called in figures."""
    gb_per_s: float = Field(ge=0.1, le=LARGEST)
    """Peak bandwidth in one direction by its specification, GB/s."""
    share: float = Field(gt=0, le=1)
    """Share of it that large copies reach; 1 where only the specification is known."""
    copy_us: float = Field(ge=0, le=10_000)
    """Microseconds that every copy takes beside its bytes; 0 where only the specification is known."""
    basis: str = Field(pattern="^(bound|measured)$")
    """bound (by the specification alone) or measured (by others)."""
    sources: list[str] = Field(min_length=1)
    """Where the numbers come from."""

    @property
    def link(self) -> LinkSpec:
        """Return the way to copy over this bus."""
        return LinkSpec(
            share=self.share,
            lowest_share=self.share,
            highest_share=self.share,
            copy_us=self.copy_us,
            sources=self.sources,
        )


class BusFile(RootModel[dict[str, BusSpec]]):
    """The whole of config/buses.yaml, a mapping from a bus to its numbers."""


def load_buses(path: Path) -> Mapping[str, BusSpec]:
    """Read the buses of `path`; a mistake is a UserError that names its key."""
    return validate(BusFile, read_yaml(path), str(path), "Mend that entry.").root
