"""What a process says when JAX's runtime ends it because another process of the job is gone.

Processes of a job wait for each other in collectives, so one that is lost leaves the others hanging. JAX's
coordination service notices (at once for process 0, after the heartbeat time-out for any other) and aborts every
process from a C++ thread, with a stack dump and no exception that Python could catch (jax 0.10; the binding's
`missed_heartbeat_callback` ends in `std::bad_cast`). The signal of that abort is the only place left to say in words
what happened and how to go on.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax

from ecgclip_jax.spec.errors import UserError

_EXIT_CODE = 2
"""As for every error that the user can mend."""
_SIGNS_OF_LOSS = ("gloo", "nccl", "connection", "socket", "unavailable", "heartbeat", "peer", "deadline_exceeded")
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int)
_kept: list[object] = []
"""The handler in force: C holds no reference to it."""


class ProcessLostError(UserError):
    """Another process of the job is gone; the message says where to look and how to go on."""


@contextmanager
def last_words(message: Callable[[], str]) -> Iterator[None]:
    """While it is open, the loss of another process ends this one with `message()`, however it shows.

    JAX's abort writes it to standard error and ends the process; a collective that fails becomes a
    `ProcessLostError`. After any error the program ends without more ado, since the others may not be there to take
    leave of. With a single process nothing is done.

    Raises:
        ProcessLostError: a collective failed in a way that speaks of a lost connection.
    """
    if jax.process_count() == 1:
        yield
        return
    speak_when_aborted(message)
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not any(sign in str(error).lower() for sign in _SIGNS_OF_LOSS):
            raise
        # Nobody is left to wait for at the end of the program, and waiting ends in an abort.
        atexit.register(os._exit, _EXIT_CODE)
        raise ProcessLostError(message()) from error
    except BaseException:
        # What went wrong is being said; if the others wait elsewhere, taking leave of them ends in an abort, too.
        speak_when_aborted(lambda: "")
        raise


def speak_when_aborted(message: Callable[[], str]) -> None:
    """From now on an abort by JAX's runtime says `message()`, or nothing if it is empty, and ends the process.

    It is said at SIGABRT on the thread that aborts: Python's own handlers would wait for the main thread, which waits
    in a collective.
    """

    def handle(number: int) -> None:
        words = message()
        if words:
            os.write(2, f"\necgclip: {words}\n".encode())
        os._exit(_EXIT_CODE)

    handler = _Handler(handle)
    libc = ctypes.CDLL(None)
    libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
    libc.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    _kept[:] = [handler]
