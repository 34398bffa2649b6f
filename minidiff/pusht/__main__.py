"""The commands of PushT, besides train.py and eval.py."""
import signal

if __name__ == "__main__":  # until there is work to save, Ctrl-C ends the program at once
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import importlib
import sys

from .. import stopping

COMMANDS = {  # name: its module, imported only when the command is called; what it does
    "watch": ("view.watch", "a window: see a policy plan and act, and move the T yourself"),
    "record": ("view.record", "a window: demonstrate with the mouse"),
    "film": ("view.films", "draw episodes to a file, as a film strip or an animation"),
    "compare": ("study.compare", "two evaluations, episode by episode, with 95 % intervals"),
    "bound": ("study.bound", "how probable a policy finds demonstrations: their -log p, eq. 10"),
    "forks": ("study.forks", "where two motions are equally good: does a policy plan both?"),
    "collect": ("data.collect", "make demonstrations with the scripted demonstrator"),
}


def overview():
    lines = [__doc__, "", "usage: python -m minidiff.pusht COMMAND ...", ""]
    lines += [f"    {name:9} {does}" for name, (_, does) in COMMANDS.items()]
    lines += ["", "COMMAND --help explains its arguments."]
    return "\n".join(lines)


def main(arguments, begin=lambda: None):
    """Run a command with its arguments, a list of strings -> exit status.

    begin() is called after the command is imported and before its work.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(stopping.shortened(f"minidiff.pusht: there is no command '{name}'; "
                                 f"choose from {', '.join(COMMANDS)}"), file=sys.stderr)
        return 2
    module, _ = COMMANDS[name]
    command = importlib.import_module(f"{__package__}.{module}")
    begin()
    return stopping.run(f"minidiff.pusht {name}", command.main, rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], stopping.listen))
