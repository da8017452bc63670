"""Annotations of `ecgclip_jax` checked at run time: jaxtyping's import hook, with one check per call.

jaxtyping's own decorator checks the arguments, calls the function, then checks arguments and result together, by two
functions that beartype makes for each one that is decorated, and binds every call to its signature for the sake of a
message: a fifth of the time that all tests took. Here beartype decorates the function itself, within a scope of
jaxtyping's for the axes that annotations name. What is checked is the same.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, get_args

import jaxtyping
import numpy as np
from beartype import beartype
from jaxtyping import install_import_hook, jaxtyped


def check_annotations(package: str) -> None:
    """Has every function and dataclass of a package, which is not imported yet, check what it is given and returns."""
    jaxtyping.jaxtyped = decorator  # type: ignore[assignment]
    install_import_hook(package, "beartype.beartype")


def decorator(target: Any = None, *, typechecker: object) -> Any:
    """What the hook writes over every function and class, in the place of `jaxtyping.jaxtyped`."""
    if target is None:
        return functools.partial(decorator, typechecker=typechecker)
    if not inspect.isclass(target):
        return checked(target)
    if is_dataclass(target) and "__init__" in vars(target):
        target.__init__ = checked(target.__init__)  # type: ignore[misc]
    return target


def checked(function: Callable) -> Callable:
    """`function`, refusing what its annotations do not allow; axes of one name have one size within a call."""
    if inspect.isgeneratorfunction(function):
        # Beartype would look at the arguments when the first value is asked for: in whose scope?
        return jaxtyped(function, typechecker=beartype)
    function.__annotations__ = {name: _evaluated(hint, function) for name, hint in function.__annotations__.items()}
    by_beartype = beartype(function)
    if not any(map(_names_axes, function.__annotations__.values())):
        return by_beartype

    @functools.wraps(function)
    def with_axes(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with jaxtyped("context"):
            return by_beartype(*args, **kwargs)

    return with_axes


_ARRAY = type(jaxtyping.Shaped[np.ndarray, "..."])


def _names_axes(hint: Any) -> bool:
    """Whether an array with a shape stands anywhere in a hint: other functions need no scope of their own."""
    parts = hint if isinstance(hint, (list, tuple)) else get_args(hint)
    return isinstance(hint, _ARRAY) or any(map(_names_axes, parts))


def _evaluated(hint: Any, function: Callable) -> Any:
    """A hint that was a string; anything, as with jaxtyping, where its names come later or for type checkers only."""
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, function.__globals__)
    except (NameError, AttributeError):
        return Any
