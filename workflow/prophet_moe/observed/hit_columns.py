"""Columns of files of observed hit rates, their units and bounds; the names are those of the gathered facts."""

from prophet_moe.tables import Column, integer, number, text

COLUMNS: tuple[Column, ...] = (
    text("id", "Id of the observation, unique in the file."),
    text("source", "Where it was published: owner/repo#number, or repository@commit and path."),
    text("engine", "Engine, or what took its place."),
    text("version", "Its version or date."),
    text("engine_kind", "in_graph_gather, host_managed, storage, hybrid or unstated: who serves a missing expert."),
    text("model", "Model as the source names it."),
    text("quantisation", "Format of the weights in the source's words."),
    integer("experts_per_layer", "", "Routed experts per MoE layer, E."),
    integer("top_k", "", "Routed experts that one token uses, k, in that run."),
    integer("moe_layers", "", "Layers with routed experts."),
    text("gpu", "GPU as the source names it."),
    text("link", "Link between the experts and the GPU in the source's words."),
    integer("slots", "", "Size of the cache in `slots_unit`, of a layer or of all (`slots_scope`)."),
    text("slots_unit", "experts, projections (three of an expert), matrices (of an expert) or bytes."),
    text("slots_scope", "per_layer or global."),
    number("resident_share", "", "Experts that the cache holds, over all experts."),
    text("policy", "Replacement policy in the source's words."),
    integer("batch", "", "Sequences decoded together."),
    number("hit_rate", "", "Requests for an expert that found it, over all requests."),
    text("hit_kind", "counter (of the engine), replay (of a trace), oracle (static, same trace), static, other."),
    integer("tokens", "tokens", "Decode tokens of each sequence that are counted."),
    text("start", "cold or warm: whether the cache was empty at the first of them."),
    text("lookup", "ask or request: whether the experts of a token are looked up together."),
    number("tokens_per_s", "tok/s", "Tokens per second of all sequences together."),
    number("tokens_per_s_resident", "tok/s", "The same with every expert resident."),
    number("tokens_per_s_no_cache", "tok/s", "The same without a cache."),
    number("expert_mb", "MB", "Bytes of one expert."),
    number("link_gb_per_s", "GB/s", "Rate at which missing experts come."),
    text("link_basis", "Where the rate comes from."),
    text("link_from", "Id of the row whose run fixes the rate; empty where it was measured or is the datasheet's."),
    number("cpu_gb_per_s", "GB/s", "Rate at which the CPU computes missing experts while the link brings others."),
    text("cpu_basis", "Where the rate comes from."),
    number("resident_ms", "ms", "Time of a step without misses, or its bound by datasheet bandwidth."),
    text("resident_basis", "Where that comes from; `bound: ...` for a bound, of which an estimate is made."),
    text("prefill", "through, through_by_id, stream, stream_missing, bypass, cpu: see docs/simulation.md, Prompts."),
    integer("prompt_tokens", "tokens", "Tokens of the prompt, computed at once."),
    number("prefill_ms", "ms", "Time of the prompt."),
    number("prefill_resident_ms", "ms", "The same with every expert resident; empty: not stated, the rest is a bound."),
    text("session", "Dataset of config/datasets.yaml that records the run itself."),
    text("left_out", "Quantities that must not be used and why: `hit_rate: reason; tokens_per_s: reason`."),
    text("inferred", "Columns that the source does not state, with spaces between."),
    text("prompt_kind", "Kind of text that was decoded."),
    text("notes", "What a reader should know."),
)
REQUIRED = ("id", "source", "engine", "model")
"""Columns that every file has, without empty cells."""
BOUNDS = {
    **dict.fromkeys(("hit_rate", "resident_share"), (0.0, 1.0)),
    **dict.fromkeys(("experts_per_layer", "moe_layers"), (1, 4096)),
    "top_k": (1, 64),
    **dict.fromkeys(("batch", "tokens", "prompt_tokens"), (1, 1e9)),
    **dict.fromkeys(("tokens_per_s", "tokens_per_s_resident", "tokens_per_s_no_cache"), (1e-6, 1e9)),
    **dict.fromkeys(("expert_mb", "link_gb_per_s", "cpu_gb_per_s"), (1e-6, 1e6)),
    **dict.fromkeys(("prefill_ms", "prefill_resident_ms"), (1e-6, 1e9)),
    **dict.fromkeys(("slots", "resident_ms"), (0.0, 1e15)),
}
"""Lowest and highest possible values by column."""
WORDS = {
    "start": ("cold", "warm"),
    "lookup": ("ask", "request"),
    "prefill": ("through", "through_by_id", "stream", "stream_missing", "bypass", "cpu"),
}
"""Words that a cell may hold, beside none."""
