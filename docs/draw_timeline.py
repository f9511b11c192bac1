"""Draw docs/timeline.svg, one decode step of a toy model as the simulator computes it: `python docs/draw_timeline.py`.

Three MoE layers of six experts, top-2, with three slots each serve a batch of two sequences. The plain simulator
(`prophet_moe.offload.simulator.reference`) replays the step, and every span of the drawing is one that it computed.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from prophet_moe.offload.simulator.batching import DecodeBatches, accesses_of
from prophet_moe.offload.simulator.reference import Replay, Rule, requests_of
from prophet_moe.offload.simulator.simulation import Hierarchy, Job, Times
from prophet_moe.present.save import save_drawing

TARGET = Path(__file__).resolve().parent / "timeline.svg"

EXPERTS, LAYERS = 6, 3
CHOICES = [[[0, 1], [0, 3], [0, 4]], [[0, 1], [0, 4], [0, 5]]]
"""The experts that each of two tokens chooses in each layer."""
PLANS = [[9, 16, 15], [9, 16, 15], [16, 15, 17], [3, 4]]
"""What is to be prefetched before the pass and after each layer, as layer * EXPERTS + expert."""
HIERARCHY = Hierarchy((3,))
TIMES = Times(np.full(LAYERS, 0.9), np.array([0.0, 0.6, 0.7]), (1.5,), chunk_seconds=0.375)
POPULARITY = np.tile(np.arange(EXPERTS, 0, -1.0), (LAYERS, 1))

COLOURS = {
    "everything else": "#c3ced9",
    "expert": "#8fbfe0",
    "stall": "#ffffff",
    "missing expert": "#f0a06a",
    "prefetch": "#86cdb4",
    "prefetch, not used": "#dff1ea",
}
"""Colours by what a stream does."""
TOLD = {
    "everything else": "everything but experts",
    "expert": "expert computed",
    "stall": "stall: the device waits",
    "missing expert": "demand transfer of a missing expert",
    "prefetch": "prefetch that is used",
    "prefetch, not used": "prefetch that is not used in this step",
}
"""What the legend calls them."""
DEVICE, LINK, HIGH = 1.0, 0.0, 0.56
"""Centres of the two rows, and the height of a span."""
EDGE, INK = "#5b6b7b", "#222222"
NEGLIGIBLE = 1e-9


@dataclass
class Span:
    """What a stream does from `begin` to `end`, in the toy's units of time."""

    kind: str
    begin: float
    end: float
    layer: int
    expert: int = -1


class Recorded(Replay):
    """A replay that keeps what each stream does."""

    def __init__(self, *arguments) -> None:
        """Start as `Replay` does, with nothing recorded."""
        super().__init__(*arguments)
        self.compute: list[Span] = []
        self.copies: list[Span] = []
        self.asked: list[float] = []
        """When each layer made its access."""

    def serve(self, access, layer, *, final):
        """Record what comes before the access, and the gaps in which the device waits."""
        self.compute.append(Span("everything else", self.time - self.times.non_expert_seconds[layer], self.time, layer))
        self.asked.append(self.time)
        first = len(self.compute)
        ended = super().serve(access, layer, final=final)
        for before, after in zip(self.compute[first - 1 :], self.compute[first:], strict=False):
            if after.begin > before.end + NEGLIGIBLE:
                self.compute.append(Span("stall", before.end, after.begin, layer))
        return ended

    def compute_at_hand(self, service, at_hand, layer):
        """Record the experts that are in a slot."""
        known = len(service.computed)
        super().compute_at_hand(service, at_hand, layer)
        self._computed(service, at_hand, known, layer)

    def await_flight(self, service, request, layer):
        """Record the expert whose copy was under way."""
        known = len(service.computed)
        super().await_flight(service, request, layer)
        self._computed(service, [request], known, layer)

    def fetch_missing(self, service, request, layer):
        """Record the copy of a missing expert, and its computing."""
        known = len(service.computed)
        super().fetch_missing(service, request, layer)
        begin = service.link - self.transfer_seconds[1]
        self.copies.append(Span("missing expert", begin, service.link, layer, request.expert % EXPERTS))
        self._computed(service, [request], known, layer)

    def begin_prefetch(self, expert, start):
        """Record a prefetch, as if nothing came between."""
        super().begin_prefetch(expert, start)
        if self.queue.carries(expert):
            flight = self.queue.flight
            self.copies.append(Span("prefetch", flight.begin, flight.end, self.layer_of(expert), expert % EXPERTS))

    def pause_flight(self, service, wrong):
        """Let the prefetch under way end with its chunk."""
        span = next(span for span in reversed(self.copies) if span.kind == "prefetch")
        super().pause_flight(service, wrong)
        span.end = service.link

    def resume_flight(self, service):
        """Record the rest of a prefetch that was paused."""
        flight = self.queue.flight
        paused = flight is not None and self.queue.free < flight.end
        super().resume_flight(service)
        if paused:
            layer, expert = self.layer_of(flight.expert), flight.expert % EXPERTS
            self.copies.append(Span("prefetch", service.link, flight.end, layer, expert))

    def _computed(self, service, requests, known, layer):
        ends = [ended for _, ended in list(service.computed)[known:]]
        for request, end in zip(requests, ends, strict=True):
            begin = end - float(self.times.expert_seconds[request.tokens])
            self.compute.append(Span("expert", begin, end, layer, request.expert % EXPERTS))


