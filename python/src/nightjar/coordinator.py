"""The real programs, started from Python: a coordinator for an experiment, and devices beside it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from nightjar.run import Run

PathLike = str | os.PathLike[str]

# A start reads the ledger first, which takes a while for a long run.
READY_S = 600.0
STOP_S = 60.0


class ProgramError(RuntimeError):
    """A program is missing, or has failed; the text is what it said."""


def find_program(name: str, given: PathLike | None = None) -> str:
    """A program of Nightjar: where it was named, else where `NIGHTJAR_BIN` says, else in the path."""
    if given is not None:
        return os.fspath(given)
    folder = os.environ.get("NIGHTJAR_BIN")
    found = shutil.which(name, path=folder) if folder else shutil.which(name)
    if found is None:
        raise ProgramError(f"there is no program {name}: put it in the path, or name its folder in NIGHTJAR_BIN")
    return found


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        words = done.stderr.strip() or f"{command[0]} ended with exit code {done.returncode}"
        raise ProgramError(words.removeprefix("error: "))
    return done.stdout


class _Process:
    """A program at work, whose lines are kept."""

    def __init__(self, command: list[str]) -> None:
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert self._child.stdout is not None
        threading.Thread(target=self._hear, args=(self._child.stdout,), daemon=True).start()

    def _hear(self, lines: IO[str]) -> None:
        for line in lines:
            with self._said:
                self.lines.append(line.rstrip("\n"))
                # The newest are enough to say what went wrong.
                del self.lines[:-1000]
                self._said.notify_all()
        with self._said:
            self._said.notify_all()

    def wait_for(self, pattern: str, timeout_s: float) -> re.Match[str]:
        """The first line that matches."""
        ends = time.monotonic() + timeout_s
        with self._said:
            while True:
                for line in self.lines:
                    if found := re.match(pattern, line):
                        return found
                if self._child.poll() is not None or time.monotonic() > ends:
                    raise ProgramError("\n".join(self.lines[-10:]) or "it ended without a word")
                self._said.wait(0.2)

    def stop(self) -> None:
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class Coordinator:
    """A coordinator that serves a run's folder, until the `with` block ends.

    >>> with Coordinator.new("myrun", data=["texts/"], model="1M", tokens="100k") as coordinator:
    ...     coordinator.run.wait()
    ...     coordinator.export("model")
    """

    def __init__(self, folder: PathLike, *, program: PathLike | None = None) -> None:
        self.folder = Path(folder)
        self.program = find_program("nightjar-coordinator", program)
        self._process: _Process | None = None
        self._run: Run | None = None
        self._address: str | None = None

    @classmethod
    def new(
        cls,
        folder: PathLike,
        *,
        data: list[PathLike],
        model: str,
        tokens: str | None = None,
        context: int | None = None,
        program: PathLike | None = None,
    ) -> Coordinator:
        """A new run in a folder, as `nightjar-coordinator new` makes it; it is served once it is entered."""
        coordinator = cls(folder, program=program)
        words = [coordinator.program, "new", os.fspath(folder), "--model", model]
        words += [word for path in data for word in ("--data", os.fspath(path))]
        words += [] if tokens is None else ["--tokens", tokens]
        words += [] if context is None else ["--context", str(context)]
        _run(words)
        return coordinator

    def __enter__(self) -> Coordinator:
        words = [self.program, "serve", str(self.folder), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        process = self._process = _Process(words)
        try:
            page = process.wait_for(r"page\s+(http://\S+?)/?$", READY_S)
            self._address = process.wait_for(r"ready: (\S+)", READY_S)[1]
            name = f"python-{os.getpid()}-{time.time_ns()}"
            state = str(self.folder / "state")
            token = _run([self.program, "token", "create", "--role", "operator", "--name", name, "--state", state])
            self._run = Run(page[1], token.split()[-1])
        except BaseException:
            process.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.stop()

    @property
    def run(self) -> Run:
        """The run that is served, with an operator's token."""
        if self._run is None:
            raise ProgramError("the coordinator is not served yet: enter it with `with`")
        return self._run

    @property
    def address(self) -> str:
        """Where devices on this computer connect."""
        if self._address is None:
            raise ProgramError("the coordinator is not served yet: enter it with `with`")
        return self._address

    def export(self, folder: PathLike, *words: str) -> Path:
        """Writes the model, as `nightjar-coordinator export` does; `words` are further flags, such as "--dtype", "bf16"."""
        state, data = str(self.folder / "state"), str(self.folder / "data")
        _run([self.program, "export", os.fspath(folder), "--state", state, "--data", data, *words])
        return Path(folder)


class Device:
    """A device that trains on this computer until the `with` block ends, whatever the owner's preferences say."""

    def __init__(
        self,
        home: PathLike,
        link: str,
        *,
        name: str = "",
        anchor: bool = False,
        program: PathLike | None = None,
    ) -> None:
        self.home = Path(home)
        self._program = find_program("nightjar", program)
        self._words = ["anchor"] if anchor else ["run", "--policy", "always"]
        self._link, self._name = link, name
        self._process: _Process | None = None

    def __enter__(self) -> Device:
        self.home.mkdir(parents=True, exist_ok=True)
        program = [self._program, "--home", str(self.home)]
        _run([*program, "join", self._link, *(["--name", self._name] if self._name else [])])
        self._process = _Process([*program, *self._words])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.stop()
