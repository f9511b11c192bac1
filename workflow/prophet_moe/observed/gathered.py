"""Rows as people gather them, in words of the sources, turned into the columns of observations.

`hit_rates` reads sizes such as `2000 MiB`, links such as `PCIe 4.0 x16`, and policies whose words say that a row is no
cache that replaces. `times` computes a time from a printed rate. `routing` takes the columns of statistics that were
computed elsewhere. What a file states in its own column is never replaced.
"""

import re
from collections.abc import Callable, Mapping

Cells = dict[str, str]

OF_TIMES = r"table|unique_experts|layers|(weights|experts|attention|head|all_reduce)_ms"
"""Further columns of times: parts of a prediction that was made elsewhere."""
OF_ROUTING = r"licence_of_source|(law_[\d.]+|uniform)_u_\d+|.*(error_percent|fits_best).*"
"""Further columns of routing: laws that were fitted elsewhere."""

BYTES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "MB": 10**6, "GB": 10**9}
PCIE_GB_PER_S = {"3": 15.75, "4": 31.5, "5": 63.0}
"""Datasheet bandwidth of 16 lanes by generation."""
LINK_SHARE = 0.8
"""What copies reach of it: see `pinned` in config/links.yaml."""
COUNTED = ("gpus", "tp", "ep", "batch", "input_len", "output_len")
"""Columns of times in which words such as `not stated` leave a number open."""
JUDGED = {"true": "1", "yes": "1", "false": "0", "no": "0"}
MILLISECONDS = {"ms": 1.0, "us": 1e-3, "s": 1e3}


def _first(text: str, patterns: Mapping[str, str], otherwise: str = "") -> str:
    """Return what the first pattern that is found stands for."""
    return next((found for pattern, found in patterns.items() if re.search(pattern, text, re.IGNORECASE)), otherwise)


def _filled(cells: Cells, **more: Callable[[], str]) -> Cells:
    """Return cells with further ones in place of empty ones."""
    return {**cells, **{name: cells.get(name) or value() for name, value in more.items()}}


# Times


def times(cells: Cells) -> Cells:
    """Return a row of times with the kind of its quantity and its time of one step, where the row has neither."""
    clean = cells.get("clean", "").strip().lower()
    stated = {name: cells[name] for name in COUNTED if _number(cells.get(name, "")) is not None}
    cells = {**cells, **dict.fromkeys(COUNTED, ""), **stated, "clean": JUDGED.get(clean, clean)}
    cells = _filled(cells, kind=lambda: _kind_of_time(cells))
    return _filled(cells, measured_ms=lambda: _milliseconds(cells), context_assumed=lambda: _context(cells))


def _kind_of_time(cells: Cells) -> str:
    if cells.get("hit_rate") or cells.get("missing_gb_per_token"):
        return "offload"
    named = cells.get("quantity", "")
    step = r"^$|tpot|itl|decode|\btg\d*|token|step|eval time"
    return "e2e decode" if re.search(step, named, re.IGNORECASE) else "other"


def _milliseconds(cells: Cells) -> str:
    """Return the time of a step: a printed time, or of a rate what a batch takes for a token each."""
    value, unit = _number(cells.get("value", "")), cells.get("unit", "")
    if value is None or value <= 0:
        return ""
    if unit in MILLISECONDS:
        return repr(value * MILLISECONDS[unit])
    if unit not in ("tok/s", "tokens/s"):
        return ""
    together = _number(cells.get("batch", "")) or 1.0
    whole = together if re.search("of all|total|aggregate", cells.get("quantity", "")) else 1.0
    return repr(1e3 * whole / value)


def _context(cells: Cells) -> str:
    """Return the context in the middle of the answer."""
    prompt, answer = _number(cells.get("input_len", "")), _number(cells.get("output_len", ""))
    return "" if prompt is None else repr(prompt + (answer or 0.0) / 2)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


# Hit rates

ENGINE_KINDS = {
    r"cpu computes|on the cpu|hybrid": "hybrid",
    r"gather kernel|device-managed": "in_graph_gather",
    r"host-managed": "host_managed",
    r"nvme|ssd|ufs|mmap|direct i/o|o_direct|side file|disk": "storage",
}
"""Who serves a missing expert, by words of the policy, the link and the cache."""
HIT_KINDS = {
    "oracle": "oracle",
    "static": "static",
    "replay": "replay",
    "layers": "other",
    r"measured|counter": "counter",
}
UNITS = {"projection": "projections", "matrices|both cards": "matrices", "byte": "bytes"}
WARM = r"\bwarm\b(?!-up)"
NO_CACHE = {
    r"oracle|static": "a static set, not a cache that replaces",
    r"pinned|pins|three tiers|resident fraction": "part of the cache is pinned",
    r"all tiers": "hits of several tiers counted together",
    r"share of layers": "a share of layers, not of experts",
    r"cpu computes|hybrid|admitted|on the cpu|capped|swaps": "not every miss enters the cache",
    r"specul|predict|prefetch": "prefetches",
    r"lfu|lfru|lrc|frequency|gated|victim|protected": "replaces by other than the last use",
    r"inert|no cache": "no cache",
    r"materialised|dict cache|page cache": "replacement not stated exactly",
}
"""Why a hit rate is not that of a cache that replaces the least recently used expert, by words of the policy."""
UNNAMED = r"^\s*$|unnamed|unstated"


