"""What one GPU does per second: measured, or the peaks of its datasheet.

A measured profile is interpolated linearly between what was measured. Below the smallest size measured its time holds,
which is an upper bound; beyond the largest one its time grows as the roofline does, which for copies and attention is
in proportion. What was not measured is the roofline max(bytes / HBM, FLOPs / peak) (Williams, Waterman, Patterson:
Roofline, 2009) at the bandwidth that copies on the device reached, or at the datasheet's peaks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from prophet_moe.catalog import GpuSpec
from prophet_moe.errors import UserError
from prophet_moe.hardware.device import has_memory, is_named, words_of
from prophet_moe.units import GB

if TYPE_CHECKING:
    import pandas as pd

    from prophet_moe.hardware.recorded import Recording

Basis = Literal["measured", "measured bandwidth", "datasheet"]
"""What a time rests on: times measured of this very shape, the roofline at measured bandwidth, or at the peaks."""

COLUMNS = (
    *(
        "measurement",
        "memory",
        "streams",
        "clock",
        "calls_per_sample",
        "bytes",
        "seconds",
        "seconds_low",
        "seconds_high",
    ),
    *("dtype", "launch", "hidden", "inner", "gated", "tokens"),
    *("heads", "kv_heads", "head_dim", "latent_values", "batch", "context"),
)
"""Columns of hardware.csv that a profile is made of."""
MEASURED_DTYPE, MEASURED_DTYPE_BYTES = "bfloat16", 2
"""The type of weights and KV caches whose kernels were timed."""
TFLOP = 10**12


class ExpertShape(NamedTuple):
    """The FFN of an expert: three matrices of `hidden` x `inner` where gated, else two."""

    hidden: int
    inner: int
    gated: bool

    @property
    def parameters(self) -> int:
        """Return the number of weights of one expert."""
        return (3 if self.gated else 2) * self.hidden * self.inner


class AttentionShape(NamedTuple):
    """Attention over a KV cache; with `latent_values` it is one latent per token, key and value at once (MLA)."""

    heads: int
    kv_heads: int
    head_dim: int
    latent_values: int
    """0, or how many of the `head_dim` numbers of the latent are the value."""
    value_dim: int = 0
    """Numbers of a head's value; 0 where they are as many as the key's `head_dim`."""

    @property
    def cached_values(self) -> int:
        """Return how many numbers the cache keeps per token and layer."""
        return self.head_dim if self.latent_values else self.kv_heads * (self.head_dim + self._value)

    @property
    def flops(self) -> int:
        """Operations per cached token and new one: scores, and the sum of values, a product and a sum each."""
        return 2 * self.heads * (self.head_dim + self._value)

    @property
    def _value(self) -> int:
        return self.latent_values or self.value_dim or self.head_dim


MEASURED_SHAPE = AttentionShape._fields[:4]
"""Columns of hardware.csv that make the shape of an attention whose keys and values are as long."""


def proportional(x: float) -> float:
    """Return `x`: the time beyond the last point of a curve grows in proportion to it."""
    return x


@dataclass(frozen=True)
class Curve:
    """Seconds measured at ascending `x` > 0, of equal lengths."""

    x: tuple[float, ...]
    seconds: tuple[float, ...]

    def at(self, x: float, law: Callable[[float], float] = proportional) -> float:
        """Return the seconds at `x`: linear between points, flat below the first, growing as `law` beyond the last."""
        if x > self.x[-1]:
            return self.seconds[-1] * law(x) / law(self.x[-1])
        return float(np.interp(x, self.x, self.seconds))


@dataclass(frozen=True)
class Profile:
    """One GPU. Bandwidths in bytes/s, `flops_per_second` of 16-bit matrix products; curves hold measured seconds."""

    gpu: str
    source: Literal["measured", "datasheet"]
    hbm_bytes_per_second: float
    """Datasheet: the peak. Measured: bytes read and written by the largest copy on the device, per second."""
    link_bytes_per_second: float
    """Datasheet: the peak. Measured: what the largest copy from pinned host memory reached."""
    flops_per_second: float
    """The datasheet's peak in either profile."""
    copies: Curve | None = None
    """Bytes to seconds of one copy from pinned host memory, on one stream, in a row of such copies."""
    experts: Mapping[ExpertShape, Curve] = field(default_factory=dict)
    """Tokens to seconds of one expert."""
    attention: Mapping[AttentionShape, Mapping[int, Curve]] = field(default_factory=dict)
    """Seconds of attention over context in tokens, by shape and batch."""

    @property
    def optimistic(self) -> bool:
        """Return whether times are lower bounds: peak bandwidths, no latency, no launches."""
        return self.source == "datasheet"

    @property
    def roofline_basis(self) -> Basis:
        """Return what times by the roofline rest on: measured bandwidths or those of the datasheet."""
        return "datasheet" if self.optimistic else "measured bandwidth"

    def roofline_seconds(self, size: float, flops: float) -> float:
        """max(bytes / HBM, FLOPs / peak) of one operator that moves `size` bytes."""
        return max(size / self.hbm_bytes_per_second, flops / self.flops_per_second)

    def transfer_seconds(self, size: float, copies: float = 1) -> float:
        """Return the seconds of `copies` copies of `size` bytes each from the host, one after another."""
        if not size:
            return 0.0
        one = self.copies.at(size) if self.copies else size / self.link_bytes_per_second
        return copies * one

    def expert_seconds(
        self, hidden: int, inner: int, gated: bool, tokens: float, dtype_bytes: float = MEASURED_DTYPE_BYTES
    ) -> float:
        """Return the seconds of one expert that is handed `tokens` tokens; an average may be fractional."""
        shape = ExpertShape(hidden, inner, gated)

        def roofline(count: float) -> float:
            return self.weights_seconds(shape.parameters, count, dtype_bytes)

        if self.expert_basis(shape, dtype_bytes) == "measured":
            return self.experts[shape].at(tokens, roofline)
        return roofline(tokens)

    def expert_basis(self, shape: ExpertShape, dtype_bytes: float = MEASURED_DTYPE_BYTES) -> Basis:
        """Return what `expert_seconds` rests on for this shape and type: measurements or the roofline's basis."""
        return self._basis(shape in self.experts, dtype_bytes)

    def attention_seconds(
        self, shape: AttentionShape, batch: int, context: int, dtype_bytes: float = MEASURED_DTYPE_BYTES
    ) -> float:
        """Return the seconds of one layer's attention of a new token in each of `batch` sequences of `context` tokens.

        Projections are weights and not counted here. See attention_basis.
        """
        if self.attention_basis(shape, dtype_bytes) == "measured":
            by_batch = self.attention[shape]
            return Curve(tuple(by_batch), tuple(curve.at(context) for curve in by_batch.values())).at(batch)
        cached = batch * context
        return self.roofline_seconds(cached * shape.cached_values * dtype_bytes, cached * shape.flops)

    def attention_basis(self, shape: AttentionShape, dtype_bytes: float = MEASURED_DTYPE_BYTES) -> Basis:
        """Return what `attention_seconds` rests on for this shape and type: measurements or the roofline's basis."""
        return self._basis(shape in self.attention, dtype_bytes)

    def weights_seconds(self, parameters: float, tokens: float, dtype_bytes: float = MEASURED_DTYPE_BYTES) -> float:
        """Return the roofline seconds of products of `tokens` tokens with `parameters` weights, each read once."""
        return self.roofline_seconds(parameters * dtype_bytes, 2 * parameters * tokens)

    def _basis(self, measured: bool, dtype_bytes: float) -> Basis:
        return "measured" if measured and dtype_bytes == MEASURED_DTYPE_BYTES else self.roofline_basis


