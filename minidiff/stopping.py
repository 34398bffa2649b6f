"""How a command ends: with its work done, with an error in one sentence, or when a signal asks.

An exception in the middle of a physics step, or of writing a file, would leave it half done. So
Ctrl-C (SIGINT), SIGTERM and SIGHUP (the terminal was closed) only set a flag. Work looks at the
flag at safe points. A second Ctrl-C or SIGTERM ends the program at once.
"""
import argparse
import re
import signal
import sys
import traceback
from pathlib import Path

from .progress import fall_silent, say_aside

_came = []  # the signals that have come


class Stopped(KeyboardInterrupt):
    """A signal has asked the program to stop; the message says what was saved."""


def listen():
    """From now on these signals set the flag."""
    signal.signal(signal.SIGINT, _note)
    signal.signal(signal.SIGTERM, _note)
    # Windows has no SIGHUP; under nohup it is ignored, and stays so
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _note)


def _note(number, frame):
    _came.append(number)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # not SIGHUP: of one closed terminal both the shell and the system may send it


def asked():
    """Whether a signal has asked the program to stop."""
    return bool(_came)


def safe_point(message="stopped"):
    """Work may end here: raises Stopped if a signal has asked for it."""
    if asked():
        raise Stopped(message)


def run(name, main, *arguments):
    """Call main(*arguments), the command of that name -> exit status."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # what the terminal cannot show becomes a "?"
    try:
        main(*arguments)
        if sys.stdout:
            sys.stdout.flush()
        return 0
    except BrokenPipeError:  # as with `... | head`: nobody reads further
        fall_silent()
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        say_aside(shortened(f"{name}: {in_words(error)}"))
    except KeyboardInterrupt as interrupt:
        say_aside(f"\n{str(interrupt) or 'stopped'}")
    return 1


def in_words(error):
    """An error as a sentence, unlike the system's own: "[Errno 21] Is a directory: 'a'"."""
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}cannot be read or written ({error.strerror})"
    if isinstance(error, MemoryError):
        return f"memory ran out: {error}".removesuffix(": ")
    return str(error) or type(error).__name__


def located(error):
    """An error in a user's code, with its type and place: "KeyError: 'x' (a.py, line 12)".

    If an installed package has raised it, the place is where the package was called.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    where = "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in place[-1:])
    return f"{type(error).__name__}: {error}{where}"


def shortened(sentence):
    """The sentence, long values in it cut: a number of 5,000 digits would fill the screen."""
    sentence = re.sub(r"(\S{80})\S{100,}(\S{20})", r"\1...\2", sentence)
    return sentence if len(sentence) <= 1000 else f"{sentence[:700]} ... {sentence[-200:]}"


class Parser(argparse.ArgumentParser):
    """Parses a command's arguments. It shows the help text as written, and shortens errors."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message):
        """Two lines, not a page of usage: what is wrong stands last."""
        self.exit(2, f"{self.prog} --help explains all arguments\n"
                     f"{shortened(f'{self.prog}: error: {message}')}\n")
