"""The page docs/engines.md: every key of an engine's profile, and every term of the profiles with its source."""

from collections.abc import Mapping

from prophet_moe.catalog.engine import SECTIONS, EngineSpec, Evidence, ExpertPadding
from prophet_moe.catalog.names import ModelName
from prophet_moe.present.keys import field_table

PAGE = """\
# Engines

Made from `workflow/prophet_moe/catalog/engine.py` and `config/engines/` by `prophet-moe config write`.
A test fails when they differ.

A serving engine holds more than the bare weights and caches of a model. A profile of `config/engines/` names what, term
by term, each with its source and with the observations that fixed it (`resources/observations/memory.csv`). The option
`--engine` of `prophet-moe capacity` prints the budget of a GPU under a profile line by line. The scenario key `engine`
names the profile of a scenario, and every study of that scenario sizes memory by it (`config/overlays/vllm.yaml`), but
for those of memory that was measured without an engine. An unknown key is an error, and so is a term without a source.
A profile of your own is a YAML file anywhere, named by `--engine`, or a file of `config/engines/`.

A term with rows was fitted to them, or was checked against them where it comes from the engine's source. A fitted term
is the middle of several rows. `prophet-moe observe check` prints the errors that are left.

| profile | engine and versions | from | before |
|---|---|---|---|
{profiles}
## Keys of a profile

{keys}{sections}
### `evidence`

{evidence}
### `weights.padding`

{padding}
## Names of models

`config/model_names.yaml` says which model of the catalogue has the layers of a checkpoint of another name, and what the
checkpoint has of its own.

{names}
## The profiles
{terms}"""


def engines_page(engines: Mapping[str, EngineSpec]) -> str:
    """Return docs/engines.md: every key of a profile, and every term of every profile with its source."""
    listed = "".join(
        f"| `{name}` | {spec.title} | {spec.since or 'the first'} | {spec.before or 'open'} |\n"
        for name, spec in engines.items()
    )
    sections = "".join(f"\n### `{name}`\n\n{kind.__doc__}\n\n{field_table(kind)}" for name, kind in SECTIONS.items())
    return PAGE.format(
        profiles=listed,
        keys=field_table(EngineSpec),
        sections=sections,
        evidence=field_table(Evidence),
        padding=field_table(ExpertPadding),
        names=field_table(ModelName),
        terms="".join(_profile(name, spec) for name, spec in engines.items()),
    )


def _profile(name: str, spec: EngineSpec) -> str:
    rows = "".join(
        f"| `{term}` | {_shown(spec.term(term))} | {spec.evidence[term].source} | "
        f"{', '.join(spec.evidence[term].rows)} |\n"
        for term in spec.given_terms()
    )
    return f"\n### {name}\n\n{spec.title}.\n\n| term | value | source | rows |\n|---|---|---|---|\n{rows}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {padding.hidden} x {padding.ffn}" for name, padding in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
