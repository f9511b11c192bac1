"""Ways to copy from host memory to a GPU by name: what they reach of the link's datasheet, and what a copy costs."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, RootModel

from prophet_moe.catalog.gpu import GpuSpec
from prophet_moe.errors import UserError
from prophet_moe.units import GB
from prophet_moe.validation import StrictModel, read_yaml, validate

MICROSECOND = 1e-6


class LinkSpec(StrictModel):
    """One way to copy from the host: seconds = copies x overhead + bytes / (share of the datasheet)."""

    share: float = Field(gt=0, le=1)
    """Share of the datasheet's bandwidth in one direction that large copies reach."""
    lowest_share: float = Field(gt=0, le=1)
    """The lowest share in the sources."""
    highest_share: float = Field(gt=0, le=1)
    """The highest share in the sources."""
    copy_us: float = Field(ge=0, le=10_000)
    """Microseconds that every copy takes beside its bytes."""
    sources: list[str] = Field(min_length=1)
    """Where the numbers come from."""

    def seconds(self, gpu: GpuSpec, size: float, copies: float = 1) -> float:
        """Return the seconds of `copies` copies of `size` bytes each to a GPU, one after another."""
        return self.seconds_over(gpu.link_gb_per_s, size, copies)

    def seconds_over(self, link_gb_per_s: float, size: float, copies: float = 1) -> float:
        """Return the seconds of copies over a link of that many GB/s by its datasheet; nothing takes no time."""
        if not size:
            return 0.0
        return copies * (self.copy_us * MICROSECOND + size / (self.share * link_gb_per_s * GB))


class LinkFile(RootModel[dict[str, LinkSpec]]):
    """The whole of config/links.yaml, a mapping from a way to copy to its numbers."""


def load_links(path: Path) -> Mapping[str, LinkSpec]:
    """Read the ways to copy of `path`; a mistake is a UserError that names its key."""
    return validate(LinkFile, read_yaml(path), str(path), "Mend that entry.").root


def link_named(name: str, links: Mapping[str, LinkSpec], where: str = "decode_step.link") -> LinkSpec:
    """Return the way to copy `name`; an unknown one is a UserError that names those that are known."""
    if name not in links:
        raise UserError(where, f"unknown name {name!r}, expected one of {', '.join(links)}", "Correct it.")
    return links[name]
