"""Two hundred questions to a chat endpoint through the `openai` client, eight in flight.

    mres serve --port 8000 &
    python experiments/2026-11-serve/run.py http://127.0.0.1:8000/v1

Needs an environment with `openai`; of the project it uses the documents only. Every tenth question
is left: its client asks for a stream and hangs up after the first part. None of the others may be
lost, and each must get what it gets when it is asked alone.
"""

import argparse
import base64
import io
import json
import statistics
import time
import urllib.request
from concurrent import futures

import openai
from PIL import Image

from mres_jax.data.documents import make_document

QUESTION = "What is the total?"


def page(seed: int) -> str:
    """A generated invoice as a data URL."""
    document = make_document(seed, kind="invoice", area_bin="ABCD"[seed % 4], ratio_bin="NM")
    file = io.BytesIO()
    Image.fromarray(document.image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def messages(url: str) -> list:
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    return [{"role": "user", "content": parts}]


def health(url: str) -> dict:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/health", timeout=60) as reply:
        return json.load(reply)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--in-flight", type=int, default=8)
    args = parser.parse_args()
    client = openai.OpenAI(base_url=args.url, api_key="none", max_retries=0, timeout=600)
    model = client.models.list().data[0].id
    pages = [page(seed) for seed in range(16)]
    common = {"model": model, "max_tokens": 16, "temperature": 0}

    def ask(number: int) -> str | None:
        content = messages(pages[number % len(pages)])
        return client.chat.completions.create(messages=content, **common).choices[0].message.content

    def leave(number: int) -> None:
        content = messages(pages[number % len(pages)])
        with client.chat.completions.create(messages=content, stream=True, **common) as stream:
            next(iter(stream))

    alone = [ask(number) for number in range(len(pages))]  # and everything is compiled
    before, start = health(args.url), time.monotonic()

    def one(number: int) -> tuple[str, float]:
        begin = time.monotonic()
        if number % 10 == 9:
            leave(number)
            return "left", time.monotonic() - begin
        same = ask(number) == alone[number % len(pages)]
        return "same" if same else "other", time.monotonic() - begin

    with futures.ThreadPoolExecutor(args.in_flight) as pool:
        results = list(pool.map(one, range(args.requests)))
    seconds, after = time.monotonic() - start, health(args.url)
    waits = sorted(wait for what, wait in results if what != "left")
    counts = {what: sum(w == what for w, _ in results) for what in ("same", "other", "left")}
    rounds = after["rounds"] - before["rounds"]
    print(
        f"{args.requests} requests, {args.in_flight} in flight: {counts['same']} answered as "
        f"alone, {counts['other']} otherwise, {counts['left']} left by their clients; {seconds:.1f}"
        f" s, {rounds} rounds; wait: median {statistics.median(waits):.2f} s, longest "
        f"{waits[-1]:.2f} s"
    )


if __name__ == "__main__":
    main()
