"""Draw docs/architecture.svg from the code: `python docs/draw_architecture.py`.

Stages are the files that the Snakefile includes, with their rules. Studies are the folders of workflow/studies/. The
rooms of the library lie in the layers of the import contract in pyproject.toml. An arrow leads from a room to one that
it imports; an import that follows from others by way of a third room is left out, and so are those of the foundation.
"""

import ast
import re
import textwrap
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import grimp
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve

from prophet_moe.present.save import save_drawing

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs/architecture.svg"

WIDTH = 8.6
ROOM, LANE, GAP = 2.0, 0.14, 0.18
"""Widths of a room and of the lane of an arrow that passes a layer, and the gap between them, inches."""
HIGH, BETWEEN = 0.46, 0.28
"""Height of a room, and of the gap between layers."""
LOWEST = "catalog"
"""The lowest room with arrows: those of the layers below it are the foundation, which all others use."""
COLUMNS = {"studies": 4, "foundation": 6}
"""Boxes in a line."""
BAND = 0.34
"""Height of the title of a part."""
COLOURS = {
    "stage": "#e4efe2",
    "study": "#fbeed3",
    "room": "#e3ecf6",
    "foundation": "#ececec",
    "edge": "#5b6b7b",
    "text": "#222222",
}
NAME, LINE = 0.135, 0.105
"""Heights of the name in a box, and of a line below it."""
PAUSE = 0.32
"""Height of the arrow between two parts."""
SWEEPS = 24
"""Times that the layers are ordered, downwards and upwards."""


@dataclass(frozen=True)
class Box:
    """A box of the drawing: its centre, its width and its height."""

    x: float
    y: float
    width: float
    height: float = HIGH


