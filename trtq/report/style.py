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
.trtq-graph .strong{font-weight:700}
.trtq-graph .capitals{text-transform:uppercase}
.trtq-graph .end{text-anchor:end}
.trtq-graph .middle{text-anchor:middle}
.trtq-graph .tag{fill:none;stroke:#59636e}
.trtq-graph .measured .tag{fill:#1f2328;stroke:#1f2328}
.trtq-graph .predicted .tag{stroke-dasharray:4 3}
.trtq-graph .tag-text{font-weight:600}
.trtq-graph .measured .tag-text{fill:#fff}
.trtq-graph .card{stroke-width:1}
.trtq-graph .track{fill:#1f2328;fill-opacity:.1}
.trtq-graph .weight .bar{fill:#59636e}
.trtq-graph .frame{fill:#59636e;fill-opacity:.05;stroke:#8c959f;stroke-opacity:.6}
.trtq-graph .region-title{fill:#59636e;font-size:12px;font-weight:600;stroke:#f7f7f8;stroke-width:4;paint-order:stroke}
.trtq-graph .marked .card{stroke:#1f2328;stroke-width:3.5}
.trtq-graph .legend.marked .card,.trtq-graph .legend.chain .card{fill:none;stroke-width:3}
.trtq-graph .legend.chain .card{fill:#fff;stroke:#59636e;stroke-width:1}
.trtq-graph .badge,.trtq-graph .block{fill:#1f2328}
.trtq-graph .badge-text{fill:#fff;font-size:10px;font-weight:600}
.trtq-graph .on-block{fill:#fff}
.trtq-graph .track-on-block{fill:#fff;fill-opacity:.25}
.trtq-graph .bar-on-block{fill:#fff}
.trtq-graph .port .card,.trtq-graph .hidden .card{fill:#fff;stroke:#8c959f;stroke-dasharray:4 3}
.trtq-graph .arrow path{fill:none}
.trtq-graph .arrow polygon{stroke:none}
.trtq-graph .unsure path{stroke-dasharray:5 4}
.trtq-graph .halo{fill:none;stroke:none}
.trtq-graph .lit .halo{stroke:#f0c000;stroke-width:14;stroke-opacity:.8}
"""
DARK_STYLE = """\
.trtq-graph text{fill:#e6edf3}
.trtq-graph .paper{fill:#0f1419}
.trtq-graph .soft,.trtq-graph .region-title{fill:#9aa7b4}
.trtq-graph .region-title{stroke:#191e23}
.trtq-graph .tag{stroke:#9aa7b4}
.trtq-graph .measured .tag{fill:#f0f6fc;stroke:#f0f6fc}
.trtq-graph .measured .tag-text{fill:#0f1419}
.trtq-graph .track{fill:#fff;fill-opacity:.14}
.trtq-graph .weight .bar{fill:#9aa7b4}
.trtq-graph .frame{fill:#fff;fill-opacity:.04;stroke:#6e7a87}
.trtq-graph .marked .card{stroke:#f0f6fc}
.trtq-graph .legend.chain .card{fill:#0f1419;stroke:#9aa7b4}
.trtq-graph .badge,.trtq-graph .block{fill:#f0f6fc}
.trtq-graph .badge-text,.trtq-graph .on-block{fill:#0f1419}
.trtq-graph .track-on-block{fill:#0f1419;fill-opacity:.2}
.trtq-graph .bar-on-block{fill:#0f1419}
.trtq-graph .port .card,.trtq-graph .hidden .card{fill:#0f1419;stroke:#6e7a87}
"""


def style() -> str:
    """Return the CSS of `svg`; literal colours, since viewers other than browsers know no variables."""
    light = "".join(_hue_style(name, hue.line, hue.tint) for name, hue in HUES.items())
    dark = "".join(_hue_style(name, hue.dark_line, hue.dark_tint) for name, hue in HUES.items())
    return f"\n{light}{STYLE}@media screen and (prefers-color-scheme: dark) {{\n{dark}{DARK_STYLE}}}\n"


def _hue_style(name: str, line: str, tint: str) -> str:
    return (
        f".trtq-graph .{name} .card{{fill:{tint};stroke:{line}}}"
        f".trtq-graph .{name} .bar{{fill:{line}}}"
        f".trtq-graph .arrow.{name} polygon,.trtq-graph .end-cap.{name} polygon{{fill:{line}}}"
        f".trtq-graph .arrow.{name} path{{stroke:{line}}}\n"
    )
