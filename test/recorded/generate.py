"""Records the cases of test/src/recorded/data from PyTorch. Needs Python with torch and numpy; the tests do not.

    python3 test/recorded/generate.py            all families
    python3 test/recorded/generate.py products   some of them

A case's values come from a seed made of its name: a new case changes no other. Results are float64 PyTorch's; beside them
stands by how much float32 PyTorch is off, where that is more than a few times 1e-5.
"""
import importlib
import pathlib
import sys

import torch

FAMILIES = ["elementwise", "reductions", "movement", "products", "networks", "graphs", "training"]
OUT = pathlib.Path(__file__).resolve().parent.parent / "src" / "recorded" / "data"


def write(family):
    lines = list(importlib.import_module(f"cases.{family}").cases())
    names = [line.split('"', 4)[3] for line in lines]
    twice = {n for n in names if names.count(n) > 1}
    assert not twice, f"names occur twice: {sorted(twice)}"
    body = "\n".join(lines)
    assert "`" not in body and "${" not in body and "\\" not in body
    head = f"/** {len(lines)} cases, recorded from PyTorch {torch.__version__.split('+')[0]} by test/recorded/generate.py: edit that, not this. */"
    text = f"{head}\nexport const {family.upper()} = `\n{body}\n`;\n"
    (OUT / f"{family}.ts").write_text(text)
    print(f"{family}: {len(lines)} cases, {len(text) // 1024} KB")
    return len(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    print(sum(write(family) for family in sys.argv[1:] or FAMILIES), "cases")