def hit_rates(cells: Cells) -> Cells:
    """Return a row of hit rates with sizes as numbers, and with what its words say where a cell is empty."""
    words = " ".join(cells.get(name, "") for name in ("policy", "hit_kind", "slots_scope"))
    kept = re.search(r"(?<![\d.])(\d+(?:\.\d+)?) ?([KMG]i?B)\b", cells.get("slots", ""))
    scope, prompt = cells.get("slots_scope", ""), cells.get("prompt_kind", "")
    judged = "left_out" in cells
    filled = _filled(
        cells,
        engine_kind=lambda: _first(f"{words} {cells.get('link', '')}", ENGINE_KINDS, "unstated"),
        slots_unit=lambda: "bytes" if kept else _first(scope, UNITS, "experts" if cells.get("slots") else ""),
        start=lambda: "warm" if re.search(WARM, prompt) else "cold",
        tokens=lambda: _counted(prompt),
        link_gb_per_s=lambda: _link(cells.get("link", "")),
        cpu_gb_per_s=lambda: _cpu(cells.get("link", "")),
        left_out=lambda: "" if judged else _left_out(cells, words),
    )
    filled["hit_kind"] = _first(cells.get("hit_kind", ""), HIT_KINDS, cells.get("hit_kind", ""))
    filled["slots_scope"] = _first(scope, {"^per.layer": "per_layer", "global": "global"})
    filled["slots"] = _slots(cells.get("slots", ""), kept)
    filled["resident_share"] = cells.get("resident_share") or _share(filled)
    batch = cells.get("batch", "")
    if _number(batch) is None and batch:
        filled.update(batch="", left_out="all: the batch size is not stated")
    return filled


def _slots(text: str, kept: re.Match | None) -> str:
    """Return a size as a whole number of its unit; empty where words do not give one."""
    if kept and re.match(r"~?\d", text) and "-" not in text:
        return str(round(float(kept[1]) * BYTES.get(kept[2], BYTES["GB"])))
    return text if _number(text) is not None else ""


def _share(cells: Cells) -> str:
    """Return the share of the experts that slots hold, where they are experts or projections of known layers."""
    slots, experts = _number(cells.get("slots", "")), _number(cells.get("experts_per_layer", ""))
    layers = _number(cells.get("moe_layers", "")) if cells["slots_scope"] == "global" else 1.0
    per_expert = {"experts": 1, "projections": 3}.get(cells["slots_unit"])
    if not (slots is not None and experts and layers and per_expert):
        return ""
    return repr(min(1.0, slots / per_expert / experts / layers))


def _counted(prompt: str) -> str:
    """Return the tokens that a text tells were decoded, such as `9 prompts, 512 tokens`; empty where it does not."""
    counts = re.findall(r"(\d+)(?:-token|K| ?x \d+)? (?:\w+ )?(?:tokens|decode steps|steps)(?! of KV| at)", prompt)
    return counts[-1] if counts and 0 < int(counts[-1]) <= 4096 else ""


def _link(text: str) -> str:
    """Return a rate that words state in GB/s, else what copies reach of a PCIe link whose generation they state."""
    stated = re.search(r"(\d+(?:\.\d+)?) ?GB/s", text)
    if stated:
        return stated[1]
    pcie = re.search(r"PCIe ?([345])(?:\.0)?(?:,? x(\d+))?", text)
    return repr(LINK_SHARE * PCIE_GB_PER_S[pcie[1]] * int(pcie[2] or 16) / 16) if pcie else ""


def _cpu(text: str) -> str:
    """Return what the CPU adds to a stated link, of words such as `26.1 GB/s; PCIe + CPU 119.5 GB/s`."""
    link = re.search(r"^[^+]*?(\d+(?:\.\d+)?) ?GB/s", text)
    both = re.search(r"\+ CPU (\d+(?:\.\d+)?) ?GB/s", text)
    return f"{float(both[1]) - float(link[1]):.6g}" if link and both else ""


def _left_out(cells: Cells, words: str) -> str:
    """Return why quantities of a row must not be used, by its words."""
    if re.search(UNNAMED, cells.get("model", "")):
        return "all: the model is not named"
    reasons = [("hit_rate", _first(words, NO_CACHE))]
    slots = cells.get("slots", "") or cells.get("resident_share", "")
    if not reasons[0][1] and _number(slots) == 0:
        reasons = [("hit_rate", "no cache")]
    if re.search(r"cpu computes|hybrid|on the cpu", words, re.IGNORECASE):
        stated = cells.get("cpu_gb_per_s") or _cpu(cells.get("link", ""))
        reasons.append(("tokens_per_s", "" if stated else "hybrid: the rate of its CPU is not stated"))
    elif re.search(r"all tiers", words):
        reasons.append(("tokens_per_s", "hits of several tiers counted together"))
    elif re.search(r"specul|predict|prefetch", words, re.IGNORECASE):
        reasons.append(("tokens_per_s", "prefetches"))
    return "; ".join(f"{quantity}: {reason}" for quantity, reason in reasons if reason)


# Routing

BALANCING = {r"bias": "bias", r"global": "global_batch_loss", r"aux": "auxiliary_loss"}
KNOWN_BALANCING = ("auxiliary_loss", "global_batch_loss", "bias", "unknown")


def routing(cells: Cells) -> Cells:
    """Return a row of routing with the class of its balancing and its licence, whatever their columns are called."""
    named = cells.get("balancing", "")
    cells = _filled(cells, licence=lambda: cells.get("licence_of_source", ""), balancing_detail=lambda: named)
    known = named if named in KNOWN_BALANCING else _first(named, BALANCING, "unknown")
    return {**cells, "balancing": known}
