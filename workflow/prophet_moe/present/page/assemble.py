"""Put the page together: the template, its style and glue, and the JavaScript of its libraries, in one file."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from prophet_moe.present.page.outputs import data_uri

HERE = Path(__file__).parent
PARTS = tuple(HERE / name for name in ("page.html.j2", "page.css", "page.js"))
"""What the page is made from beside code: its template, style and glue."""


def render(content: dict[str, Any]) -> str:
    """Return the whole page; a placeholder of the template that `content` lacks is a programmer's mistake."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"prose": prose, "embedded": embedded}
    return environment.get_template(PARTS[0].name).render(content | _libraries() | _own())


def prose(text: str) -> Markup:
    """Return a text of Markdown as HTML: `code` is kept, and of a [link](to a file) its words, for it is not here."""
    words = re.sub(r"\[([^]]+)]\([^)]+\)", r"\1", text)
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(words))))


def embedded(content: Any) -> Markup:
    """Return JSON that can stand in an element `script`."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("</", "<\\/"))


def _libraries() -> dict[str, Markup]:
    """Return the JavaScript of the charts and of the tables, and the style of the tables."""
    import vl_convert  # a large library, which nothing else needs

    charts = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", _vega_lite())
    folder = files("itables") / "html"
    tables = data_uri((folder / "dt_bundle.js").read_bytes(), "text/javascript")
    style = (folder / "dt_bundle.css").read_text(encoding="utf-8")
    return {
        "vega": Markup(charts.replace("</script", "<\\/script")),
        "datatables": Markup(tables),
        "datatables_css": Markup(style),
    }


def _vega_lite() -> str:
    """Return the version of Vega-Lite that specifications are written for, such as 6.1."""
    import altair

    return ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


def _own() -> dict[str, Markup]:
    _, style, script = (Markup(path.read_text(encoding="utf-8")) for path in PARTS)
    return {"css": style, "script": script}