def datasheet_profile(gpu: str, spec: GpuSpec) -> Profile:
    """Return the profile of a GPU by the peaks of its datasheet, without latency."""
    return Profile(gpu, "datasheet", spec.hbm_gb_per_s * GB, spec.link_gb_per_s * GB, spec.peak_tflops * TFLOP)


def read_profile(folder: Path, gpu: str, spec: GpuSpec) -> Profile:
    """Read what a GPU does per second: measured where `folder`/<gpu>/ exists, else by its datasheet.

    Parameters
    ----------
    folder : Path
        The folder of measurements, one folder per GPU.
    gpu : str
        Name of the GPU.
    spec : GpuSpec
        Its datasheet, which a measured device must agree with in name and memory.

    Returns
    -------
    Profile
        Bandwidths in bytes/s, operations per second, and curves of measured seconds.

    Raises
    ------
    UserError
        Where the folder is unfinished, changed, of another device, or holds a time or size that is no number above 0.
    """
    if not (folder / gpu).exists():
        return datasheet_profile(gpu, spec)
    # Only a measured profile needs pandas, whose import takes a quarter of a second.
    from prophet_moe.hardware.recorded import read_recording

    recording = read_recording(folder / gpu, "hardware")
    check_device(recording, gpu, spec)
    recording.require(COLUMNS)
    _check_seconds(recording)
    copies = _copies(recording)
    return Profile(
        gpu,
        "measured",
        _device_bandwidth(recording),
        copies.x[-1] / copies.seconds[-1],
        spec.peak_tflops * TFLOP,
        copies,
        _experts(recording),
        _attention(recording),
    )


