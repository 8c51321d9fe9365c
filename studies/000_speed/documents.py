"""How long a search of 10,000 plans takes to be held against its schema: ours beside jsonschema's.

python studies/000_speed/documents.py
"""

from __future__ import annotations

import json
import time
from importlib.resources import files

from jsonschema import Draft202012Validator

from sensprobe.documents import schema

PLANS = 10_000


def main() -> None:
    shipped = files("sensprobe_app") / "example/s4d-digits/results/search.json"
    document = json.loads(shipped.read_text())
    known = document["candidates"]
    document["candidates"] = [known[i % len(known)] for i in range(PLANS)]
    text = (files("sensprobe.documents") / "search.schema.json").read_text()
    theirs, ours = Draft202012Validator(json.loads(text)), schema("search")
    seconds = []
    for check in (theirs.validate, ours.require):
        began = time.process_time()
        check(document)
        seconds.append(time.process_time() - began)
    print(f"jsonschema {seconds[0]:.2f} s, ours {seconds[1]:.2f} s, {seconds[0] / seconds[1]:.0f}x")


if __name__ == "__main__":
    main()
