"""A line that says how far a long job is, and how long it will still take."""
import sys
import time


class Progress:
    """`Progress("training", total)`; call `show(done, text)` as often as you like.

    A terminal sees one line that renews itself; a log file a new line every ten seconds.
    """

    def __init__(self, name, total, done=0):
        self.name, self.total, self.first = name, total, done
        self.started = time.monotonic()
        self.live = sys.stderr.isatty()
        self.shown = self.started - 8  # a log's first line comes after two seconds

    def show(self, done, text=""):
        now = time.monotonic()
        if now - self.shown < (0.2 if self.live else 10) and done < self.total:
            return
        self.shown = now
        rate = (done - self.first) / max(now - self.started, 1e-9)
        left = f"{duration((self.total - done) / rate)} left" if rate > 0 else "starting"
        line = f"{self.name} {done}/{self.total}  {text}{'  ' if text else ''}{rate:.4g}/s  {left}"
        if self.live:
            end = "" if done < self.total else "\n"
            print(f"\r\033[K{line}", end=end, file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def duration(seconds):
    """1:02:03 or 2:03."""
    hours, rest = divmod(int(seconds + 0.5), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
