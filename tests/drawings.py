"""What must hold of every figure: no text is clipped or touches another, and the legend is what is drawn."""

from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.text import Text


def visible_texts(figure) -> list[Text]:
    """Every text that is drawn; tick labels outside the view are not."""
    outside = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            outside |= {
                label for tick in ticks if not low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)
            }
    texts = figure.findobj(Text)
    return [text for text in texts if text.get_visible() and text.get_text().strip() and text not in outside]


def assert_nothing_is_clipped(figures: dict) -> None:
    """All text lies inside its figure, to a pixel."""
    for name, figure in figures.items():
        figure.draw_without_rendering()
        for text in visible_texts(figure):
            box, page = text.get_window_extent(), figure.bbox
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1
            assert inside, f"{name}: {text.get_text()!r} at {box.bounds} leaves {page.bounds}"


def assert_no_texts_touch(figures: dict) -> None:
    """No two texts of a figure, titles included, overlap by more than a pixel."""
    for name, figure in figures.items():
        figure.draw_without_rendering()
        boxes = [(text.get_text(), text.get_window_extent().padded(-1)) for text in visible_texts(figure)]
        for place, (text, box) in enumerate(boxes):
            for other, beside in boxes[place + 1 :]:
                assert not box.overlaps(beside), f"{name}: {text!r} touches {other!r}"


def looks_of(line: Line2D) -> tuple[str, str]:
    """Colour and marker of a line."""
    marker = line.get_marker()
    return to_hex(line.get_color()), "" if marker in (None, "None", "none") else str(marker)


def assert_legend_is_what_is_drawn(figure) -> None:
    """Every entry of the legends has its line in the panels, and no two entries look alike."""
    entries = [handle for legend in figure.legends for handle in legend.legend_handles if isinstance(handle, Line2D)]
    assert entries
    drawn = {(looks_of(line), line.get_linestyle()) for axes in figure.axes for line in axes.get_lines()}
    colours = {look[0] for look, _ in drawn}
    for entry in entries:
        assert looks_of(entry)[0] in colours, f"{entry.get_label()} is not drawn"
    looks = [(looks_of(entry), entry.get_linestyle(), entry.get_alpha()) for entry in entries]
    assert len(set(looks)) == len(looks), "two entries of the legend look alike"
