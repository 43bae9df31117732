"""How long work tells a person where it is, without knowing whether there is a terminal."""

from typing import Protocol


class Progress(Protocol):
    """Told of stages, of how far each is, and of what a person should read."""

    def stage(self, name: str, total: float) -> None:
        """A stage of ``total`` units of work begins; the one before it is over."""
        ...

    def at(self, done: float, what: str = "") -> None:
        """``done`` units of the stage are finished; ``what`` is at work."""
        ...

    def say(self, text: str) -> None:
        """A line to be read."""
        ...


class Quiet:
    """Tells nobody; keeps the lines it was told to say."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, name: str, total: float) -> None:
        pass

    def at(self, done: float, what: str = "") -> None:
        pass

    def say(self, text: str) -> None:
        self.said.append(text)
