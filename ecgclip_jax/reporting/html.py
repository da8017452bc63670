"""Sections to a page: apart from what fills them, so that a cohort's card is written without a model or jax."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, select_autoescape

from ecgclip_jax import __version__
from ecgclip_jax.reporting.content import Section


def render(title: str, summary: str, banners: list[str], sections: list[Section]) -> str:
    """The page as text; everything but our own SVG is escaped."""
    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True)
    source = (resources.files("ecgclip_jax.reporting") / "templates" / "report.html.j2").read_text(encoding="utf-8")
    footer = f"ecgclip_jax {__version__}. Research use, not a medical device."
    return environment.from_string(source).render(
        title=title, summary=summary, banners=banners, sections=sections, footer=footer
    )
