"""Self-contained HTML pages from jinja2 templates: pictures are part of the page."""

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image


def render(template: str, **context: Any) -> str:
    """Fill a template, named by its path below tools/; its text is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"jpeg": jpeg, "svg": svg}
    return environment.get_template(template).render(context)


def jpeg(image: Image.Image) -> str:
    """Encode an image as a data URL."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    return _url("image/jpeg", data.getvalue())


def svg(drawing: bytes) -> str:
    """Encode a drawing as a data URL."""
    return _url("image/svg+xml", drawing)


def _url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
