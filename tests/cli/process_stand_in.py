"""What another process of ``--jobs`` does in tests of how files are given out: no networks."""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import Any

from gfp_core.cli.jobs import Message


def work(connection: Any, arguments: Any, options: Any, plan: Any, index: int, *_: Any) -> None:
    """Do what the names of the files say."""
    alone = set()
    while True:
        try:
            number = connection.recv()
        except (EOFError, OSError):
            return
        name = plan.jobs[number].source.stem
        message = Message(number, faces=1, records=((logging.WARNING, f"said of {name}"),))
        if name.startswith("slow"):
            time.sleep(0.5)
        elif name.startswith("broken"):
            message = Message(number, kind="value", error=f"{name} is broken")
        elif name.startswith("odd"):
            message = Message(number, kind="other", error="KeyError('odd')")
        elif name.startswith("crash"):
            os.kill(os.getpid(), signal.SIGKILL)
        elif name.startswith("large") and name not in alone:
            alone.add(name)
            message = Message(number, kind="memory", error=f"{name} needs more memory")
        elif name.startswith("full"):
            message = Message(number, kind="disk", error="the disk is full")
        elif name.startswith("stop"):
            message = Message(number, kind="stop", error="no such model", code=2)
        elif name.startswith("done"):
            message = Message(number)
        elif name.startswith("wait"):
            time.sleep(600)
        connection.send(Message(number, share=0.5))
        connection.send(message)
