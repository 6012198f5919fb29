"""Names of the objects of one partition of a log (Kafka). In: topics and partitions. Out: prefixes and patterns.

TOPIC.PARTITION.FIRST.log.gz        or, of one that is uploaded in parts, TOPIC.PARTITION.FIRST-LAST.log.gz
"""

from __future__ import annotations

import re

from qtools.to_file.archive.compression import SUFFIXES
from qtools.to_file.archive.layout import EXTENSIONS


def log_prefix(topic: str, partition: int) -> str:
    """What the names of all objects of a partition of a log begin with, without the directory."""
    return f"{'_' if topic.startswith('.') else ''}{topic}.{partition}."


def log_pattern(topic: str, partition: int) -> re.Pattern[str]:
    """Matches the name, without the directory, of each object of a partition of a log; its group is the first offset.
    It matches no object of another topic, though such a name may begin in the same way."""
    extensions = "|".join(map(re.escape, EXTENSIONS.values()))
    suffixes = "|".join(map(re.escape, SUFFIXES.values()))
    return re.compile(
        rf"{re.escape(log_prefix(topic, partition))}(\d{{20}})(?:-\d{{20}})?(?:{extensions})(?:{suffixes})\Z"
    )
