"""What a command says: its results, and how far a long job is."""
import contextlib
import errno
import math
import os
import re
import shutil
import sys
import time


def say(text):
    """Print text now. The work goes on if nobody is there to read it: after `| head`, or after the
    terminal was closed."""
    try:
        print(text, flush=True)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        fall_silent()


def fall_silent():
    """From now on, discard what is printed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_aside(text, end="\n"):
    """Print text to the error stream now, if there is one that can be written to."""
    if sys.stderr:
        with contextlib.suppress(OSError):  # the terminal may be closed
            print(text, end=end, file=sys.stderr, flush=True)


class Progress:
    """`Progress("training", total)`; call `show(done, text)` as often as you like.

    In a terminal one line is updated in place; a log file gets a new line every ten seconds.
    """

    def __init__(self, name, total, done=0):
        self.name, self.total, self.first = name, total, done
        self.started = time.monotonic()
        self.live = sys.stderr is not None and sys.stderr.isatty()
        self.shown = self.started - 8  # a log's first line comes after two seconds
        self.shown_at = None

    def show(self, done, text=""):
        now = time.monotonic()
        if done == self.shown_at == self.total:  # the last line was shown already
            return
        if now - self.shown < (0.2 if self.live else 10) and done < self.total:
            return
        self.shown, self.shown_at = now, done
        rate = (done - self.first) / max(now - self.started, 1e-9)
        parts = [f"{self.name} {done}/{self.total} ({done / self.total:.0%})", text, "starting"]
        if rate > 0:
            parts[2:] = [f"{rate:.4g}/s" if rate >= 1 else f"{1 / rate:.3g} s each",
                         f"{duration((self.total - done) / rate)} left"]
        line = "  ".join(part for part in parts if part)
        if self.live:  # replaces the line before; never wider than the terminal
            width = shutil.get_terminal_size().columns - 1
            say_aside(f"\r{line[:width]:{width}}", end="" if done < self.total else "\n")
        else:
            say_aside(line)


class Table:
    """A table in a .csv file that grows with a run. The first column is the step.

    Where a run goes on, rows after step `done` and incomplete rows are deleted.
    """

    def __init__(self, path, columns, done=0):
        self.path = path
        rows = path.read_text(encoding="utf-8").splitlines()[1:] if done and path.exists() else []
        whole = [row for row in rows if re.fullmatch(r"\d+" + "(,[^,]*)" * (len(columns) - 1), row)]
        kept = [row for row in whole if int(row.partition(",")[0]) <= done]
        path.write_text("\n".join([",".join(columns), *kept, ""]), encoding="utf-8")

    def add(self, step, *values):
        """Add a row. Values have six digits; None and NaN become empty cells."""
        row = ["" if value is None or math.isnan(value) else f"{value:.6g}" for value in values]
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(",".join([str(step), *row]) + "\n")


def duration(seconds):
    """Seconds as 1:02:03 or 2:03."""
    hours, rest = divmod(int(seconds + 0.5), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
