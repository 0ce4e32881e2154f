"""Fill jinja2 templates: self-contained HTML pages with embedded pictures, and plain texts."""

import base64
import io
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from PIL import Image


def render(template: str, **context: Any) -> str:
    """Fill a template, named by its path below tools/; texts in HTML are escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"jpeg": jpeg, "svg": partial(data_url, "image/svg+xml")}
    return environment.get_template(template).render(context)


def jpeg(image: Image.Image) -> str:
    """Encode an image as a data URL."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    return data_url("image/jpeg", data.getvalue())


def data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
