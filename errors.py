"""Appendix D: one clear line.

Teaches   how a program can fail well: what is wrong, where, and what to do, in one line, with an
          exit code that a script can read, and nothing saved before being harmed.
Order     last, or never; every file's main() starts and ends here.
Run       python errors.py
Expect    an error line and exit code 2.
Shows     $ python errors.py
          error: out of memory: this is only an example: try a smaller one
"""

import argparse
import os
import signal
import sys
import time
from contextlib import contextmanager


started = []  # not empty: main() is at work
interrupts = []  # the Ctrl-C's that came, until a loop that can be resumed takes over (resume.py)


def end_at_once():
    """End after Ctrl-C where no exception would reach run_command()."""
    print("stopped with Ctrl-C", file=sys.stderr, flush=True)
    os._exit(130)


def note_interrupt(number, frame):
    """Ctrl-C. Libraries may catch it while they are imported, which takes seconds, and go on, or
    complain of something else. So before main() we end here, and in it we write it down."""
    if not started:
        end_at_once()  # nothing has been begun that could be harmed
    interrupts.append(number)
    raise KeyboardInterrupt


def unhandled(kind, error, trace, page=sys.excepthook):
    """What Python calls last, for what comes before run_command(): Ctrl-C is no news."""
    if interrupts or kind is KeyboardInterrupt:
        end_at_once()
    page(kind, error, trace)


def swallowed(event, page=sys.unraisablehook):
    """What Python calls for an error where it can raise none, while an object is deleted for
    example. It would print a page and go on; a Ctrl-C that came just there has to end the run."""
    if event.exc_type is KeyboardInterrupt:
        end_at_once()
    page(event)


# Only for our own commands: who imports one of these files, a test for example, has their own ways.
command = getattr(sys.modules["__main__"], "__file__", None)
if command and os.path.dirname(os.path.abspath(command)) == os.path.dirname(__file__):
    sys.excepthook = unhandled  # the other files import this one before torch
    sys.unraisablehook = swallowed
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note_interrupt)


class UserError(Exception):
    """Something the user can mend: its message says what is wrong, where, and what to do."""


def run_command(main):
    """Run a file's `main()` and turn what stops it into an exit code and one line.

    Exit codes: 0 done; 1 the output was closed, or another process of torchrun's was lost; 2 the
    user can mend it; 130 stopped with Ctrl-C; 143 stopped with SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without emoji shows \U0001f600 instead
            stream.reconfigure(errors="backslashreplace")
    errors = sys.stderr  # kept here, because parallel.py mutes all processes but the first
    started.append(main)
    try:
        code = main()
        if sys.stdout:
            sys.stdout.flush()  # now, or a reader who has gone is noticed when it is too late
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:  # started by torchrun
            from parallel import leave  # which itself builds on this file

            leave(code or 0)
        sys.exit(code)
    except KeyboardInterrupt:
        stop()
    except BrokenPipeError:  # `python predict.py ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print("stopped: nobody reads the output any more", file=sys.stderr)
        sys.exit(1)
    except (UserError, OSError) as error:  # OSError: a path too long, a folder without access, ...
        if interrupts:  # a library has made something else of it
            stop()
        if sys.stderr is not errors:  # one of torchrun's processes, and not the first:
            time.sleep(1)  # if the first has the same to say, torchrun ends this one by then
        print(f"error: {plain(str(error))}", file=errors)
        sys.exit(2)
    except Exception as error:
        sys.stderr = errors
        if interrupts:
            stop()
        if "gloo" in str(error) or type(error).__name__ == "DistBackendError":
            print(
                "error: another process of this run has ended, see above or on its machine; "
                "start the run again, finetune.py and predict.py --file with --resume",
                file=errors,
            )
            sys.exit(1)
        raise


def stop():
    """End after Ctrl-C."""
    print("\nstopped with Ctrl-C", file=sys.stderr)
    sys.exit(130)


def plain(text):
    """A text in one line, without what would color a terminal, clear it, or move its cursor."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def make_parser(chapter):
    """An argument parser whose --help opens with the file's own docstring (`chapter`)."""
    parser = argparse.ArgumentParser(
        description=chapter, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    # argparse prints its whole usage before an error; one line is easier to find.
    def refuse(message):
        raise UserError(f"{message} (all options: python {parser.prog} --help)")

    parser.error = refuse
    return parser


@contextmanager
def out_of_memory(advice):
    """Inside this `with`, running out of memory becomes a UserError that ends in `advice`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        words = ("out of memory", "can't allocate memory")  # the GPUs' and the CPU allocator's
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in words):
            raise
        raise UserError(f"out of memory: {advice}") from error


def main():
    make_parser(__doc__).parse_args()
    with out_of_memory("this is only an example: try a smaller one"):
        raise MemoryError


if __name__ == "__main__":
    run_command(main)