def toy() -> Job:
    """Return the one step of the toy model, with what is to be prefetched."""
    batches = DecodeBatches(np.array(CHOICES, np.uint16), np.array([[0, 1]]), EXPERTS)
    width = max(map(len, PLANS))
    planned = np.array([[plan + [-1] * (width - len(plan)) for plan in PLANS]], np.int32)
    return Job(batches, accesses_of(batches, deduplicated=True), planned)


def replayed() -> Recorded:
    """Replay the step and return what was recorded."""
    job = toy()
    accessed, first = requests_of([job.accesses])
    replay = Recorded(HIERARCHY, TIMES, POPULARITY, Rule("lru", POPULARITY, first))
    replay.fill(POPULARITY)
    replay.step([[access] for access in accessed[0]], job.prefetches[0])
    return replay


def draw(replay: Recorded) -> Figure:
    """Draw what the device and the link do, one above the other."""
    used = {(span.layer, span.expert) for span in replay.compute}
    for span in replay.copies:
        if span.kind == "prefetch" and (span.layer, span.expert) not in used:
            span.kind = "prefetch, not used"
    end = replay.copies[-1].end
    figure = Figure((8.6, 3.3))
    axes = figure.add_axes((0.07, 0.31, 0.92, 0.6), xlim=(0, end), ylim=(-0.95, 1.62))
    for span in sorted(replay.compute, key=lambda span: span.begin):
        _bar(axes, DEVICE, span, f"E{span.expert}" if span.kind == "expert" else "")
    for span in replay.copies:
        _bar(axes, LINK, span, f"L{span.layer} E{span.expert}")
        if span.kind.startswith("prefetch"):
            _chunks(axes, span)
    for layer, asked in enumerate(replay.asked):
        spans = [span for span in replay.compute if span.layer == layer]
        begin, ended = min(span.begin for span in spans), max(span.end for span in spans)
        axes.annotate(
            "", (begin, 1.42), (ended, 1.42), arrowprops={"arrowstyle": "|-|, widthA=0.25, widthB=0.25", "color": EDGE}
        )
        axes.text((begin + ended) / 2, 1.48, f"layer {layer}", size=8.5, weight="bold", ha="center", color=INK)
        axes.plot([asked, asked], [0.54, DEVICE + HIGH / 2 + 0.06], ls=":", lw=1, color=INK, zorder=4)
        axes.text(asked, 0.51, "access, new plan", size=7.2, ha="center", va="top", color=INK)
    _notes(axes, replay)
    axes.set_yticks([DEVICE, LINK], ["device", "link"], size=9, weight="bold")
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7.5, color=EDGE)
    axes.set_xlabel("time (units of the toy)", size=8, labelpad=1)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(EDGE)
    handles = [Patch(facecolor=colour, edgecolor=EDGE, lw=0.6, hatch=_hatch(kind)) for kind, colour in COLOURS.items()]
    figure.legend(handles, TOLD.values(), loc="lower center", ncols=3, fontsize=7.8, frameon=False, columnspacing=2.5)
    return figure


def _bar(axes: Axes, row: float, span: Span, name: str) -> None:
    """Draw a span of a row with the name of its expert."""
    axes.barh(
        row,
        span.end - span.begin,
        HIGH,
        span.begin,
        color=COLOURS[span.kind],
        edgecolor=EDGE,
        lw=0.6,
        hatch=_hatch(span.kind),
    )
    if name and span.end - span.begin > 0.5:
        axes.text((span.begin + span.end) / 2, row, name, size=7.8, ha="center", va="center", color=INK, zorder=5)


def _hatch(kind: str) -> str:
    return "////" if kind == "stall" else ""


def _chunks(axes: Axes, span: Span) -> None:
    """Mark the ends of the chunks inside a prefetch, at which a demand transfer may go first."""
    inside = np.arange(span.begin + TIMES.chunk_seconds, span.end - NEGLIGIBLE, TIMES.chunk_seconds)
    axes.vlines(inside, LINK - HIGH / 2, LINK - HIGH / 2 + 0.1, color=EDGE, lw=0.8, zorder=4)


def _notes(axes: Axes, replay: Recorded) -> None:
    """Point at the prefetch that is paused for a missing expert, and at where it continues."""
    missing = next(number for number, span in enumerate(replay.copies) if span.kind == "missing expert")
    paused, continued = replay.copies[missing - 1], replay.copies[missing + 1]
    notes = ((paused.end, "the prefetch pauses\nafter its chunk", -0.75), (continued.begin, "it continues", 0.25))
    for at, told, shift in notes:
        axes.annotate(
            told,
            (at, LINK - HIGH / 2),
            (at + shift, -0.68),
            size=7.2,
            ha="center",
            va="center",
            color=INK,
            zorder=5,
            arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 0.8, "mutation_scale": 7, "shrinkB": 1},
        )


if __name__ == "__main__":
    save_drawing(draw(replayed()), TARGET)