def check_device(recording: "Recording", gpu: str, spec: GpuSpec) -> None:
    """Refuse what another GPU measured: its name must have the words of the GPU's, and its memory must be alike."""
    machine = recording.metadata.get("machine")
    machine = machine if isinstance(machine, dict) else {}
    device, named = str(machine.get("device", "")), words_of(gpu, spec.device_words)
    where, other = recording.folder / "metadata.json", f"Move it to the folder of its GPU, or delete {recording.folder}"
    if not is_named(device, named):
        expected = f"expected a name with the word{'s' * (' ' in named)} {named}"
        raise UserError(f"{where}: machine.device", f"got {device!r}, {expected}", f"{other}.")
    memory, expected = machine.get("memory_bytes"), spec.memory_bytes("visible")
    if not has_memory(memory, expected):
        problem = f"got {memory}, expected about the {expected} of {gpu}"
        raise UserError(f"{where}: machine.memory_bytes", problem, f"{other}.")


def _check_seconds(recording: "Recording") -> None:
    """Refuse a row whose median is not a time above 0 between its quartiles."""
    times = recording.numbers(recording.rows, "seconds_low", "seconds", "seconds_high")
    disordered = ~times["seconds"].between(times["seconds_low"], times["seconds_high"])
    if disordered.any():
        row = times[disordered].iloc[0]
        problem = (
            f"seconds: got {row['seconds']:g}, expected between {row['seconds_low']:g} and {row['seconds_high']:g}"
        )
        raise recording.mistake(f"{recording.path}: line {row.name + 2}", problem)


def _copies(recording: "Recording") -> Curve:
    """Pinned copies to the device on one stream. Of one size measured twice, that of more copies in a row counts."""
    rows = recording.where(measurement="h2d", memory="pinned", streams="1", clock="event")
    sizes = recording.numbers(rows, "bytes", "seconds", "calls_per_sample")
    return _curve(sizes.sort_values("calls_per_sample").groupby("bytes")["seconds"].last())


def _device_bandwidth(recording: "Recording") -> float:
    """Return the bytes/s of the largest copy on the device, which reads and writes each of its bytes."""
    sizes = recording.numbers(recording.where(measurement="d2d"), "bytes", "seconds")
    largest = sizes.loc[sizes["bytes"].idxmax()]
    return float(2 * largest["bytes"] / largest["seconds"])


def _experts(recording: "Recording") -> dict[ExpertShape, Curve]:
    """Return the curves by shape; models that share a shape are samples of one time, whose median counts."""
    rows = _kernels(recording, "expert_ffn")
    numbers = recording.numbers(rows, "hidden", "inner", "tokens", "seconds").assign(
        gated=recording.flags(rows, "gated")
    )
    return {
        ExpertShape(int(hidden), int(inner), bool(gated)): _curve(of_shape.groupby("tokens")["seconds"].median())
        for (hidden, inner, gated), of_shape in numbers.groupby(list(ExpertShape._fields))
    }


def _attention(recording: "Recording") -> dict[AttentionShape, dict[int, Curve]]:
    """Return the curves by shape and batch, batches ascending; where several kernels were timed, of the fastest."""
    rows = _kernels(recording, "attention_decode")
    numbers = recording.numbers(rows, "heads", "kv_heads", "head_dim", "batch", "context", "seconds")
    numbers = numbers.join(recording.numbers(rows, "latent_values", zero=True))
    shapes: dict[AttentionShape, dict[int, Curve]] = {}
    for (*shape, batch), of_batch in numbers.groupby([*MEASURED_SHAPE, "batch"]):
        by_batch = shapes.setdefault(AttentionShape(*map(int, shape)), {})
        by_batch[int(batch)] = _curve(of_batch.groupby("context")["seconds"].min())
    return shapes


def _kernels(recording: "Recording", measurement: str) -> "pd.DataFrame":
    """Return the rows of a kernel: launched as a CUDA graph where any was, as serving engines do, else one by one."""
    rows = recording.where(measurement=measurement, dtype=MEASURED_DTYPE)
    graph = rows[rows["launch"] == "graph"]
    return rows if graph.empty else graph


def _curve(seconds: "pd.Series") -> Curve:
    return Curve(tuple(map(float, seconds.index)), tuple(map(float, seconds)))
