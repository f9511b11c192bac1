"""What a decode step, an expert and a copy of it take on one GPU: measured here, estimated, or bound by the datasheet.

Everything that tells a slowdown asks a pace. Where a GPU was measured (`profile`), its pace is that measurement. Else
it is the estimate (`estimate`), which rests on what others measured, and copies take a way of config/links.yaml. The
pace of the datasheet, a lower bound of every time, stands beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from prophet_moe.catalog import GpuSpec
from prophet_moe.catalog.architecture import Architecture
from prophet_moe.catalog.link import LinkSpec
from prophet_moe.hardware.estimate import Estimator, estimate_step, read_estimators
from prophet_moe.hardware.profile import Profile, datasheet_profile, read_profile
from prophet_moe.hardware.roofline import all_resident_seconds, expert_shape, expert_weight_bytes, layer_times
from prophet_moe.precision import Precision

Basis = Literal["measured", "estimated", "bound"]
"""What times rest on: measured here, fitted to what others measured, or the peaks of the datasheet."""


class Pace(Protocol):
    """How long the steps, experts and copies of one GPU take, in seconds."""

    @property
    def basis(self) -> Basis:
        """Return what the times of this pace rest on."""

    def step_seconds(
        self, arch: Architecture, batch: int, context: int, unique_experts: float, precision: Precision
    ) -> float:
        """Return the seconds of a decode step with all experts resident, of which each MoE layer uses so many."""

    def expert_seconds(self, arch: Architecture, tokens: float, precision: Precision) -> float:
        """Return the seconds that one distinct expert, which computes so many tokens, adds to an MoE layer."""

    def copy_seconds(self, size: float) -> float:
        """Return the seconds of one copy of `size` bytes from host memory."""


@dataclass(frozen=True)
class ProfilePace:
    """The pace of a profile: of a measured one measured times, of a datasheet lower bounds."""

    profile: Profile

    @property
    def basis(self) -> Basis:
        """Return `measured`, or `bound` where the profile is a datasheet."""
        return "bound" if self.profile.optimistic else "measured"

    def step_seconds(
        self, arch: Architecture, batch: int, context: int, unique_experts: float, precision: Precision
    ) -> float:
        """Return the sum of the layers of `roofline.layer_times` and of the head."""
        return all_resident_seconds(layer_times(arch, self.profile, batch, context, unique_experts, precision))

    def expert_seconds(self, arch: Architecture, tokens: float, precision: Precision) -> float:
        """Return the seconds of one expert by its shape."""
        return self.profile.expert_seconds(*expert_shape(arch), tokens, expert_weight_bytes(arch, precision))

    def copy_seconds(self, size: float) -> float:
        """Return the seconds of one copy from pinned host memory."""
        return self.profile.transfer_seconds(size)


@dataclass(frozen=True)
class EstimatedPace:
    """The pace that others' measurements let expect, with copies by one way from host memory."""

    estimator: Estimator
    link: LinkSpec

    @property
    def basis(self) -> Basis:
        """Return `estimated`: all of its times rest on others' measurements."""
        return "estimated"

    def step_seconds(
        self, arch: Architecture, batch: int, context: int, unique_experts: float, precision: Precision
    ) -> float:
        """Return the estimate of a step (`estimate.estimate_step`)."""
        return estimate_step(self.estimator, arch, batch, context, unique_experts, precision).seconds

    def expert_seconds(self, arch: Architecture, tokens: float, precision: Precision) -> float:
        """Return what one more expert adds to the operator of an MoE layer."""
        return self.estimator.expert_seconds(arch, tokens, precision)

    def copy_seconds(self, size: float) -> float:
        """Return the seconds of one copy by the link of this pace."""
        return self.link.seconds(self.estimator.spec, size)


@dataclass(frozen=True)
class Paces:
    """The pace of a GPU that results rest on, and the bound of its datasheet beside it."""

    best: Pace
    bound: Pace


def read_paces(profiles: Path, operators: Path, gpus: Mapping[str, GpuSpec], link: LinkSpec) -> dict[str, Paces]:
    """Return the paces of GPUs: measured where `profiles` has a measurement of the GPU, else estimated.

    Parameters
    ----------
    profiles : Path
        The folder of measurements, one folder per GPU (resources/hardware).
    operators : Path
        The folder of fitted operators and constants (resources/operators).
    gpus : mapping from str to GpuSpec
        Datasheets by name of the GPU.
    link : LinkSpec
        The way that copies take in estimates.

    Returns
    -------
    dict from str to Paces
        By name of the GPU.

    Raises
    ------
    UserError
        Where a file is damaged or of another GPU.
    """
    estimators = read_estimators(operators, gpus)
    return {name: paces_of(read_profile(profiles, name, spec), estimators[name], link) for name, spec in gpus.items()}


def paces_of(profile: Profile, estimator: Estimator, link: LinkSpec) -> Paces:
    """Return the paces of one GPU from its profile and what its estimates are made of."""
    bound = ProfilePace(datasheet_profile(estimator.gpu, estimator.spec))
    return Paces(EstimatedPace(estimator, link) if profile.optimistic else ProfilePace(profile), bound)
