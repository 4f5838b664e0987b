"""A contestant that computes nothing. Its libraries are as talkative as real ones."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "speed" / "workers"))

from loop import serve, turn

kept = []


def say(text: str) -> dict:
    sys.stdout.write(f"a library says {text}\n")
    os.system("echo and so does its child")
    return {"said": text, "threads": os.environ["OMP_NUM_THREADS"]}


def fail() -> dict:
    raise ValueError("the picture\nis odd")


def hoard(megabytes: int) -> dict:
    kept.append(bytearray(os.urandom(1)) * (megabytes * 2**20))
    time.sleep(60)
    return {}


def breed() -> dict:
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    return {"child": child}


def look(name: str) -> dict:
    return {"found": os.environ.get(name)}


def leave(code: int) -> dict:
    sys.stderr.write("out of paper\n")
    sys.exit(code)


def take_turn(passes: int, enough_ms: float, warm_ms: float) -> dict:
    runs: list[int] = []
    spent = turn(lambda: runs.append(1), passes=passes, enough_ms=enough_ms, warm_ms=warm_ms)
    return {"milliseconds": spent, "runs": len(runs)}


if __name__ == "__main__":
    serve({"say": say, "fail": fail, "hoard": hoard, "breed": breed, "look": look, "leave": leave, "time": take_turn})
