"""Pages that need nothing but themselves: a style, tables and pictures as text."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from PIL import Image

STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 1.5rem auto;
  max-width: 1200px; padding: 0 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin: 2.2rem 0 .3rem; break-after: avoid }
p { margin: .3rem 0 } ul { margin: .3rem 0; padding-left: 1.2rem }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; align-items: flex-start }
figure { display: inline-block; margin: .4rem; vertical-align: top; max-width: 488px;
  break-inside: avoid } figcaption { font-size: .85rem; color: #444 } img { max-width: 100% }
table { border-collapse: collapse; font-size: .9rem } tr { break-inside: avoid }
td, th { padding: .1rem .8rem .1rem 0; text-align: left; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.swatch { display: inline-block; width: .9rem; height: .9rem; margin-right: .3rem;
  border: 1px solid #0004; vertical-align: -.1rem; print-color-adjust: exact }
th.group { padding-top: .7rem }
.error, .warning, .well { border-left: .3rem solid #c0392b; padding: .3rem .8rem; margin: .5rem 0;
  background: #fbeeec } .warning { border-color: #d9a400; background: #fdf7e3 }
.well { border-color: #2e8b57; background: #eaf5ee }
pre { background: #f5f5f5; padding: .6rem .8rem; overflow-x: auto; font-size: .85rem }
@media print { body { font-size: 11px; max-width: none } }
"""


def page(title: str, body: Iterable[str], generator: str, style: str = "") -> str:
    """A whole page; `body` is HTML already, `generator` the command that made it, `style` what it
    adds to the common one."""
    title = escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="generator" content="{generator}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}{style}</style></head>\n<body>\n<h1>{title}</h1>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str] | str], numeric: set[int]) -> str:
    """Cells are HTML already; an empty head is left out; a row that is a text is a heading."""

    def row(cells: Sequence[str] | str, tag: str) -> str:
        if isinstance(cells, str):
            return f'<tr><th class="group" colspan="{len(head)}">{cells}</th></tr>'
        return "<tr>" + "".join(
            f'<{tag} class="n">{cell}</{tag}>' if i in numeric else f"<{tag}>{cell}</{tag}>"
            for i, cell in enumerate(cells)
        ) + "</tr>"  # fmt: skip

    first = row(head, "th") if head else ""
    return f"<table>{first}{''.join(row(r, 'td') for r in rows)}</table>"


def swatch(colour: tuple[int, int, int]) -> str:
    """A small square of a colour, before the name of what has it."""
    return f'<span class="swatch" style="background: rgb{colour}"></span>'


def picture(image: Image.Image, caption: str, is_wide: bool = False) -> str:
    """An image with text below it."""
    return _figure(jpeg(image), caption, is_wide)


def drawing(svg: bytes) -> str:
    """A drawing, apart from all others of its page."""
    return _figure(_url("image/svg+xml", svg), "", is_wide=True)


def jpeg(image: Image.Image) -> str:
    """An image as the address of itself."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    return _url("image/jpeg", data.getvalue())


def _url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _figure(source: str, caption: str, is_wide: bool) -> str:
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    wide = ' style="max-width: 100%"' if is_wide else ""
    return f'<figure{wide}><img alt="" src="{source}">{below}</figure>'
