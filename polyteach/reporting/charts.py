"""Charts as small SVG drawings that take their colours from the page, so that they follow its dark mode.

Every series has a colour, a dash and a marker of its own, so that nothing is told by colour alone; the six colours stay
apart for colour-blind readers and have a contrast of at least 3 to 1 with the page in either mode. Every chart has a
title and a description for screen readers, and every point says its numbers when it is pointed at. The same numbers
give the same bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from polyteach.ground.texts import in_html

COLOURS = 6
DASHES = ("", "6 3", "2 3", "8 3 2 3", "10 4 2 4 2 4")
WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 40

STYLE = """
:root { --c0: #0072b2; --c1: #c04f00; --c2: #007a5a; --c3: #aa3377; --c4: #806600; --c5: #5b5b6b; --line: #d5d5d5; }
@media (prefers-color-scheme: dark) {
  :root { --c0: #5fb8ee; --c1: #ff9e5a; --c2: #45cfa5; --c3: #f08fc0; --c4: #e0c24a; --c5: #b4b4c4; --line: #454545; }
}
svg.chart { width: 100%; height: auto; max-width: 36rem; }
svg.chart text { fill: currentColor; font: 12px system-ui, sans-serif; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .trace { fill: none; stroke-width: 2; }
""" + "".join(
    f"svg .c{i} {{ stroke: var(--c{i}); color: var(--c{i}); }} svg .c{i} .dot {{ fill: var(--c{i}); }}\n"
    for i in range(COLOURS)
)
"""The style sheet that the page must hold."""


@dataclass(frozen=True)
class Point:
    """A point with, where it is known, its interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """A named line; index picks colour, dash and marker, the same in every chart of a page."""

    name: str
    index: int
    points: tuple[Point, ...]


@dataclass(frozen=True)
class _Axis:
    """Values low..high onto pixels start..stop; log: on a logarithmic scale."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, v = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (v - low) / (high - low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """About five round numbers within the axis."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1,), (1, 3), (1, 2, 5)):
                found = [d * 10.0**p for p in powers for d in digits if self.low <= d * 10.0**p <= self.high]
                if len(found) > 2:
                    break
            return found[:: math.ceil(len(found) / 6)] if found else [self.low, self.high]
        raw = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(k * unit for k in (1, 2, 5, 10) if k * unit >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def lines(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    key: str,
    log_x: bool = False,
    log_y: bool = False,
    dots: bool = True,
) -> str:
    """One line per series over x.

    Args:
        title: what the chart shows, for screen readers; the page's own caption is beside it.
        series: at least one point between them.
        x_label: under the axis.
        y_label: above the chart's upper left corner.
        key: a word that is unique on the page.
        log_x: logarithmic x; only where every x is positive, else linear.
        log_y: logarithmic y; likewise.
        dots: draw a marker for every point.

    Returns:
        One SVG element, well-formed XML.
    """
    points = [p for s in series for p in s.points]
    ys = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
    log_x, log_y = log_x and min(p.x for p in points) > 0, log_y and min(ys) > 0
    x = _axis([p.x for p in points], LEFT, WIDTH - RIGHT, log_x, 0.03)
    y = _axis(ys, HEIGHT - BOTTOM, TOP + 14, log_y, 0.06)
    out = [_text(4, TOP + 2, y_label), *_y_axis(y), *_x_axis(x, sorted({p.x for p in points}), HEIGHT - BOTTOM)]
    out.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle"))
    for s in series:
        path = " ".join(f"{x(p.x):.1f},{y(p.y):.1f}" for p in s.points)
        body = [f"<title>{in_html(s.name)}</title>"]
        dash = f' stroke-dasharray="{DASHES[s.index % len(DASHES)]}"' if s.index % len(DASHES) else ""
        body.append(f'<polyline class="trace"{dash} points="{path}"/>')
        for p in s.points if dots else ():
            if p.low is not None and p.high is not None:
                body.append(f'<path d="M{x(p.x):.1f} {y(p.low):.1f}V{y(p.high):.1f}"/>')
            body.append(_marker(x(p.x), y(p.y), s.index, f"{s.name}: {number(p.y)} at {number(p.x)}{_range(p)}"))
        out.append(f'<g class="c{s.index % COLOURS}">{"".join(body)}</g>')
    names = ", ".join(f"{s.name} ends at {number(s.points[-1].y)}" for s in series if s.points)
    return _svg(title, f"{y_label} over {x_label}: {names}.", key, HEIGHT, out)


def intervals(title: str, rows: Sequence[Series], label: str, key: str, marks: Sequence[float] = ()) -> str:
    """One line of text and one point with its interval per series, which has one point each (its x is not used).

    Args:
        title: what the chart shows, for screen readers.
        rows: from top to bottom.
        label: under the axis.
        key: a word that is unique on the page.
        marks: values that get an upright line.

    Returns:
        One SVG element, well-formed XML.
    """
    values = [v for s in rows for p in s.points for v in (p.y, p.low, p.high) if v is not None]
    height = 24 * len(rows) + TOP + BOTTOM
    x = _axis([*values, *marks], 150, WIDTH - RIGHT - 8, False, 0.04)
    out = _x_axis(x, (), height - BOTTOM)
    out += [f'<path stroke="currentColor" d="M{x(m):.1f} {TOP}V{height - BOTTOM}"/>' for m in marks]
    out.append(_text((150 + WIDTH - RIGHT) / 2, height - 6, label, "middle"))
    for i, s in enumerate(rows):
        middle = TOP + 24 * i + 12
        out.append(_text(142, middle + 4, _shortened(s.name), "end"))
        for p in s.points:
            whisker = ""
            if p.low is not None and p.high is not None:
                whisker = f'<path stroke-width="2" d="M{x(p.low):.1f} {middle}H{x(p.high):.1f}"/>'
            said = f"{s.name}: {number(p.y)}{_range(p)}"
            out.append(f'<g class="c{s.index % COLOURS}">{whisker}{_marker(x(p.y), middle, s.index, said)}</g>')
    said = ", ".join(f"{s.name} {number(p.y)}{_range(p)}" for s in rows for p in s.points)
    return _svg(title, f"{label}: {said}.", key, height, out)


def standalone(svg: str) -> str:
    """A chart of this module as a file of its own, with the style sheet that a page would hold."""
    return svg.replace(">", f"><style>{STYLE}</style>", 1)


def swatch(index: int) -> str:
    """The line and marker of a series, for a legend; the name stands beside it."""
    dash = f' stroke-dasharray="{DASHES[index % len(DASHES)]}"' if index % len(DASHES) else ""
    drawn = f'<polyline class="trace"{dash} points="1,6 35,6"/>{_marker(18, 6, index, "")}'
    return (
        '<svg class="swatch" viewBox="0 0 36 12" width="36" height="12" aria-hidden="true">'
        f'<g class="c{index % COLOURS}">{drawn}</g></svg>'
    )


def number(value: float) -> str:
    """A number for people: four significant digits."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e7 else f"{value:.4g}"


def _axis(values: Sequence[float], start: float, stop: float, log: bool, margin: float) -> _Axis:
    low, high = float(min(values)), float(max(values))
    if low == high:  # one value gets room on both sides
        low, high = (low / 2, high * 2) if log else (low - (abs(low) / 10 or 1), high + (abs(high) / 10 or 1))
    if log:
        ratio = (high / low) ** margin
        return _Axis(low / ratio, high * ratio, float(start), float(stop), True)
    room = (high - low) * margin
    return _Axis(low - room, high + room, float(start), float(stop))


def _x_axis(axis: _Axis, at: Sequence[float], bottom: float) -> list[str]:
    """Ticks at the measured x where they are few, else at round numbers; labels that would touch are left out."""
    out = [f'<path class="grid" d="M{axis.start:.1f} {bottom}H{axis.stop:.1f}"/>']
    free = -math.inf
    for tick in at if 0 < len(at) <= 6 else axis.ticks():
        pixel, text = axis(tick), number(round(tick, 10))
        out.append(f'<path class="grid" d="M{pixel:.1f} {TOP + 10}V{bottom}"/>')
        half = 3.4 * len(text)
        if pixel - half > free:
            out.append(_text(pixel, bottom + 16, text, "middle"))
            free = pixel + half + 4
    return out


def _y_axis(axis: _Axis) -> list[str]:
    out = []
    for tick in axis.ticks():
        pixel = axis(tick)
        out.append(f'<path class="grid" d="M{LEFT} {pixel:.1f}H{WIDTH - RIGHT}"/>')
        out.append(_text(LEFT - 6, pixel + 4, number(round(tick, 10)), "end"))
    return out


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{in_html(text)}</text>'


def _shortened(name: str) -> str:
    return name if len(name) <= 21 else f"{name[:12]}…{name[-8:]}"


def _range(p: Point) -> str:
    return "" if p.low is None or p.high is None else f" [{number(p.low)}, {number(p.high)}]"


def _marker(x: float, y: float, index: int, said: str) -> str:
    corners = {"x": x, "y": y, "l": x - 4, "r": x + 4, "t": y - 4, "b": y + 4}
    shape = (
        "M{l} {y}A4 4 0 1 1 {r} {y}A4 4 0 1 1 {l} {y}Z",  # circle
        "M{l} {t}H{r}V{b}H{l}Z",  # square
        "M{x} {t}L{r} {b}H{l}Z",  # triangle
        "M{x} {t}L{r} {y}L{x} {b}L{l} {y}Z",  # diamond
        "M{x} {b}L{r} {t}H{l}Z",  # triangle on its head
    )[index % 5].format(**{k: f"{v:.1f}" for k, v in corners.items()})
    return f'<path class="dot" d="{shape}">{f"<title>{in_html(said)}</title>" if said else ""}</path>'


def _svg(title: str, description: str, key: str, height: int, body: Sequence[str]) -> str:
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-labelledby="{key}-t {key}-d"><title id="{key}-t">{in_html(title)}</title>'
        f'<desc id="{key}-d">{in_html(description)}</desc>{"".join(body)}</svg>'
    )