def layers_of(pyproject: Path) -> list[list[str]]:
    """Return the rooms of the import contract of layers, the highest layer first."""
    contracts = tomllib.loads(pyproject.read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (contract for contract in contracts if contract["type"] == "layers")
    return [[room.strip() for room in layer.split("|")] for layer in contract["layers"]]


def imports_of(rooms: Iterable[str]) -> set[tuple[str, str]]:
    """Return the pairs of rooms of which the first imports the second, but those that follow by way of a third."""
    graph = grimp.build_graph("prophet_moe", cache_dir=None)
    room_of = {module: module.split(".")[1] for module in graph.modules if "." in module}
    found = {
        (room_of[module], room_of[other])
        for module in room_of
        for other in graph.find_modules_directly_imported_by(module)
        if other in room_of and room_of[other] != room_of[module]
    }
    return without_detours({pair for pair in found if set(pair) <= set(rooms)})


def without_detours(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the transitive reduction of pairs without a circle."""
    below: dict[str, set[str]] = {}

    def reached(room: str) -> set[str]:
        if room not in below:
            nearest = {lower for upper, lower in pairs if upper == room}
            below[room] = nearest.union(*(reached(lower) for lower in nearest))
        return below[room]

    return {
        (upper, lower)
        for upper, lower in pairs
        if not any(lower in reached(between) for above, between in pairs if above == upper and between != lower)
    }


def stages_of(snakefile: Path) -> dict[str, list[str]]:
    """Return the rules of every stage as the Snakefile includes them; `studies` stands for the loop over studies."""
    included = re.findall(r'include: f?"workflow/(?:rules/(\w+)\.smk|(studies)/)', snakefile.read_text())
    stages = {stage or studies: snakefile.parent / f"workflow/rules/{stage}.smk" for stage, studies in included}
    rules = {
        stage: re.findall(r"^rule (\w+):", path.read_text(), re.M) for stage, path in stages.items() if path.exists()
    }
    return {stage: rules.get(stage, []) for stage in stages if rules.get(stage) != []}


def summary_of(room: str) -> str:
    """Return what a room is in a few words: the first words of its docstring."""
    library = ROOT / "workflow/prophet_moe"
    path = library / room / "__init__.py" if (library / room).is_dir() else library / f"{room}.py"
    sentence = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
    first, *rest = re.split(r"[:;.] ", sentence.rstrip("."))
    if " " not in first and rest:
        first = rest[0][0].upper() + rest[0][1:]
    return re.split(r", (?:and|with|which|written) ", first)[0].replace("`", "")


def placed(layers: Sequence[Sequence[str]], pairs: set[tuple[str, str]]) -> tuple[list[list[str]], list[list[str]]]:
    """Order the layers so that few arrows cross: every layer with its lanes, and the ways of the arrows.

    An arrow that passes a layer has a lane there, called `<upper>/<lower>/<layer>`.
    """
    layer_of = {room: number for number, layer in enumerate(layers) for room in layer}
    rows, ways = [list(layer) for layer in layers], []
    for upper, lower in sorted(pairs):
        lanes = [f"{upper}/{lower}/{number}" for number in range(layer_of[upper] + 1, layer_of[lower])]
        for number, lane in enumerate(lanes, start=layer_of[upper] + 1):
            rows[number].append(lane)
        ways.append([upper, *lanes, lower])
    neighbours: dict[str, list[str]] = {}
    for way in ways:
        for one, other in pairwise(way):
            neighbours.setdefault(one, []).append(other)
            neighbours.setdefault(other, []).append(one)
    for sweep in range(SWEEPS):
        centres = {name: x for row in rows for name, x in centred(row).items()}
        order = range(len(rows)) if sweep % 2 == 0 else range(len(rows) - 1, -1, -1)
        for number in order:
            beside = {
                name: [centres[other] for other in neighbours.get(name, []) if other not in rows[number]]
                for name in rows[number]
            }
            mean = {name: sum(xs) / len(xs) if xs else centres[name] for name, xs in beside.items()}
            rows[number].sort(key=lambda name, mean=mean: (round(mean[name], 6), name))
            centres |= centred(rows[number])
    return rows, ways


def centred(row: Sequence[str]) -> dict[str, float]:
    """Return the centres of the rooms and lanes of a layer, which lies in the middle of the drawing."""
    widths = [LANE if "/" in name else ROOM for name in row]
    at = (WIDTH - sum(widths) - GAP * (len(row) - 1)) / 2
    centres = {}
    for name, width in zip(row, widths, strict=True):
        centres[name] = at + width / 2
        at += width + GAP
    return centres


def draw() -> Figure:
    """Draw stages, studies, rooms and the foundation from the top to the bottom."""
    layers, stages = layers_of(ROOT / "pyproject.toml"), stages_of(ROOT / "Snakefile")
    lowest = next(number for number, layer in enumerate(layers) if LOWEST in layer)
    upper, foundation = layers[: lowest + 1], [room for layer in layers[lowest + 1 :] for room in layer]
    rows, ways = placed(upper, imports_of([room for layer in upper for room in layer]))
    studies = sorted(path.parent.name for path in (ROOT / "workflow/studies").glob("*/study.py"))
    grids = {"studies": 0.34, "foundation": 0.64}
    heights = {
        "stages": BAND + 0.7,
        "studies": BAND + grids["studies"] * -(-len(studies) // COLUMNS["studies"]),
        "rooms": BAND + len(rows) * (HIGH + BETWEEN) - BETWEEN,
        "foundation": BAND + grids["foundation"] * -(-len(foundation) // COLUMNS["foundation"]),
    }
    height = sum(heights.values()) + 3 * PAUSE + 0.1
    figure = Figure((WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, height))
    axes.set_axis_off()

    top = height - 0.05
    _title(axes, top, "Workflow", "the stages of the Snakefile and their rules")
    _stages(axes, stages, top - BAND)
    top -= heights["stages"] + PAUSE
    _down(axes, top + PAUSE, "every study by a loop")
    _title(axes, top, "Studies", "one folder per question, which imports the library and no other study")
    _grid(axes, studies, top - BAND, "studies", grids["studies"], dict.fromkeys(studies, ""))
    top -= heights["studies"] + PAUSE
    _down(axes, top + PAUSE, "studies, scripts and the command line call the library")
    _title(axes, top, "Library", "rooms in layers; an arrow leads to what a room imports, always downwards")
    boxes = {
        name: Box(x, top - BAND - HIGH / 2 - number * (HIGH + BETWEEN), LANE if "/" in name else ROOM)
        for number, row in enumerate(rows)
        for name, x in centred(row).items()
    }
    for way in ways:
        _arrow(axes, [boxes[name] for name in way])
    for layer in upper:
        for room in layer:
            _box(axes, boxes[room], room, summary_of(room), COLOURS["room"])
    top -= heights["rooms"] + PAUSE
    _down(axes, top + PAUSE, "every room may use the foundation")
    _title(axes, top, "Foundation", "the lower layers of the library")
    told = {room: summary_of(room) for room in foundation}
    _grid(axes, foundation, top - BAND, "foundation", grids["foundation"], told)
    return figure


def _grid(axes: Axes, names: Sequence[str], top: float, part: str, line: float, told: Mapping[str, str]) -> None:
    """Draw the boxes of a part line by line."""
    columns = COLUMNS[part]
    for number, name in enumerate(names):
        x, y = (number % columns + 0.5) * WIDTH / columns, top - line * (number // columns + 0.5)
        box = Box(x, y, WIDTH / columns - 0.12, line - 0.08)
        _box(axes, box, name, told[name], COLOURS["study" if part == "studies" else part], lines=3)


def _title(axes: Axes, top: float, title: str, told: str) -> None:
    axes.text(0.06, top - 0.06, title, size=10.5, weight="bold", va="top", color=COLOURS["text"])
    axes.text(1.12, top - 0.085, told, size=7.6, va="top", color=COLOURS["edge"])


def _stages(axes: Axes, stages: Mapping[str, Sequence[str]], top: float) -> None:
    """Draw the stages from left to right, in the order of the flow of files."""
    step = WIDTH / len(stages)
    for number, (stage, rules) in enumerate(stages.items()):
        box = Box((number + 0.5) * step, top - 0.35, step - 0.2, 0.66)
        colour = COLOURS["study" if stage == "studies" else "stage"]
        _box(axes, box, stage, ", ".join(rules) or "below", colour, lines=4)
        if number:
            ends = ((number * step - 0.1, box.y), (number * step + 0.1, box.y))
            axes.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=7, lw=0.9, color=COLOURS["edge"]))


def _down(axes: Axes, top: float, told: str) -> None:
    """Draw the arrow from one part to the next."""
    ends = ((WIDTH / 2, top - 0.02), (WIDTH / 2, top - PAUSE + 0.02))
    axes.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=9, lw=1.4, color=COLOURS["edge"]))
    axes.text(WIDTH / 2 + 0.1, top - PAUSE / 2, told, size=7.6, va="center", color=COLOURS["edge"])


def _box(axes: Axes, box: Box, name: str, told: str, colour: str, lines: int = 2) -> None:
    """Draw a box with a name and, in small letters below it, what it is."""
    corner = (box.x - box.width / 2, box.y - box.height / 2)
    style = "round,pad=0,rounding_size=0.06"
    axes.add_patch(
        FancyBboxPatch(
            corner, box.width, box.height, boxstyle=style, facecolor=colour, edgecolor=COLOURS["edge"], lw=0.6, zorder=3
        )
    )
    if not told:
        axes.text(box.x, box.y, name, size=8.2, weight="bold", ha="center", va="center", zorder=4)
        return
    wrapped = textwrap.wrap(told, int(box.width * 17), max_lines=lines, placeholder=" ...")
    above = box.y + (NAME + LINE * len(wrapped)) / 2
    axes.text(box.x, above, name, size=8.2, weight="bold", ha="center", va="top", zorder=4)
    for number, line in enumerate(wrapped):
        axes.text(box.x, above - NAME - LINE * number, line, size=6.7, ha="center", va="top", zorder=4)


def _arrow(axes: Axes, way: Sequence[Box]) -> None:
    """Draw one import: a smooth line from a room, through its lanes, to the room below."""
    points, codes = [], []
    for upper, lower in pairwise(way):
        start, end = (upper.x, upper.y - HIGH / 2), (lower.x, lower.y + HIGH / 2)
        middle = (start[1] + end[1]) / 2
        points += [start, (start[0], middle), (end[0], middle), end]
        codes += [Curve.LINETO if codes else Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4]
    curve = Curve(points, codes)
    axes.add_patch(
        FancyArrowPatch(
            path=curve, arrowstyle="-|>", mutation_scale=6.5, lw=0.8, color=COLOURS["edge"], alpha=0.75, zorder=2
        )
    )


if __name__ == "__main__":
    save_drawing(draw(), TARGET)
