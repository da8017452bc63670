"""Arms in processes of their own: two frameworks never share threads, memory, or a device's allocator.

A process makes one object and then calls its methods, one at a time, when it is asked to. While it is not, it waits at
a pipe and uses nothing.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import traceback
from collections.abc import Mapping
from importlib import import_module
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "OutOfMemory", "MemoryError", "out of memory", "Unable to allocate")
_SECONDS_TO_END = 10
_starting = threading.Lock()


class ArmError(Exception):
    """What went wrong in an arm's process, in one line; the process lives on unless it died of it."""


class OutOfMemory(ArmError):
    """The device (or the machine) has not enough memory for what was asked."""


class ArmProcess:
    """An object in a process of its own; `call` runs one of its methods there."""

    def __init__(self, module: str, name: str, environment: Mapping[str, str] | None = None) -> None:
        """Nothing is imported from `module` before the first call; `name` is a class or function there."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, module, name), daemon=True)
        with _starting:  # a new process inherits this one's environment
            before = dict(os.environ)
            os.environ.update(environment or {})
            try:
                self._process.start()
            finally:
                os.environ.clear()
                os.environ.update(before)
        theirs.close()

    def make(self, *args: Any, **options: Any) -> Any:
        """Calls the class or function; an object stays there in place of the one before, plain data comes back."""
        return self._ask("", args, options)

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        """Calls a method of the object that `make` made.

        Raises:
            OutOfMemory, ArmError: what the process raised, or that it died.
        """
        return self._ask(method, args, options)

    def _ask(self, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        try:
            self._pipe.send((method, args, options))
            kind, result = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(_SECONDS_TO_END)
            code = self._process.exitcode
            if code == -9:  # the system's own answer to too little memory
                raise OutOfMemory("the process was killed (exit code -9)") from error
            raise ArmError(f"the process ended with exit code {code}") from error
        if kind == "memory":
            raise OutOfMemory(result)
        if kind == "error":
            raise ArmError(result)
        return result

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join(_SECONDS_TO_END)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def __enter__(self) -> ArmProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _serve(pipe: Connection, module: str, name: str) -> None:
    made: Any = None
    while True:
        try:
            method, args, options = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            if method:
                result = getattr(made, method)(*args, **options)
            else:
                made = None
                gc.collect()
                made = getattr(import_module(module), name)(*args, **options)
                result = made if isinstance(made, dict | str) else None
            pipe.send(("result", result))
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            short = " ".join(text.split())[:400]
            pipe.send(("memory" if any(word in text for word in _OUT_OF_MEMORY) else "error", short))
            if os.environ.get("ECGCLIP_DEBUG"):
                traceback.print_exc()
