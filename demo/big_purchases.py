"""What demo/routes.toml sends to purchases.big, read by Python alone.

    $ python big_purchases.py < events.jsonl

In: records, one a line. Out: the id and amount of each big purchase, one a line.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    for line in sys.stdin.buffer:
        record = json.loads(line)
        if record["type"] == "purchase" and record["properties"]["amount"] > 100:
            told = {"id": record["messageId"], "amount": record["properties"]["amount"]}
            print(json.dumps(told, separators=(",", ":")))


if __name__ == "__main__":
    main()
