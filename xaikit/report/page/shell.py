"""What every page is made of: one HTML file that loads nothing, its policy and its scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup, escape


def page_text(template: str, scripts: Sequence[str], data: dict[str, Any], **given: Any) -> str:
    """A page as text.

    Parameters
    ----------
    template : str
        Name of the asset; everything it is given is escaped.
    scripts : sequence of str
        Assets, in the order in which they run.
    data : dict
        What the scripts read.
    **given
        What the template reads.
    """
    style, script = asset("page.css"), "\n".join(asset(name) for name in scripts)
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(asset),
    )
    environment.filters["coded"] = coded
    environment.filters["words"] = words
    return environment.get_template(template).render(
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data=Markup(embedded_json(data)),
        **given,
    )


def coded(text: str) -> Markup:
    """Escaped text in which what stands between backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(_code(p) if at % 2 else escape(p) for at, p in enumerate(parts))


def _code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(words(text))


def words(text: str) -> Markup:
    """Code whose words are broken nowhere but between them, least of all inside ``--out``."""
    return Markup(" ").join(Markup("<span>{}</span>").format(word) for word in text.split(" "))


def embedded_json(value: Any) -> str:
    """JSON that cannot end the script element it is in, or start another."""
    text = json.dumps(_finite(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    """The value with null for numbers that are not finite."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _policy(style: str, script: str) -> str:
    """A policy that allows this page's own style and script, pictures inside it, and no load."""
    return (
        "default-src 'none'; img-src data: blob:; "
        f"style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def asset(name: str) -> str:
    """One of the files that pages are made of."""
    return files("xaikit.report").joinpath("assets", name).read_text(encoding="utf-8")
