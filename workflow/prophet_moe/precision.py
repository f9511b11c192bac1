"""Formats of weights and caches by name, with their scales and padding, which memory and time must count alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Literal

WeightFormat = Literal[
    "fp32",
    "bf16",
    "fp8_tensor",
    "fp8_channel",
    "fp8_block128",
    "mxfp8",
    "mxfp4",
    "nvfp4",
    "int8",
    "int4_group32",
    "int4_group32_zero",
    "int4_group128",
    "int4_group128_zero",
    "q8_0",
    "q6_k",
    "q4_k",
]
"""Names of formats of weights; FORMATS says what each is."""
KvFormat = Literal["fp32", "bf16", "fp8", "q8_0", "fp8_sparse_mla"]
"""Names of formats of the KV cache; KV_FORMATS says what each is."""
StateFormat = Literal["own", "fp32", "bf16"]
"""Names of formats of a recurrent state; `own` is what the mixer says, fp32 for nearly all."""
MlaCache = Literal["latent", "decompressed"]
"""What multi-head latent attention caches: one latent per token, or the expanded keys and values of every head."""


@dataclass(frozen=True)
class Format:
    """How the numbers of a matrix are stored: their bits, and a scale for every block of them."""

    bits: int
    """Bits of a number."""
    block_rows: int | None = None
    """Rows that share a scale; None: all."""
    block_columns: int | None = None
    """Columns that share a scale; None: all."""
    scale_bits: int = 0
    """Bits of what every block has beside its numbers: a scale, and a zero point where there is one."""
    matrix_bits: int = 0
    """Bits that every matrix has once, such as a second scale."""
    padded: bool = False
    """Whether a block that a row does not fill is stored whole."""
    says: str = ""
    """The format in words, with its source."""

    def bytes(self, rows: int, columns: int) -> int:
        """Return the bytes of a matrix of `rows` outputs and `columns` inputs, its scales and padding included."""
        blocks_down = 1 if self.block_rows is None else -(-rows // self.block_rows)
        blocks_across = 1 if self.block_columns is None else -(-columns // self.block_columns)
        stored = rows * blocks_across * self.block_columns if self.padded else rows * columns
        bits = stored * self.bits + blocks_down * blocks_across * self.scale_bits + self.matrix_bits
        return -(-bits // 8)


def _rows(columns: int, **more: int | bool | str) -> Mapping:
    return {"block_rows": 1, "block_columns": columns, **more}


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "fp32": Format(32, says="32-bit floats"),
        "bf16": Format(16, says="16-bit floats, bf16 or fp16"),
        "fp8_tensor": Format(8, scale_bits=32, says="8-bit floats, one fp32 scale a matrix"),
        "fp8_channel": Format(8, 1, None, 32, says="8-bit floats, one fp32 scale an output"),
        "fp8_block128": Format(
            8, 128, 128, 32, says="8-bit floats, one fp32 scale per 128 x 128 (DeepSeek-V3, arXiv 2412.19437)"
        ),
        "mxfp8": Format(8, **_rows(32, scale_bits=8), says="8-bit floats, one 8-bit exponent per 32 (OCP MX 1.0)"),
        "mxfp4": Format(4, **_rows(32, scale_bits=8), says="4-bit floats, one 8-bit exponent per 32 (OCP MX 1.0)"),
        "nvfp4": Format(
            4, **_rows(16, scale_bits=8, matrix_bits=32), says="4-bit floats, one fp8 scale per 16, one fp32 a matrix"
        ),
        "int8": Format(8, 1, None, 16, says="8-bit integers, one 16-bit scale an output"),
        "int4_group32": Format(4, **_rows(32, scale_bits=16), says="4-bit integers, one 16-bit scale per 32"),
        "int4_group32_zero": Format(
            4, **_rows(32, scale_bits=20), says="4-bit integers, a 16-bit scale and a 4-bit zero point per 32"
        ),
        "int4_group128": Format(4, **_rows(128, scale_bits=16), says="4-bit integers, one 16-bit scale per 128"),
        "int4_group128_zero": Format(
            4, **_rows(128, scale_bits=20), says="4-bit integers, a 16-bit scale and a 4-bit zero point per 128"
        ),
        "q8_0": Format(
            8, **_rows(32, scale_bits=16, padded=True), says="GGUF Q8_0: 34 bytes per 32 (llama.cpp, ggml-common.h)"
        ),
        "q6_k": Format(
            6, **_rows(256, scale_bits=144, padded=True), says="GGUF Q6_K: 210 bytes per 256 (llama.cpp, ggml-common.h)"
        ),
        "q4_k": Format(
            4, **_rows(256, scale_bits=128, padded=True), says="GGUF Q4_K: 144 bytes per 256 (llama.cpp, ggml-common.h)"
        ),
    }
)
"""Formats of weights by name."""


@dataclass(frozen=True)
class CacheFormat:
    """How the values of a KV cache are stored."""

    bits: int
    """Bits of a value."""
    block: int = 1
    """Values that share a scale; the last block of a vector is stored whole."""
    scale_bits: int = 0
    """Bits of the scale of a block."""
    says: str = ""
    """The format in words, with its source."""

    def bits_of(self, values: int) -> int:
        """Return the bits of one vector of `values`."""
        blocks = -(-values // self.block)
        return blocks * (self.block * self.bits + self.scale_bits)


KV_FORMATS: Mapping[str, CacheFormat] = MappingProxyType(
    {
        "fp32": CacheFormat(32, says="32-bit floats"),
        "bf16": CacheFormat(16, says="16-bit floats, bf16 or fp16"),
        "fp8": CacheFormat(8, says="8-bit floats; their scales are one or a few numbers a layer"),
        "q8_0": CacheFormat(8, 32, 16, "GGUF Q8_0: 8.5 bits, 34 bytes per 32 values (llama.cpp, ggml-common.h)"),
        "fp8_sparse_mla": CacheFormat(
            8, says="sparse MLA of vLLM: a latent of 8-bit floats with one fp32 scale per 128, its rotary key of 16 "
            "bits, an index key of 8-bit floats with one fp32 scale; 656 and 132 bytes for DeepSeek-V3.2"
        ),
    }
)  # fmt: skip
"""Formats of KV caches by name."""

STATE_BITS: Mapping[str, int] = MappingProxyType({"fp32": 32, "bf16": 16})
"""Bits of a value of a recurrent state by format."""


@dataclass(frozen=True)
class Precision:
    """Formats of weights by component, of the KV cache and of recurrent states.

    Whatever counts bytes or seconds takes this one value, so that no number has one size in memory and another in time.
    """

    default: WeightFormat = "bf16"
    """Format of the matrices of all components that `components` does not name."""
    components: Mapping[str, WeightFormat] = field(default_factory=dict, hash=False)
    """Formats of single components."""
    kv: KvFormat = "bf16"
    """Format of the KV cache."""
    state: StateFormat = "own"
    """Format of recurrent states. The windows of their convolutions have 16 bits."""
    mla_cache: MlaCache = "latent"

    def format_of(self, component: str, part: str = "") -> Format:
        """Return the format of the matrices of a component, or of a part of it that has a format of its own."""
        return FORMATS[self.components.get(part) or self.components.get(component, self.default)]

    @property
    def kv_value_bytes(self) -> Fraction:
        """Return the bytes per value of a KV cache, scales included: of one whole block of values."""
        kv = KV_FORMATS[self.kv]
        return Fraction(kv.bits_of(kv.block), 8 * kv.block)

    def named(self) -> str:
        """Return the formats in words, for people."""
        parts = [f"{component} {name}" for component, name in self.components.items() if name != self.default]
        return ", ".join([f"weights {self.default}", *parts, f"KV cache {self.kv}"])


BF16 = Precision()
"""Weights and caches of 16 bits, recurrent states of 32 and the latent of MLA."""
