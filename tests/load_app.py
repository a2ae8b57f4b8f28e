"""Many clients at once: does each get its own answer, and how soon?

Run       python tests/load_app.py demo --clients 50 --seconds 30
Expect    requests, errors, wrong answers (other than predict.py's), and how long they waited: the
          median, and the time that 95 % did not exceed. Exit code 1 if anything was wrong.
"""

import argparse
import http.client
import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from predict import Classifier
from support.tables import load_table


def ask(port, texts):
    """POST /predict. Returns (status, [(label, score), ...])."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = json.dumps({"texts": texts})
    connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, [(one["label"], one["score"]) for one in answer["predictions"]]


def measure(port, expected, clients, seconds):
    """Ask from many threads. expected: {text: (label, score)}. Returns (times, complaints)."""
    times, complaints = [], []
    end = time.perf_counter() + seconds

    def client(number):
        choice = random.Random(number)
        while time.perf_counter() < end:
            texts = choice.sample(sorted(expected), choice.randint(1, 3))
            began = time.perf_counter()
            try:
                status, answers = ask(port, texts)
                for text, (label, score) in zip(texts, answers, strict=True):
                    right = expected[text]
                    # Another batch, another order of additions: the last digits may differ.
                    if label != right[0] or abs(score - right[1]) > 1e-5:
                        complaints.append(f"{text!r}: {label} {score}, but is {right}")
            except Exception as error:  # whatever it is, it is what we look for
                complaints.append(repr(error))
            times.append(time.perf_counter() - began)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(times), complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    args = parser.parse_args()
    texts, _ = load_table(PROJECT / "support" / "demo_reviews" / "test.csv").splits["train"]
    classifier = Classifier(args.model, torch.device("cpu"))
    expected = {text: classifier.classify([text])[0] for text in texts[:100]}
    model = Path(args.model).absolute()  # extras.app starts in the project's folder
    command = [sys.executable, "-m", "extras.app", "--model", model, "--port", "0"]
    server = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline().split()[0].rpartition(":")[2])
        times, complaints = measure(port, expected, args.clients, args.seconds)
    finally:
        server.terminate()
        server.wait()
    middle, late = times[len(times) // 2], times[int(len(times) * 0.95)]
    print(f"{args.clients} clients, {args.seconds:g} s: {len(times):,} requests")
    print(f"median {middle * 1000:.0f} ms, 95 % within {late * 1000:.0f} ms")
    print(f"{len(complaints)} errors or wrong answers", *complaints[:5], sep="\n  ")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
