"""Which code made a row."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from ecgclip_jax.training.run_folder import git_commit


def code_version() -> str:
    """Released version and, in a checkout, the commit."""
    try:
        released = version("ecgclip_jax")
    except PackageNotFoundError:
        released = "not installed"
    commit = git_commit()
    return f"{released} ({commit})" if commit else released
