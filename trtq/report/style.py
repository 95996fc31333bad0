"""The style sheet of a picture: light, and dark where the reader asked for it."""

from __future__ import annotations

from trtq.report.palette import HUES

STYLE = """\
.trtq-graph{font-family:"Helvetica Neue",Helvetica,Arial,sans-serif;font-size:11px}
.trtq-graph text{fill:#1f2328}
.trtq-graph .paper{fill:#fff}
.trtq-graph .title{font-size:17px;font-weight:600}
.trtq-graph .soft{fill:#59636e}
.trtq-graph .mono{font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:10px}
.trtq-graph .op{font-size:11.5px;font-weight:600}
.trtq-graph .end{text-anchor:end}
.trtq-graph .middle{text-anchor:middle}
.trtq-graph .card{stroke-width:1}
.trtq-graph .track{fill:#1f2328;fill-opacity:.09}
.trtq-graph .marked .card{stroke:#1f2328;stroke-width:3.5}
.trtq-graph .legend.marked .card{fill:none;stroke-width:3}
.trtq-graph .badge{fill:#1f2328}
.trtq-graph .badge-text{fill:#fff;font-size:10px;font-weight:600}
.trtq-graph .port .card{fill:#fff;stroke:#8c959f;stroke-dasharray:4 3}
.trtq-graph .arrow path{fill:none}
.trtq-graph .arrow polygon{stroke:none}
.trtq-graph .unsure path{stroke-dasharray:5 4}
.trtq-graph .halo{fill:none;stroke:none}
.trtq-graph .lit .halo{stroke:#f0c000;stroke-width:14;stroke-opacity:.8}
"""
DARK_STYLE = """\
.trtq-graph text{fill:#e6edf3}
.trtq-graph .paper{fill:#0f1419}
.trtq-graph .soft{fill:#9aa7b4}
.trtq-graph .track{fill:#fff;fill-opacity:.14}
.trtq-graph .marked .card{stroke:#f0f6fc}
.trtq-graph .badge{fill:#f0f6fc}
.trtq-graph .badge-text{fill:#0f1419}
.trtq-graph .port .card{fill:#0f1419;stroke:#6e7a87}
"""


def style() -> str:
    """Return the CSS of `svg`; literal colours, since viewers other than browsers know no variables."""
    light = "".join(_hue_style(name, hue.line, hue.tint) for name, hue in HUES.items())
    dark = "".join(_hue_style(name, hue.dark_line, hue.dark_tint) for name, hue in HUES.items())
    return f"\n{light}{STYLE}@media screen and (prefers-color-scheme: dark) {{\n{dark}{DARK_STYLE}}}\n"


def _hue_style(name: str, line: str, tint: str) -> str:
    return (
        f".trtq-graph .{name} .card{{fill:{tint};stroke:{line}}}"
        f".trtq-graph .{name} .bar,.trtq-graph .{name} polygon{{fill:{line}}}"
        f".trtq-graph .{name} path{{stroke:{line}}}\n"
    )
