"""Make a picture of a terminal: reads what `tmux capture-pane -p -e` prints, writes an SVG.

tmux capture-pane -t PANE -p -e | python docs/images/capture.py --columns 80 docs/images/live.svg
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

LIGHT = TerminalTheme(
    (255, 255, 255),
    (36, 41, 46),
    [
        (36, 41, 46),
        (203, 36, 49),
        (34, 134, 58),
        (176, 136, 0),
        (3, 102, 214),
        (90, 50, 163),
        (0, 128, 140),
        (106, 115, 125),
    ],
)
DARK = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [
        (22, 27, 34),
        (255, 123, 114),
        (86, 211, 100),
        (227, 179, 65),
        (121, 192, 255),
        (210, 168, 255),
        (86, 212, 221),
        (201, 209, 217),
    ],
)


def picture(ansi: str, *, columns: int, title: str, light: bool) -> str:
    """The SVG of a screen `columns` wide with `ansi` on it."""
    text = Text.from_ansi(ansi.rstrip("\n"))
    console = Console(file=io.StringIO(), record=True, width=columns, force_terminal=True, color_system="truecolor")
    console.print(text, soft_wrap=True)
    svg = console.export_svg(title=title, theme=LIGHT if light else DARK)
    # The picture needs nothing from elsewhere: whatever monospaced font is there will do.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code", "DejaVu Sans Mono")


def main() -> None:
    """Read flags and the screen, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--columns", type=int, default=80)
    parser.add_argument("--title", default="mellea summarise")
    parser.add_argument("--light", action="store_true")
    flags = parser.parse_args()
    svg = picture(sys.stdin.read(), columns=flags.columns, title=flags.title, light=flags.light)
    flags.output.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
