"""How the programs with the peers of compare_pytorch.py answer it.

A request is a line of JSON with layer, operation, T and peer; the answer is one with `seconds` of a
call, or of a token for `step`, or with `error`. One thread's seconds are processor time.
"""
import importlib.metadata
import json
import os
import platform
import sys
import time

MEASURE_SECONDS = 0.2


def measure(call, clock):
    """Mean seconds of a call, over calls that take MEASURE_SECONDS together."""
    start, calls = clock(), 0
    while True:
        call()
        calls += 1
        seconds = clock() - start
        if seconds >= MEASURE_SECONDS:
            return seconds / calls


class Server:
    """Measures cases and keeps those of one layer, operation and T warm.

    make_case: of a request, the call without arguments to measure."""

    def __init__(self, threads, make_case):
        self.make_case = make_case
        self.clock = time.process_time if threads == 1 else time.perf_counter
        self.row, self.calls = None, {}

    def answer(self, request):
        row = [request["layer"], request["operation"], request["T"]]
        if row != self.row:
            self.row, self.calls = row, {}
        peer = request["peer"]
        if peer not in self.calls:
            call = self.make_case(request)
            measure(call, self.clock)  # warm
            self.calls[peer] = call
        return {"seconds": measure(self.calls[peer], self.clock)}


def versions(packages):
    found = []
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            pass
    return ", ".join([*found, f"Python {platform.python_version()}"])


def serve(threads, packages, make_case):
    """Answers until the input ends; says first which versions of `packages` there are."""
    # What the packages print goes to standard error: standard output carries answers alone.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print(json.dumps({"versions": versions(packages)}), file=answers)
    server = Server(threads, make_case)
    for line in sys.stdin:
        try:
            answer = server.answer(json.loads(line))
        except Exception as error:  # whatever a peer's code does, the other rows are measured
            reason = str(error).strip().splitlines()
            answer = {"error": f"{type(error).__name__}: {reason[0] if reason else 'no message'}"}
        print(json.dumps(answer), file=answers)
