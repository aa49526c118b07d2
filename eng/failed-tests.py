"""failed-tests.py REPORT: prints one line for each failed test of an xUnit XML report: its name, where it failed and the reason."""

import re
import sys
import xml.etree.ElementTree as ElementTree

REASON_CHARS_MAX = 1500

for test in ElementTree.parse(sys.argv[1]).iter("test"):
    if test.get("result") != "Fail":
        continue
    reason = " ".join((test.findtext("failure/message") or "").split())[:REASON_CHARS_MAX]
    places = re.findall(r"(\w+\.cs):line (\d+)", test.findtext("failure/stack-trace") or "")
    print(test.get("name"), "at", ", ".join(f"{file}:{line}" for file, line in places[:3]) or "an unknown place", "-", reason)
