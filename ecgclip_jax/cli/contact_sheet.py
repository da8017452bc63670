"""`ecgclip contact-sheet`: one ECG page per synthetic diagnosis, for a cardiologist's eye."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from ecgclip_jax.cli.options import parse
from ecgclip_jax.explain.ecg_page import draw_ecg_page
from ecgclip_jax.signal.synthesis import FINDINGS, one_ecg_per_finding
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.text.concepts import CONCEPTS


@dataclass
class ContactSheetArguments:
    """Draw the clearest synthetic ECG of every diagnosis: a PDF of true-size pages, or a folder of PNG files."""

    out: Path = Path("contact_sheet.pdf")
    """A file ending in .pdf, or a folder for one PNG per diagnosis."""
    seed: int = 0
    """Another seed draws other patients."""
    only: tuple[str, ...] = ()
    """Some diagnoses, by key; without it all."""
    dpi: int = 110
    """Resolution of PNG files."""


def main(words: list[str]) -> int:
    """Draws the pages and says where they are."""
    arguments = parse(ContactSheetArguments, words, "contact-sheet")
    unknown = [key for key in arguments.only if key not in FINDINGS]
    if unknown:
        raise UserError(f"no synthetic diagnosis {', '.join(unknown)}; there are: {', '.join(FINDINGS)}")
    chosen = [i for i, key in enumerate(FINDINGS) if not arguments.only or key in arguments.only]
    batch = one_ecg_per_finding(arguments.seed)
    pages = ((FINDINGS[i], _page(batch.ecg_uv[i], i, batch.findings[i])) for i in chosen)
    shown = track(pages, total=len(chosen), description="drawing", console=Console(stderr=True))
    if arguments.out.suffix == ".pdf":
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with PdfPages(arguments.out) as document:
            for _, figure in shown:
                document.savefig(figure)
    else:
        arguments.out.mkdir(parents=True, exist_ok=True)
        for key, figure in shown:
            figure.savefig(arguments.out / f"{key}.png", dpi=arguments.dpi)
    print(f"{len(chosen)} synthetic ECGs: {arguments.out}")
    return 0


def _page(ecg_uv: np.ndarray, index: int, findings: np.ndarray) -> Figure:
    others = [
        CONCEPTS[key].name for key, found in zip(FINDINGS, findings, strict=True) if found and key != FINDINGS[index]
    ]
    beside = f"also: {', '.join(others)}" if others else "nothing else"
    return draw_ecg_page(ecg_uv, title=f"{CONCEPTS[FINDINGS[index]].name} (synthetic)", lines=(beside,))
