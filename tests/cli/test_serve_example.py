"""The server of the guide answers images, and says what is wrong with what is none."""

from __future__ import annotations

import importlib.util
import io
import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repertoire import train

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "serve.py"


@pytest.fixture(scope="module")
def run(options: dict, tmp_path_factory: pytest.TempPathFactory) -> train.Run:
    return train.fit(out=tmp_path_factory.mktemp("run") / "a", **{**options, "epochs": 1})


@pytest.fixture(scope="module")
def address(run: train.Run):
    spec = importlib.util.spec_from_file_location("serve", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.make_server(str(run.path), 0, "cpu")
    server.RequestHandlerClass.log_message = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(address: str, body: bytes) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data=body), timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_images_are_answered_also_at_the_same_time(address: str, run: train.Run):
    generator = np.random.default_rng(0)
    bodies = []
    for _ in range(6):
        file = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (20, 30), dtype=np.uint8)).save(file, "PNG")
        bodies.append(file.getvalue())
    found: dict[int, tuple[int, dict]] = {}
    threads = [
        threading.Thread(target=lambda i=i, body=body: found.__setitem__(i, ask(address, body)))
        for i, body in enumerate(bodies)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, expected in enumerate(run.predict(bodies)):
        status, answer = found[i]
        assert status == 200
        assert answer["classes"][0]["class"] == run.classes[expected.argmax()]
        assert answer["classes"][0]["probability"] == pytest.approx(expected.max(), abs=1e-5)


def test_what_is_no_image_is_refused_and_the_server_goes_on(address: str):
    assert ask(address, b"nothing") == (400, {"error": "is not an image, or of a format that is not supported"})
    assert ask(address, b"")[0] == 413
    assert ask(address, b"still nothing")[0] == 400
