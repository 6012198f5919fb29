"""Leaves out the header that names a body's schema where the body was replaced. In: groups of a publish. Out: the same.

A bridge with --decode passes on the headers of a message. What --select made of a body has no schema any more, and a
consumer that believes the header could not read it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from qtools.attributes import TOMBSTONE, Attributes, DecodedBody, Headers, UndecodableBody
from qtools.flow.contract import GroupAttributes, GroupPublisher, Refused
from qtools.flow.variables import Row
from qtools.schemas.wire_format import VALUE_HEADER


class FreshHeadersPublisher:
    """Publishes through `publisher`, which it closes."""

    def __init__(self, publisher: GroupPublisher) -> None:
        self._publisher = publisher

    async def publish(
        self, groups: Sequence[tuple[str, Sequence[bytes]]], *, attributes: GroupAttributes | None = None
    ) -> Refused:
        """As the publisher does."""
        fresh = None if attributes is None else _FreshAttributes(groups, attributes)
        return await self._publisher.publish(groups, attributes=fresh)

    async def close(self) -> None:
        await self._publisher.close()


class _FreshAttributes:
    """GroupAttributes without stale headers, made when a publisher asks for them."""

    def __init__(self, groups: Sequence[tuple[str, Sequence[bytes]]], attributes: GroupAttributes) -> None:
        self._groups = groups
        self._attributes = attributes

    def __call__(self) -> Sequence[Attributes]:
        return [
            each if each.headers is None else each._replace(headers=_fresh(each.headers, bodies))
            for each, (_, bodies) in zip(self._attributes(), self._groups, strict=True)
        ]

    def variables(self, names: Collection[str]) -> Sequence[Sequence[Row]]:
        return self._attributes.variables(names)


def _fresh(headers: Sequence[Headers], bodies: Sequence[bytes]) -> Sequence[Headers]:
    return [
        each
        if not each or isinstance(body, (DecodedBody, UndecodableBody)) or body is TOMBSTONE
        else [header for header in each if header[0] != VALUE_HEADER]
        for each, body in zip(headers, bodies, strict=True)
    ]
