"""A model with random weights, and the passes through it."""

from typing import Any

import torch
import transformers
from transformers.cache_utils import Cache

from prophet_moe.collect import machine
from prophet_moe.collect.memory.caches import stretched
from prophet_moe.collect.memory.plan import ModelPlan, configuration

PROBE_TOKENS = 8
"""Length of the first pass, whose cache is the template of larger ones, and of every encoder's input beside it."""


def build(name: str, model: ModelPlan, device: torch.device) -> transformers.PreTrainedModel:
    """Return the model with random weights, made on `device`; on the meta device nothing is allocated."""
    config = configuration(name, model)
    kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    with device:
        return kind.from_config(config, dtype=getattr(torch, model.dtype)).eval().requires_grad_(False)


class Subject:
    """A model on the device, and the passes through it."""

    def __init__(self, name: str, plan: ModelPlan) -> None:
        """Make the model on the first GPU, else on the CPU."""
        self.template: Cache | None = None
        self.device = machine.device()
        self.model = build(name, plan, self.device)
        self.encodes = self.model.config.is_encoder_decoder

    def first_passes(self) -> None:
        """Load kernels and libraries, cast what the class casts once, and keep a cache of one sequence as template."""
        self.template = self.run(self.reading(1, PROBE_TOKENS))
        self.run(self.stepping(1, PROBE_TOKENS))

    @torch.no_grad()
    def run(self, inputs: dict[str, Any]) -> Cache:
        """Return one pass with the logits of the last position; what the model keeps of it."""
        # Inference mode would hide operators that are made of others from LiveTensors.
        last_logits = {} if self.encodes else {"logits_to_keep": 1}
        cache = self.model(**inputs, **last_logits).past_key_values
        if machine.on_gpu():
            torch.cuda.synchronize()
        return cache

    def reading(self, batch: int, tokens: int, target: int = 1) -> dict[str, Any]:
        """Return the inputs that prefill `tokens` per sequence; an encoder reads them, its decoder `target` tokens."""
        inputs = {"input_ids": self._ids(batch, tokens)}
        return inputs | {"decoder_input_ids": self._ids(batch, target)} if self.encodes else inputs

    def stepping(self, batch: int, context: int) -> dict[str, Any]:
        """Return the inputs that decode one token per sequence after `context` tokens."""
        cache = {"past_key_values": stretched(self.template, batch, context)}
        if not self.encodes:
            return {"input_ids": self._ids(batch, 1)} | cache
        encoded = self.model.get_encoder()(input_ids=self._ids(batch, PROBE_TOKENS))
        return {"decoder_input_ids": self._ids(batch, 1), "encoder_outputs": encoded} | cache

    def _ids(self, batch: int, tokens: int) -> torch.Tensor:
        return torch.randint(self.model.config.vocab_size, (batch, tokens), device=self.device)

    def labels(self) -> dict[str, Any]:
        """Return the columns that name the model's layers, type and implementations."""
        config = self.model.config
        return {
            "layers": config.num_hidden_layers,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "attention": config._attn_implementation,
            "experts": config._experts_implementation,
        }


def parameter_sizes(model: torch.nn.Module) -> dict[str, int]:
    """Return the number and bytes of parameters, tied ones once, in all and of the routed experts; bytes of buffers."""
    parameters = dict(model.named_parameters())
    experts = [parameter for path, parameter in parameters.items() if ".experts." in path]
    return {
        "parameters": sum(parameter.numel() for parameter in parameters.values()),
        "parameter_bytes": sum(parameter.nbytes for parameter in parameters.values()),
        "expert_parameters": sum(parameter.numel() for parameter in experts),
        "expert_parameter_bytes": sum(parameter.nbytes for parameter in experts),
        "buffer_bytes": sum(buffer.nbytes for buffer in model.buffers()),
    }
