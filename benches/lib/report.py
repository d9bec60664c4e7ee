"""What a run says: text for people as it is printed, and its figures for programs, kept beside it under results/."""

import datetime
import json
import os
import pathlib
from typing import Any

RESULTS = pathlib.Path(__file__).resolve().parent.parent / "results"


def machine() -> str:
    """The processor and the number of its cores."""
    processors = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ")[1].strip() for line in processors if line.startswith("model name")), "unknown CPU")
    return f"{model}, {os.cpu_count()} cores"


class Report:
    """Called with a text, it prints it. `facts` are of the whole run; each case has the figures it is given."""

    def __init__(self, tool: str, **facts: object) -> None:
        self.tool = tool
        self.began = datetime.datetime.now(datetime.UTC)
        self.facts = facts
        self.lines: list[str] = []
        self.cases: list[dict[str, object]] = []

    def __call__(self, text: str) -> None:
        print(text, flush=True)
        self.lines.append(text)

    def case(self, name: str, **figures: object) -> None:
        self.cases.append({"case": name, **figures})

    def keep(self) -> pathlib.Path:
        """Writes both files and returns the path of the text."""
        text = RESULTS / f"{self.began:%Y-%m-%d-%H%M}-{self.tool}.txt"
        text.write_text("\n".join(self.lines) + "\n")
        kept = {"tool": self.tool, "began": f"{self.began:%Y-%m-%dT%H:%MZ}", "machine": machine(), **self.facts, "cases": self.cases}
        text.with_suffix(".json").write_text(written(kept))
        return text


def written(kept: dict[str, Any]) -> str:
    """As it stands in a file: a line for each row, so that two results are compared line by line."""
    cases = kept["cases"]
    head = json.dumps({**kept, "cases": []}, indent=1, ensure_ascii=False).removesuffix("[]\n}")
    return head + "[\n" + ",\n".join(_case(case) for case in cases) + "\n ]\n}\n"


def _case(case: dict[str, Any]) -> str:
    rows = case.get("rows", {})
    head = json.dumps({key: value for key, value in case.items() if key != "rows"}, ensure_ascii=False)
    if not rows:
        return f"  {head}"
    lines = ",\n".join(f"    {json.dumps(name, ensure_ascii=False)}: {json.dumps(row, ensure_ascii=False)}" for name, row in rows.items())
    return f'  {head[:-1]}, "rows": {{\n{lines}\n  }}}}'
