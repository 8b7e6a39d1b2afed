"""Charts of an evaluation, as SVG that stands in a page without scripts."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 40
_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_MAX_POINTS = 400
COLOURS = (
    "#0b7a75",
    "#c2410c",
    "#4f46e5",
    "#a16207",
    "#be185d",
    "#15803d",
    "#0369a1",
    "#7c3aed",
    "#b91c1c",
    "#57534e",
)


@dataclass(frozen=True)
class Series:
    """Points (x, y), both from 0 to 1; `mark` is a point to stress."""

    name: str
    points: Sequence[tuple[float, float]]
    mark: tuple[float, float] | None = None


def line_chart(series: Sequence[Series], x_label: str, y_label: str, diagonal: bool = False) -> str:
    """Lines in a square from 0 to 1; `diagonal` draws where x and y are the same."""
    parts = [_axes(x_label, y_label)]
    if diagonal:
        parts.append(f'<path class="diagonal" d="M{_x(0):.1f} {_y(0):.1f}L{_x(1):.1f} {_y(1):.1f}"/>')
    for index, one in enumerate(series):
        colour = COLOURS[index % len(COLOURS)]
        step = max(1, len(one.points) // _MAX_POINTS)
        points = [*one.points[::step], *one.points[-1:]]
        path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{path}" stroke="{colour}"><title>{escape(one.name)}</title></polyline>'
        )
        marks = [one.mark] if one.mark else [] if len(points) > 2 else points
        parts += [f'<circle cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="4" fill="{colour}"/>' for x, y in marks]
    label = escape(f"{y_label} by {x_label}", quote=True)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def legend(names: Sequence[str]) -> str:
    """The names of series in their colours."""
    items = "".join(
        f'<li><span class="key" style="background:{COLOURS[index % len(COLOURS)]}"></span>{escape(name)}</li>'
        for index, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


def _axes(x_label: str, y_label: str) -> str:
    parts = []
    for tick in _TICKS:
        parts.append(f'<path class="grid" d="M{_x(tick):.1f} {_y(0):.1f}V{_y(1):.1f}"/>')
        parts.append(f'<path class="grid" d="M{_x(0):.1f} {_y(tick):.1f}H{_x(1):.1f}"/>')
        parts.append(f'<text x="{_x(tick):.1f}" y="{_y(0) + 16:.1f}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{_x(0) - 6:.1f}" y="{_y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    middle = (_x(0) + _x(1)) / 2
    parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    height = (_y(0) + _y(1)) / 2
    turned = f'transform="rotate(-90 12 {height:.1f})"'
    parts.append(f'<text x="12" y="{height:.1f}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
    return "".join(parts)


def _x(value: float) -> float:
    return _LEFT + value * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float) -> float:
    return _HEIGHT - _BOTTOM - value * (_HEIGHT - _TOP - _BOTTOM)
