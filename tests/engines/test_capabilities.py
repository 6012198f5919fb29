"""What an engine cannot do is refused as a usage error that names the flag, the engine, and what to do instead."""

from __future__ import annotations

import pytest

from qtools.engines.capabilities import Capabilities
from qtools.engines.contract import EndConditions, NewTopics
from qtools.engines.requirements import require, require_for_end, require_for_publishing
from qtools.errors import UsageError
from tests.engines.clusters.cluster import Cluster

NAMES = [name for name, default in Capabilities._field_defaults.items() if default is False]


@pytest.mark.parametrize("name", NAMES)
async def test_a_capability_is_there_or_refused(cluster: Cluster, name: str) -> None:
    engine = cluster.engine()
    if getattr(engine.capabilities, name):
        require(engine, name, "--flag")
        assert name in engine.capabilities.names()
        return
    with pytest.raises(UsageError) as caught:
        require(engine, name, "--flag")
    flag, what, advice = str(caught.value).split(": ")
    assert flag == "--flag"
    assert what.startswith(f"{engine.capabilities.engine} ")
    assert advice
    assert name not in engine.capabilities.names()


async def test_conditions_that_need_a_capability(cluster: Cluster) -> None:
    engine = cluster.engine()
    has = engine.capabilities
    for flag, ends, is_there in (
        ("--until-empty", EndConditions(until_empty=True), has.depths),
        ("--until-now", EndConditions(until_now=True), has.depths),
        ("--fail-if-paused", EndConditions(fail_if_paused=True), has.pause),
    ):
        if is_there:
            require_for_end(engine, ends)
        else:
            with pytest.raises(UsageError, match=f"^{flag}: {has.engine} "):
                require_for_end(engine, ends)
    require_for_end(engine, EndConditions(idle_timeout=1.0))
    require_for_publishing(engine, None, NewTopics())


async def test_an_engine_says_where_it_is(cluster: Cluster) -> None:
    assert str(cluster.engine()) == cluster.url.partition("://")[2] or str(cluster.engine()) == cluster.url
