"""Named columns: which of a file's columns say what, by a table of known names or by the command line."""

import re
from collections import Counter
from pathlib import Path

from prophet_moe.routing.importers.reading import fault

KNOWN = {
    "sequence": ("sequence", "sequence_id", "seq", "seq_id", "request", "request_id", "turn"),
    "token": ("token", "token_idx", "token_index", "token_pos", "position", "pos", "step"),
    "layer": ("layer", "layer_idx", "layer_index", "layer_id", "il"),
    "rank": ("rank", "slot"),
    "experts": (
        "experts",
        "expert",
        "expert_ids",
        "expert_id",
        "expert_idx",
        "selected_experts",
        "selected_ids",
        "topk_ids",
        "ids",
    ),
    "weights": ("weights", "weight", "gate_weights", "gate_weight", "gates", "gate", "selected_probs", "probs", "prob"),
    "phase": ("phase",),
    "hit": ("hit", "hits", "residency", "resident", "cached"),
    "k": ("n", "k", "top_k"),
}
"""Names of columns by what they say, all in lower case."""
NUMBERED = {"experts": ("e", "expert", "expert_", "id", "id_"), "weights": ("w", "weight", "weight_", "p", "prob_")}
"""What stands before the number in the names of k columns, e0 to e7."""
COLUMNS = 10_000
"""Columns that a file may have."""
MOST = 1024
"""Columns that one range may name."""

Roles = dict[str, list[str]]
"""Names of columns by what they say: more than one for the k columns of experts and of weights."""


def roles_of(names: list[str], chosen: str | None, where: str | Path) -> Roles:
    """Return what the columns `names` say; `chosen`, such as token=pos,experts=e0..e5, goes before the known names."""
    if len(names) > COLUMNS:
        raise fault(where, f"has {len(names)} columns, expected at most {COLUMNS}")
    if twice := next((name for name, times in Counter(names).items() if times > 1), None):
        raise fault(where, f"has the column {twice[:40]!r} twice")
    roles = {role: found for role in KNOWN if (found := _found(role, names, where if not chosen else None))}
    given: set[str] = set()
    for item in (chosen or "").split(",") if chosen else []:
        role, equals, wanted = item.partition("=")
        if not equals or role not in KNOWN:
            raise fault("--columns", f"got {item!r}, expected <name>=<column> with a name of {', '.join(KNOWN)}")
        if role in given:
            raise fault("--columns", f"gives {role} twice")
        roles[role] = _named(wanted, names)
        given.add(role)
    roles = {role: found for role, found in roles.items() if found}
    for role, found in roles.items():
        if len(found) > 1 and role not in NUMBERED:
            raise fault(where, f"columns {' and '.join(found)} both may say the {role}: choose, --columns {role}=NAME")
    used = Counter(name for found in roles.values() for name in found)
    if shared := next((name for name, times in used.items() if times > 1), None):
        said = " and ".join(role for role, found in roles.items() if shared in found)
        raise fault("--columns", f"lets the column {shared!r} say {said}")
    for role in ("layer", "experts"):
        if role not in roles:
            shown = ", ".join(map(repr, names[:12]))
            raise fault(where, f"has columns {shown}, none of them known for {role}: add --columns {role}=NAME")
    return roles


def _found(role: str, names: list[str], where: str | Path | None) -> list[str]:
    """Return the columns that say `role` by their names."""
    plain = [name for name in names if name.lower() in KNOWN[role]]
    numbered = [_numbers(names, stem) for stem in NUMBERED.get(role, ())]
    found = [columns for columns in numbered if columns]
    if where is not None and len(found) + len(plain) > 1 and role in NUMBERED:
        columns = ", ".join(plain + [columns[0] for columns in found])
        raise fault(where, f"columns {columns} all may say the {role}: choose, --columns {role}=NAME")
    return found[0] if found else plain


def _numbers(names: list[str], stem: str) -> list[str]:
    """Return the columns <stem>0, <stem>1, ... in that order, from 0 or 1 on."""
    numbers = {int(match[1]): name for name in names if (match := re.fullmatch(f"{stem}([0-9]{{1,4}})", name.lower()))}
    ordered = sorted(numbers)
    whole = ordered and ordered[0] < 2 and ordered[-1] - ordered[0] == len(ordered) - 1
    return [numbers[number] for number in ordered] if whole else []


def _named(wanted: str, names: list[str]) -> list[str]:
    """Return the columns of one item of the command line: nothing, a name, or a range e0..e5."""
    match = re.fullmatch(r"(.*?)([0-9]{1,9})\.\.(.*?)([0-9]{1,9})", wanted)
    if not wanted:
        return []
    if not match:
        found = [wanted]
    elif match[1] == match[3] and 0 <= int(match[4]) - int(match[2]) < MOST:
        found = [f"{match[1]}{number}" for number in range(int(match[2]), int(match[4]) + 1)]
    else:
        raise fault("--columns", f"got {wanted!r}, expected an ascending range such as e0..e5")
    if lacking := next((name for name in found if name not in names), None):
        raise fault("--columns", f"names {lacking!r}, the file has {', '.join(map(repr, names[:12]))}")
    return found
