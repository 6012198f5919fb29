"""Client → server: the commands as the broker sees them. command_reader.py makes them; plain data."""

from __future__ import annotations

from dataclasses import dataclass

FIN_LENGTH = 21  # bytes of a FIN line


@dataclass(slots=True)
class Identify:
    body: bytes


@dataclass(slots=True)
class Auth:
    secret: bytes


@dataclass(slots=True)
class Sub:
    topic: str
    channel: str


@dataclass(slots=True)
class Ready:
    count: int


@dataclass(slots=True)
class Finish:
    """`lines`: as `commands.fin` makes them."""

    lines: bytes

    @property
    def ids(self) -> list[bytes]:
        return [self.lines[at : at + 16] for at in range(4, len(self.lines), FIN_LENGTH)]


@dataclass(slots=True)
class Requeue:
    ident: bytes
    delay_ms: int


@dataclass(slots=True)
class Touch:
    ident: bytes


@dataclass(slots=True)
class Close:
    pass


@dataclass(slots=True)
class Nop:
    pass


@dataclass(slots=True)
class Publish:
    """`command` is PUB, MPUB or DPUB; `answers` is how many OKs it gets (PUBs in a row are one Publish)."""

    command: str
    topic: str
    bodies: list[bytes]
    delay_ms: int = 0
    answers: int = 1


@dataclass(slots=True)
class RefusedCommand:
    """The error frame that nsqd would send before it closes the connection; without a code, it closes without one."""

    code: str
    text: str


Command = Identify | Auth | Sub | Ready | Finish | Requeue | Touch | Close | Nop | Publish | RefusedCommand
